"""The bulk tier: golden model and protocol tier agree with it; hangs, builds, kept results."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from prap_hw.app import workflow
from prap_hw.app.cli import program as command_line
from prap_hw.app.demo import ENGINE
from prap_hw.common.layouts import Layouts, Space
from prap_hw.deliver.load import LayerImage, layer_image, padded_input
from refmodel import digits, golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.images import Preprocess
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim import bulk as tier
from sim.builds import verilator
from sim.builds.engine import build_library
from sim.builds.library import Engine
from sim.results import KINDS, RESULTS, CosimResult
from tests.support.nets.cosim_nets import (
    EMULATED,
    WIDE,
    bulk,
    cosim,
    inputs,
    random_network,
    reused_network,
)
from tests.support.nets.onnx_nets import save, small_cnn

pytestmark = pytest.mark.cosim

Run = Callable[..., CosimResult]


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Run:
    """The tier on the engine of :mod:`tests.sim.test_cosim`, with results kept for one test."""

    def call(program: Program, codes: np.ndarray, **options: Any) -> CosimResult:
        options.setdefault("config", EMULATED)
        return bulk(program, codes, folder=tmp_path, cache=root / "build" / "cache", **options)

    return call


@pytest.fixture
def library(root: Path) -> Path:
    """The library of that engine."""
    return build_library(EMULATED, cache=root / "build" / "cache")


def assert_equal(result: CosimResult, kinds: tuple[str, ...], images: int) -> None:
    """All that was expected was compared, nothing differs, and cycles are the predicted ones."""
    assert result.difference is None, str(result.difference)
    assert tuple(result.compared) == kinds
    for kind, counts in result.compared.items():
        assert counts["values"] == counts["expected"] > 0, kind
        assert counts["different"] == 0, kind
    for layer in result.layers:
        assert layer.cycles_simulated == (layer.cycles_predicted,) * images


@pytest.mark.long
def test_an_image_of_the_digits_network_is_as_in_the_golden_model(
    root: Path, tmp_path: Path
) -> None:
    images = digits.digits_images()
    preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
    kinds: dict[str, Literal["float", "prap"]] = {"prap": "prap", "dense": "float"}
    programs = {
        scheme: workflow.compile_floats(
            load_onnx(digits.network_path(kind)),
            images.calibration_x,
            preprocess,
            scheme=scheme,
            settings=digits.SETTINGS if scheme == "prap" else None,
        )
        for scheme, kind in kinds.items()
    }
    # One engine that holds both, so that one library is built.
    layers = [layer for program in programs.values() for layer in program.layers]
    config = sizes.engine_config_for(layers, ENGINE)
    for scheme, program in programs.items():
        codes = program.codes(images.x[:1])
        result = bulk(program, codes, config, tmp_path / scheme, cache=root / "build" / "cache")
        assert_equal(result, RESULTS, 1)
        assert len(result.layers) == len(program.layers)
        assert result.logits is not None
        last = golden.run_program(program, codes)[program.output]
        np.testing.assert_array_equal(result.logits, last)
        loaded = sum(len(layer_image(each, config).beats) for each in program.layers)
        cycles = sum(layer.cycles_predicted for layer in result.layers)
        assert result.simulated_cycles > cycles + loaded


def test_every_value_of_random_layers(run: Run) -> None:
    program = random_network(101, 24, EMULATED)
    assert_equal(run(program, inputs(program, 2, 102), every_value=True), KINDS, 2)


@pytest.mark.long
def test_every_value_where_payloads_are_wide(run: Run) -> None:
    layouts = Layouts(WIDE)
    assert min(layouts.request.size, layouts.response.size, layouts.cells.size) > 64
    assert layouts.columns.ends > 1
    program = random_network(111, 8, WIDE)
    assert_equal(run(program, inputs(program, 1, 112), config=WIDE, every_value=True), KINDS, 1)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.long
def test_the_command_line_takes_an_engine_of_other_sizes_whose_codes_clip(
    every: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small_cnn(11), tmp_path)
    pixels = np.random.default_rng(11).integers(0, 256, (12, 8, 8, 2), np.uint8)
    images, folder, figures = tmp_path / "images.npz", tmp_path / "net", tmp_path / "figures.json"
    np.savez(images, x=pixels)
    workflow.compress(tmp_path / "net.onnx", images, folder, scheme="prap")
    options = {"preset": "small", "cell_bits": 4, "dac_bits": 2, "adc_bits": 6, "adcs": 3}
    program = workflow.load_program(folder)
    config = workflow.engine_for(program, options)
    codes = program.codes(pixels[:2])
    clipped = golden.run_program(program, codes, layer_fn=golden.serial_layer(config))
    exact = golden.run_program(program, codes)
    assert not np.array_equal(clipped[program.output], exact[program.output])

    cache = root / "build" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "cache").symlink_to(cache)
    monkeypatch.chdir(tmp_path)
    command = ["cosim", str(folder), "--images", str(images), "--count", "2", "--tier", "bulk"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--json", str(figures), *(["--every-value"] if every else [])]
    assert command_line.run(command) == 0
    compared = json.loads(figures.read_text())["compared"]
    assert tuple(compared) == (KINDS if every else RESULTS)
    assert all(each["values"] == each["expected"] > 0 for each in compared.values())
    assert not any(each["different"] for each in compared.values())


@pytest.mark.parametrize("plant", [pytest.param(None, marks=pytest.mark.long), "shift", "index"])
def test_both_tiers_find_the_same(plant: str | None, run: Run, root: Path, tmp_path: Path) -> None:
    program = reused_network(401, EMULATED)
    codes = inputs(program, 2, 402)
    options: dict[str, Any] = {"plant": plant, "seed": 1}
    protocol = cosim(
        program, codes, EMULATED, tmp_path / "protocol", cache=root / "build" / "cache",
        record_difference=False, **options,
    )  # fmt: skip
    every = run(program, codes, every_value=True, **options)
    assert every.compared == protocol.compared
    assert every.differences == protocol.differences
    assert every.layers == protocol.layers
    np.testing.assert_array_equal(every.logits, protocol.logits)

    results = run(program, codes, **options)
    assert results.compared == {kind: protocol.compared[kind] for kind in RESULTS}
    expected = [each for each in protocol.differences if each.kind not in KINDS[:3]]
    assert list(results.differences) == expected
    assert bool(expected) == (plant is not None)
    assert results.planted == protocol.planted


def test_a_code_cannot_be_planted(run: Run) -> None:
    program = reused_network(401, EMULATED)
    with pytest.raises(ValueError, match="plant must be shift or index in the bulk tier, not"):
        run(program, inputs(program, 1, 402), plant="code")


def changed_image(
    monkeypatch: pytest.MonkeyPatch, space: Space, change: Callable[[dict[str, int]], None]
) -> None:
    """Load the first word of a space of every layer otherwise than the program has it."""
    load = Layouts(EMULATED).load

    def changed(layer: LayerProgram, config: EngineConfig) -> LayerImage:
        image = layer_image(layer, config)
        words = list(image.words)
        for i, word in enumerate(words):
            parts = load.from_bits(word)
            if parts.space == space and parts.addr == 0:
                values = {"data": parts.data}
                change(values)
                words[i] = load.const({"space": space, "addr": 0, **values}).as_bits()
        return dataclasses.replace(image, words=words)

    monkeypatch.setattr(tier, "layer_image", changed)


def test_a_hang_ends_at_the_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    program = reused_network(501, EMULATED)
    codes = inputs(program, 2, 502)

    def too_many(values: dict[str, int]) -> None:
        # The first group waits for more slots than conversions complete.
        header = Layouts(EMULATED).header
        parts = header.from_bits(values["data"])
        fields = {name: getattr(parts, str(name)) for name, _ in header}
        values["data"] = header.const({**fields, "kept": EMULATED.slots}).as_bits()

    changed_image(monkeypatch, Space.HEADER, too_many)
    result = run(program, codes)
    layer = program.layers[0]
    outputs = layer.positions * layer.out_shape[2]
    limit = 2 * result.layers[0].cycles_predicted + 2000
    last = result.differences[-1]
    assert (last.kind, last.layer, last.image) == ("hang", layer.name, 0)
    pattern = rf"still busy after {limit} cycles, with (\d+) of {outputs} accumulators, \1 of .*"
    found = re.fullmatch(pattern, last.got)
    assert found is not None, last.got
    assert result.logits is None
    assert len(result.layers) == 1
    assert result.compared["outputs"]["values"] == int(found[1]) < outputs
    assert result.compared["outputs"]["different"] > 0
    figures = {"compared": result.compared, "layers": [], "differences": []}
    assert any("outputs, compared" in fault for fault in workflow.faults(figures))

    monkeypatch.undo()
    again = run(program, codes)
    assert_equal(again, RESULTS, 2)
    assert again.kept == 0


def test_a_wrong_output_is_told_with_its_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    program = reused_network(401, EMULATED)

    def another_bias(values: dict[str, int]) -> None:
        values["data"] ^= 1 << 30

    changed_image(monkeypatch, Space.OUTPUT, another_bias)
    result = run(program, inputs(program, 1, 402))
    assert {each.kind for each in result.differences} == {"outputs"}
    assert result.compared["accumulators"]["different"] == 0
    first = result.difference
    assert first is not None
    assert (first.image, first.where) == (0, "output 0")
    assert first.expected.startswith("code ")
    assert first.got.startswith("code ")
    wanted = golden.run_program(program, inputs(program, 1, 402))
    step = next(s for s in program.steps if s.op == "layer" and s.output == f"out{first.layer[5:]}")
    assert first.position is not None
    assert first.expected == f"code {wanted[step.output][0][(*first.position, 0)]}"


def test_memories_begin_with_random_contents(library: Path) -> None:
    program = reused_network(401, EMULATED)
    layer = program.layers[0]
    image = layer_image(layer, EMULATED)
    acts = padded_input(layer, np.full(layer.in_shape, 255, np.uint8))
    expected: dict[str, int] = dict.fromkeys(RESULTS, layer.positions * layer.out_shape[2])
    empty = dataclasses.replace(image, beats=[])
    fields = Layouts(EMULATED).cells
    mask = ((1 << EMULATED.ou_cols) - 1) << fields["cells"].offset
    zero = dataclasses.replace(image, beats=[beat & ~mask for beat in image.beats])
    sums = []
    for each in (empty, zero):
        with Engine(library, EMULATED) as engine:
            engine.load(each)
            sums.append(
                engine.run(acts, expected, 100_000, every_value=False).records["accumulators"]
            )
    assert not np.array_equal(*sums)


def test_a_build_is_found_again(
    library: Path, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verilator, "_run_library_build", lambda *_: 1 / 0)
    monkeypatch.setattr("prap_hw.deliver.verilog.engine_verilog", lambda *_: 1 / 0)
    assert build_library(EMULATED, cache=root / "build" / "cache") == library
    assert library.name == verilator.LIBRARY
    # Other content is another build.
    text = "module prap_engine(); endmodule\n"
    widths = {"PSUM": 1, "PSUMS": 1}
    with pytest.raises(ZeroDivisionError):
        verilator.build_library(text, "prap_engine", widths=widths, counters=(), cache=tmp_path)


def test_a_build_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    text = "module prap_engine(; endmodule\n"
    widths = {"PSUM": 1, "PSUMS": 1}
    with pytest.raises(RuntimeError, match=r"could not be built: .*\n[\s\S]*syntax error"):
        verilator.build_library(text, "prap_engine", widths=widths, counters=(), cache=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_an_interrupted_run_goes_on(run: Run, tmp_path: Path) -> None:
    program = random_network(101, 3, EMULATED)
    codes = inputs(program, 3, 102)
    done: list[str] = []

    def interrupt(stage: str, count: int, total: int) -> None:
        if stage == "simulate layer1" and count == 2:
            raise KeyboardInterrupt
        done.append(stage)

    with pytest.raises(KeyboardInterrupt):
        run(program, codes, progress=interrupt)
    # As if it had been ended within a line.
    file = max((tmp_path / "kept").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with file.open("a") as stream:
        stream.write('{"acts": "0')
    again = run(program, codes)
    assert again.kept == 3 + 2
    assert_equal(again, RESULTS, 3)

    third = run(program, codes)
    assert (third.kept, third.simulated_cycles) == (9, 0)
    assert third.layers == again.layers
    np.testing.assert_array_equal(third.logits, again.logits)
    assert_equal(third, RESULTS, 3)

    fresh = run(program, codes, fresh=True)
    assert fresh.kept == 0
    assert fresh.layers == again.layers
    assert run(program, codes, every_value=True).kept == 0
    # Another image has results of its own.
    assert run(program, codes[:, ::-1, ::-1, ::-1]).kept == 0


def test_what_is_kept_is_compared_again(run: Run, tmp_path: Path) -> None:
    program = random_network(101, 1, EMULATED)
    codes = inputs(program, 2, 102)
    first = run(program, codes)
    (file,) = (tmp_path / "kept").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # As if the golden model had changed since, and as if the hardware had been slow.
    lines[0]["outputs"] = lines[1]["outputs"]
    lines[1]["cycles"] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = run(program, codes)
    assert again.kept == 1
    assert again.layers[0].cycles_simulated[0] == first.layers[0].cycles_predicted
    assert {(each.kind, each.image) for each in again.differences} == {
        ("cycles", 1),
        ("counter cycles", 1),
    }


def test_a_planted_fault_is_not_hidden_by_what_is_kept(run: Run) -> None:
    program = reused_network(401, EMULATED)
    codes = inputs(program, 2, 402)
    assert_equal(run(program, codes), RESULTS, 2)
    result = run(program, codes, plant="shift", seed=1)
    assert result.difference is not None
    assert result.difference.kind == "accumulators"


def test_the_options_of_the_tier_are_refused_in_the_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected tier bulk for every_value, found protocol"):
        workflow.cosim(tmp_path, tmp_path / "images.npz", every_value=True)
    with pytest.raises(
        InputError, match="expected a tier of protocol, bulk, network, found 'unit'"
    ):
        workflow.cosim(tmp_path, tmp_path / "images.npz", tier="unit")
