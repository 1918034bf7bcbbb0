"""The report: pictures count what the program holds, and the page stands alone."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from prap_hw.app.report.content import (
    ABSENT_CODE,
    DROPPED_CODE,
    FIRST_SHIFT_CODE,
    KEPT_CODE,
    Shape,
    kept_shapes,
    occupancy,
    reuse_codes,
)
from prap_hw.app.report.page import render_report, write_report
from refmodel.config import EngineConfig
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for, ou_count
from tests.support.layers.builders import random_layer_program

SEED = 5


def hand_made(**changes: Any) -> LayerProgram:
    """Two groups of two channels, four outputs, 2x2 kernel, worked by hand below.

    Group 0: shape {0, 3} with slots 0 and 1, shape {1} with slot 2; words: slot 0 as it is, slot 1
    as it is, slot 2 halved, none. Group 1: shape {0, 3} with slot 0; words: slot 0 as it is four
    times, the third with a minus.
    """
    values: dict[str, Any] = {
        "name": "hand",
        "scheme": "prap",
        "ou_rows": 8,
        "in_shape": (2, 2, 4),
        "out_shape": (1, 1, 4),
        "kernel": (2, 2),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": (0, 0, 0, 0),
        "zero_in": 0,
        "zero_out": 0,
        "clip_lo": 0,
        "clip_hi": 255,
        "terms": 1,
        "identity": False,
        "full_offsets": False,
        "patterns": 8,
        "kept": 4,
        "reused": 3,
        "dropped": 1,
        "ous_dense": 8,
        "group_kept": [3, 1],
        "group_first_output": [0, 0],
        "group_outputs": [4, 4],
        "group_write": [1, 0],
        "group_gathers": [2, 1],
        "gather_base": [0, 0, 2],
        "gather_length": [2, 2, 2],
        "gather_segments": [2, 1, 2],
        "gather_patterns": [2, 1, 1],
        "gather_accumulate": [0, 0, 0],
        "gather_final": [1, 1, 1],
        "segment_position": [0, 3, 1, 0, 3],
        "segment_channel": [0, 0, 0, 0, 0],
        "segment_length": [2, 2, 2, 2, 2],
        "word_slot": [0, 1, 2, 0, 0, 0, 0, 0],
        "word_shift": [8, 8, 7, 15, 8, 8, 8, 8],
        "word_sign": [0, 0, 0, 0, 0, 0, 1, 0],
        # 1 has one cell at 1, -1 all eight.
        "weights": np.pad(np.array([[1] * 4, [-1] * 4, [1, 1, 0, 0], [0] * 4]), ((0, 0), (0, 4))),
        "bias": [0] * 4,
        "multiplier": [1] * 4,
        "shift": [0] * 4,
    }
    arrays: dict[str, Any] = {
        k: np.array(v) if isinstance(v, list) else v for k, v in (values | changes).items()
    }
    return LayerProgram(**arrays)


def figures_of(layers: list[LayerProgram], config: EngineConfig) -> dict[str, Any]:
    rows = []
    for layer in layers:
        p = predict(layer, config)
        rows.append(
            {
                "name": layer.name,
                "patterns_kept": layer.kept,
                "patterns_reused": layer.reused,
                "patterns_dropped": layer.dropped,
                "ous_dense": layer.ous_dense,
                "ous": ou_count(layer, config),
                "index_bits": 123,
                "cycles_predicted": p.cycles,
                "cycles_simulated": p.cycles,
                "cycles_bound": p.bound,
                "bounds": {"conversion": p.conversion * p.positions, "gather": p.gathered},
                "stalls": {"waiting for inputs": 1, "start and end": 2},
            }
        )
    return {
        "images": 500,
        "seconds": 1.5,
        "accuracy": {"float": 0.984, "int8": 0.98, "prap": 0.97},
        "compared": {"ADC codes": {"values": 4321, "expected": 4321, "different": 0}},
        "layers": rows,
        "command": "prap demo --trial <&>",
        "versions": {"numpy": "9.9"},
        "seeds": {"training": 2023},
        "notes": ["Trial data."],
    }


def test_kept_shapes_of_a_layer_worked_by_hand() -> None:
    assert kept_shapes(hand_made()) == [
        Shape(positions=(0, 3), kept=3, served=6),
        Shape(positions=(1,), kept=1, served=1),
    ]


def test_reuse_codes_of_a_layer_worked_by_hand() -> None:
    reused = FIRST_SHIFT_CODE + 8
    assert reuse_codes(hand_made()).T.tolist() == [
        [KEPT_CODE, KEPT_CODE, FIRST_SHIFT_CODE + 7, DROPPED_CODE],
        [KEPT_CODE, reused, reused, reused],
    ]


def test_outputs_that_a_group_does_not_touch_are_absent() -> None:
    layer = random_layer_program(
        np.random.default_rng(SEED), groups=2, identity=False, in_shape=(4, 4, 4), outputs=4
    )
    codes = reuse_codes(layer)
    for g, (first, count) in enumerate(
        zip(layer.group_first_output, layer.group_outputs, strict=True)
    ):
        touched = np.zeros(len(codes), bool)
        touched[first : first + count] = True
        assert ((codes[:, g] != ABSENT_CODE) == touched).all()


def test_occupancy_of_a_layer_worked_by_hand() -> None:
    use = occupancy(hand_made(), EngineConfig(crossbar_size=32))
    # OUs of 8 by 8 lie side by side, four to a row of blocks: all four are in the first.
    assert use.ous == 4
    assert use.cells.shape == (1, 32, 32)
    assert not use.cells[0, 8:].any()
    # OU 0 holds 1 in four rows: bit 0 is set; even groups have 1 and 2.
    assert use.cells[0, 0, :8].tolist() == [2] + [1] * 7
    assert use.cells[0, 4:8, :8].tolist() == [[0] * 8] * 4
    assert use.cells[0, 0, 8:16].tolist() == [2] * 8
    # OU 2 has the shape of one position: two rows.
    assert use.cells[0, 1:3, 16].tolist() == [2, 0]
    # OU 3 is of group 1, and zero: odd groups have 3 and 4.
    assert set(use.cells[0, :4, 24:32].flatten().tolist()) == {3}
    assert use.rows_used == (4 + 4 + 2 + 4) / 32
    assert use.ones == (4 + 32 + 2) / (14 * 8)


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_occupancy_counts_every_ou_and_cell(seed: int) -> None:
    layer = random_layer_program(np.random.default_rng(seed))
    config = engine_config_for([layer], EngineConfig(crossbar_size=32))
    use = occupancy(layer, config)
    ones = np.unpackbits(layer.weights.view(np.uint8)).sum()
    assert np.count_nonzero((use.cells == 2) | (use.cells == 4)) == ones
    assert np.count_nonzero(use.cells) == 8 * (layer.gather_rows * layer.gather_patterns).sum()


class Links(HTMLParser):
    """Collect what a page refers to, and see that its tags match."""

    VOID = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    layers = [hand_made(), random_layer_program(np.random.default_rng(SEED), identity=True)]
    config = engine_config_for(layers)
    samples = [{"pixels": np.eye(4), "label": 3, "answer": 4}]
    return render_report(figures_of(layers, config), layers, config, samples=samples)


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    links = Links()
    links.feed(page)
    assert not links.open
    outside = [link for link in links.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_pictures_are_well_formed_and_named(page: str) -> None:
    pictures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    names = [ElementTree.fromstring(picture).attrib["aria-label"] for picture in pictures]
    assert names == [
        "images that went through the hardware",
        "where the cycles go",
        "what the converters do",
        "crossbars of all layers",
        "kept shapes of layer hand",
        "reuse map of layer hand",
    ]


def test_page_says_what_was_measured(page: str) -> None:
    assert "4,321 values compared" in page
    assert "98.40 %" in page
    assert "492 of 500 images right" in page
    assert "numpy 9.9" in page
    assert "prap demo --trial &lt;&amp;&gt;" in page
    assert "predicted = simulated, every layer" in page


def test_the_same_figures_give_the_same_page(page: str) -> None:
    layers = [hand_made(), random_layer_program(np.random.default_rng(SEED), identity=True)]
    config = engine_config_for(layers)
    samples = [{"pixels": np.eye(4), "label": 3, "answer": 4}]
    assert page == render_report(figures_of(layers, config), layers, config, samples=samples)


def test_a_difference_is_the_first_thing_said() -> None:
    layers = [hand_made()]
    config = engine_config_for(layers)
    figures = figures_of(layers, config)
    figures["compared"]["ADC codes"] |= {"values": 4000, "different": 7}
    figures["differences"] = ["layer hand, position 3: expected 1, got 2"]
    page = render_report(figures, layers, config)
    assert "agree bit for bit" not in page
    assert "7 of 4,000 values differ" in page
    assert "321 expected values never came" in page
    assert "layer hand, position 3" in page


def test_unequal_cycles_are_not_called_equal() -> None:
    layers = [hand_made()]
    config = engine_config_for(layers)
    figures = figures_of(layers, config)
    figures["layers"][0]["cycles_simulated"] += 1
    assert "predicted = simulated" not in render_report(figures, layers, config)


def test_figures_without_extras_make_a_page(tmp_path) -> None:
    layers = [hand_made()]
    config = engine_config_for(layers)
    full = json.loads(json.dumps(figures_of(layers, config)))
    keys = ("images", "seconds", "accuracy", "compared", "layers")
    figures = {key: full[key] for key in keys}
    for layer in figures["layers"]:
        del layer["bounds"], layer["stalls"], layer["cycles_simulated"]
    path = tmp_path / "new" / "report.html"
    write_report(path, MappingProxyType(figures), layers, config)
    assert "what the converters do" not in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
