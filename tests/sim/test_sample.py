"""Samples of layers: values of the golden model at their positions, cycles as predicted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from refmodel import golden
from refmodel.errors import InputError
from refmodel.predict import cycles
from refmodel.program.program import Program
from sim import bulk
from sim.job import Job
from sim.run import run_layers
from sim.sample import Part, draw, part_input, part_layer, sampled
from tests.support.nets.cosim_nets import EMULATED, inputs, random_network

PROGRAM = random_network(31, 12, EMULATED)


def job(program: Program = PROGRAM, **options) -> Job:
    codes = inputs(program, 2, 5)
    return Job(program=program, codes=codes, config=EMULATED, tier="bulk", **options)


def test_positions_are_drawn_by_the_seed():
    layer = max(PROGRAM.layers, key=lambda layer: layer.positions)
    one, other = draw(layer, 0, 3, 1), draw(layer, 0, 3, 2)
    assert draw(layer, 0, 3, 1) == one
    assert one != other
    assert one.positions is not None
    assert len(set(one.positions)) == 3
    assert max(one.positions) < layer.positions
    assert draw(layer, 0, layer.positions, 1).positions is None


def at_positions(layer, codes, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Accumulators of a part, and those of the whole layer at its positions."""
    small = part_layer(layer, part)
    found = golden.accumulators(small, part_input(layer, codes, part))
    whole = golden.accumulators(layer, codes).reshape(len(codes), layer.positions, -1)
    return found[:, 0], whole[:, list(part.positions or ())]


def test_a_part_computes_what_the_whole_layer_does_at_its_positions():
    """Kernels, strides, dilation and padding of convolutions are drawn."""
    kinds, moved_parts = set(), 0
    tensors = golden.run_program(PROGRAM, inputs(PROGRAM, 2, 5))
    for step in PROGRAM.steps:
        if step.op != "layer":
            continue
        layer, codes = PROGRAM.layers[step.params["index"]], tensors[step.inputs[0]]
        part = draw(layer, step.params["index"], max(1, layer.positions // 2), 3)
        if part.positions is None:
            continue
        found, whole = at_positions(layer, codes, part)
        assert np.array_equal(found, whole), layer.name
        kinds |= {("stride", layer.stride), ("dilation", layer.dilation), ("kernel", layer.kernel)}
        kinds.add(("pads", any(layer.pads)))
        # A mutant that takes the position beside it is found, where they differ.
        moved = tuple((p + 1) % layer.positions for p in part.positions)
        shifted = part_input(layer, codes, Part(index=part.index, positions=moved))
        if not np.array_equal(shifted, part_input(layer, codes, part)):
            mutant = golden.accumulators(part_layer(layer, part), shifted)[:, 0]
            assert (mutant != whole).any(), layer.name
            moved_parts += 1
    assert moved_parts > 5
    assert kinds >= {
        ("stride", (1, 1)), ("stride", (2, 2)), ("dilation", (2, 1)), ("kernel", (3, 3)),
        ("kernel", (1, 3)), ("pads", True),
    }  # fmt: skip


def test_a_sample_is_predicted_by_the_engine_of_the_whole_network():
    made, parts = sampled(job(positions=2))
    assert made.config.slots == EMULATED.slots
    for part, small in zip(parts, made.program.layers, strict=True):
        whole = PROGRAM.layers[part.index]
        assert cycles.predict(whole, made.config).cycles == cycles.predict(whole, EMULATED).cycles
        assert small.positions == min(2, whole.positions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("nothing",)}, "expected a layer out of .*, found 'nothing'"),
        ({"layers": (PROGRAM.layers[0].name, "no*")}, "found 'no\\*'"),
    ],
)
def test_layers_that_there_are_not_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        sampled(job(**options))


def test_a_fault_is_not_planted_in_a_sample():
    with pytest.raises(InputError, match="expected no planted fault in a sample, found shift"):
        sampled(job(positions=1, plant="shift"))


def test_other_tiers_have_no_samples():
    with pytest.raises(InputError, match="expected tier bulk for positions, found protocol"):
        dataclasses.replace(job(positions=1), tier="protocol")
    with pytest.raises(InputError, match="expected tier bulk for layers, found network"):
        dataclasses.replace(job(layers=("x",)), tier="network")


@pytest.mark.cosim
def test_a_sample_goes_through_the_rtl(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(layer.name for layer in PROGRAM.layers[3:8])
    given = job(layers=names, positions=2, seed=4, folder=tmp_path, cache=root / "build" / "cache")
    made, parts = sampled(given)
    made = dataclasses.replace(made, config=EMULATED)  # which is built for other tests
    result = run_layers(made)
    assert result.difference is None, str(result.difference)
    assert [layer.name for layer in result.layers] == list(names)
    for part, layer in zip(parts, result.layers, strict=True):
        small = part_layer(PROGRAM.layers[part.index], part)
        predicted = cycles.predict(small, EMULATED).cycles
        assert layer.cycles_simulated == (predicted, predicted)
    for counts in result.compared.values():
        assert counts["values"] == counts["expected"] > 0
    # Other inputs than those of the golden model are found.
    real = bulk.padded_input
    monkeypatch.setattr(bulk, "padded_input", lambda layer, codes: real(layer, 255 - codes))
    assert run_layers(dataclasses.replace(made, fresh=True)).difference is not None
