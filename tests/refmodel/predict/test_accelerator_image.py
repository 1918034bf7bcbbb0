"""Networks laid out for the accelerator: regions, operations, their values and their cycles."""

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from prap_hw.deliver.load import network_load
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.predict.accelerator import split
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import NEXT_WORD, predict_network
from refmodel.predict.accelerator.regions import Fill, Region, Walk, affine
from refmodel.predict.accelerator.registers import registers
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import accelerator_config_for, network_needs
from refmodel.predict.cycles import predict
from refmodel.predict.deal import deal
from refmodel.predict.tile import predict_tile
from refmodel.program.program import Program
from refmodel.program.sizes import accumulator_bits, engine_config_for
from refmodel.program.step import Step
from tests.support.nets.accelerator_nets import NETS, codes, program

EXPECTED = {
    ("residual", "separate"): ["image", "layer", "layer", "layer", "pool", "layer", "layer",
                               "pool", "pool", "layer"],
    ("residual", "fused"): ["image", *["layer"] * 5, "pool", "layer"],
    ("pools", "separate"): ["image", "layer", "pool", "pool", "pool", "layer", "pool", "pool",
                            "layer"],
    ("branches", "separate"): ["image", "layer", "layer", "pool", "pool", "pool", "pool", "pool",
                               "pool", "pool", "pool", "pool", "pool"],
    ("functions", "separate"): ["image", "layer", "pool", "layer", "pool", "pool", "layer",
                                *["pool"] * 4, "layer"],
    ("chain", "separate"): ["image", "layer", "layer", "layer"],
    ("waist", "separate"): ["image", *["layer"] * 5],
}  # fmt: skip
"""Kinds of operations; the stride-2 shortcut is none, a concatenation is one to each input."""


@pytest.fixture(params=EXPECTED, ids=" ".join)
def case(request, tmp_path) -> tuple[Program, NetworkImage, list[str]]:
    name, residual = request.param
    compiled = program(name, tmp_path, residual=residual)
    config = accelerator_config_for(compiled)
    return compiled, network_image(compiled, config), EXPECTED[request.param]


# By hand


def test_a_region_by_hand():
    # 2 rows of 3 pixels of 2 channels at 100, with a border of 1 above, 1 to the left, 2 to the
    # right and none below: rows of 12 bytes.
    region = Region(base=100, shape=(2, 3, 2), border=(1, 1, 0, 2))
    assert (region.pitch, region.size) == (12, 36)
    assert region.address(0, 0) == 114
    assert region.address(1, 2, 1) == 100 + 24 + 6 + 1
    assert region.addresses.ravel().tolist() == [*range(114, 120), *range(126, 132)]
    fill = region.fill(7)
    assert fill is not None
    assert fill == Fill(base=100, first=14, between=6, last=4, gap=6, runs=3, code=7)
    assert fill.addresses.tolist() == [*range(100, 114), *range(120, 126), *range(132, 136)]
    assert fill.bytes == 24
    assert Region(base=0, shape=(2, 3, 2), border=(0, 0, 0, 0)).fill(7) is None


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize(
    ("border", "runs"),
    [
        # Above; each row's left; each row's right; below. A run goes on from one row to the next.
        ((1, 1, 1, 1), lambda height: height + 1),
        ((0, 2, 0, 0), lambda height: height),
        ((0, 0, 0, 2), lambda height: height),
        ((0, 0, 2, 1), lambda height: height),
        ((3, 0, 0, 0), lambda height: 1),
        ((0, 0, 1, 0), lambda height: 1),
        ((1, 0, 2, 0), lambda height: 2),
        ((0, 1, 1, 0), lambda height: height + 1),
    ],
)
def test_a_border_and_a_tensor_make_a_region(border, runs, height):
    region = Region(base=50, shape=(height, 2, 3), border=border)
    fill = region.fill(0)
    assert fill is not None
    assert fill.runs == runs(height)
    assert min(fill.lengths) > 0
    both = np.concatenate([region.addresses.ravel(), fill.addresses])
    assert sorted(both.tolist()) == list(range(50, 50 + region.size))


def test_three_loops_by_hand():
    # Every second row and column of 4 x 4 x 2, one channel of zeros before and two behind.
    index = np.full((2, 2, 5), -1)
    for y, x, c in np.ndindex(2, 2, 2):
        index[y, x, c + 1] = 8 * 2 * y + 2 * 2 * x + c
    walk = Walk(base=-1, row_step=16, column_step=4, channel_step=1)
    assert affine(index) == (walk, 1, 2)
    index[1, 1, 2] += 1
    assert affine(index) is None
    nothing = Walk(base=0, row_step=0, column_step=0)
    assert affine(np.full((1, 1, 3), -1)) == (nothing, 1, 0)
    assert affine(np.array([[[0, -1, 1]]])) is None


def test_a_chain_is_two_buffers_in_turn(tmp_path):
    compiled = program("chain", tmp_path)
    image = network_image(compiled, accelerator_config_for(compiled))
    # 6 x 7 x 2 with a border, 4 x 5 x 3, 3 x 4 x 4, 2 x 2 x 2: the third lies where the first was.
    sizes = {name: region.size for name, region in image.regions.items()}
    assert sizes == {"x": 84, "c0": 60, "c1": 48, "y": 8}
    assert {name: region.base for name, region in image.regions.items()} == {
        "x": 0,
        "c0": 84,
        "c1": 0,
        "y": 48,
    }
    assert image.activation_bytes == 144


# Values


@pytest.mark.parametrize("seed", [0, 1])
def test_operations_over_a_flat_memory_compute_the_network(case, seed):
    compiled, image, kinds = case
    assert [operation.kind for operation in image.operations] == kinds
    images = codes(compiled, 3, seed)
    expected = golden.run_program(compiled, images)[compiled.output].reshape(3, -1)
    assert (run_image(image, compiled.layers, images, seed) == expected).all()
    assert [operation.send for operation in image.operations].count(True) == 1
    assert image.operations[-1].send


def lives(image: NetworkImage) -> dict[str, tuple[int, int]]:
    """First and last operation that touch each region, from the addresses of the operations."""
    found: dict[str, tuple[int, int]] = {}
    for number, operation in enumerate(image.operations):
        name = operation.name.split(" (")[0]
        found[name] = found.get(name, (number, number))[0], number
    return found


def test_what_is_written_never_lies_on_what_is_still_read(case):
    compiled, image, _ = case
    written = lives(image)
    read = dict(written)
    names = [operation.name.split(" (")[0] for operation in image.operations]
    views = {step.output: step.inputs[0] for step in compiled.steps if step.op == "rearrange"}
    # What a table alone reads is in no region: the table belongs to what computes that.
    joined = {
        step.inputs[0]: step.output
        for step in compiled.steps
        if step.op == "table" and step.inputs[0] not in image.regions
    }
    for step in compiled.steps:
        for source in step.inputs if step.inputs[0] not in joined else ():
            name = source if source in image.regions else views[source]
            for number, each in enumerate(names):
                if each == joined.get(step.output, step.output):
                    read[name] = read[name][0], max(read[name][1], number)
    spans = {
        name: range(region.base, region.base + region.size)
        for name, region in image.regions.items()
    }
    for a, b in combinations(image.regions, 2):
        alive = read[a][0] <= read[b][1] and read[b][0] <= read[a][1]
        apart = spans[a].stop <= spans[b].start or spans[b].stop <= spans[a].start
        assert apart or not alive, f"{a} {read[a]} {spans[a]}, {b} {read[b]} {spans[b]}"
    assert max(span.stop for span in spans.values()) == image.activation_bytes


def test_the_image_of_a_mutant_shows(tmp_path):
    """Without its border, or a byte further, what is computed is something else."""
    compiled = program("residual", tmp_path, residual="fused")
    image = network_image(compiled, accelerator_config_for(compiled))
    images = codes(compiled, 2)
    expected = golden.run_program(compiled, images)[compiled.output].reshape(2, -1)
    for number, operation in enumerate(image.operations[:-2]):
        moved = dataclasses.replace(operation.output, base=operation.output.base + 1)
        for changes in ({"fill": None}, {"output": moved}):
            operations = list(image.operations)
            operations[number] = dataclasses.replace(operation, **changes)
            mutant = dataclasses.replace(image, operations=tuple(operations))
            same = (run_image(mutant, compiled.layers, images) == expected).all()
            assert not same or (changes == {"fill": None} and operation.fill is None)


def test_residuals_are_read_where_they_lie(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    image = network_image(compiled, accelerator_config_for(compiled))
    by_name = {operation.name: operation for operation in image.operations}
    assert "short" not in image.regions
    # Every second pixel of r2's 4 x 4 x 4 with its border: rows of 24 bytes.
    region = image.regions["a2"]
    assert (region.shape, region.border) == ((4, 4, 4), (1, 1, 1, 1))
    (operand,) = by_name["a4"].operands
    assert (operand.first_channel, operand.last_channel) == (2, 5)
    base = region.address(0, 0) - 2
    assert operand.walk == Walk(base=base, row_step=48, column_step=8, channel_step=1)


# Places of layers


def test_layers_are_resident_one_behind_the_other(tmp_path):
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32, merge_lanes=2))
    image = network_image(compiled, config)
    places = [op.place for op in image.operations if op.place is not None]
    end = dict.fromkeys(("descriptor", "segment", "header", "step", "output", "crossbar"), 0)
    for place, layer in zip(places, compiled.layers, strict=True):
        # A layer without reuse words has none to begin at.
        begin = end | ({"step": 0} if layer.identity else {})
        assert {name: getattr(place, name) for name in end} == begin
        end["descriptor"] += len(layer.gather_base)
        end["segment"] += len(layer.segment_position)
        end["header"] += len(layer.group_kept)
        # Blocks of two outputs, a step to each term.
        blocks = -(-layer.out_shape[2] // 2)
        assert (layer.group_outputs == layer.out_shape[2]).all()
        steps = len(layer.group_kept) * blocks * layer.terms
        end["step"] += 0 if layer.identity else steps
        end["output"] += layer.out_shape[2]
        ous = int(layer.gather_patterns.sum())
        end["crossbar"] += -(-ous // config.ous_per_crossbar)
    assert config.crossbars == end["crossbar"]
    assert config.params >= end["output"]


@pytest.mark.parametrize("engines", [2, 3, 4])
def test_parts_are_resident_one_behind_the_other_in_each_engine(engines, tmp_path):
    compiled = program("waist", tmp_path, scheme="dictionary")
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32), engines)
    image = network_image(compiled, config, engines)
    operations = [op for op in image.operations if op.layer is not None]
    assert image.engines == engines
    ends = []
    for n in range(engines):
        end = dict.fromkeys(("descriptor", "segment", "header", "step", "crossbar"), 0)
        output = 0
        for op, layer in zip(operations, compiled.layers, strict=True):
            part, place = op.parts[n], op.places[n]
            if part is not None and place is not None:
                # Parameters and input are where they are for all; a part without reuse words has
                # none to begin at.
                assert op.place is not None
                assert (place.base, place.pitch) == (op.place.base, op.place.pitch)
                assert place.output == output
                begin = end | ({"step": 0} if layer.identity else {})
                assert {name: getattr(place, name) for name in end} == begin
                end["descriptor"] += len(part.gather_base)
                end["segment"] += len(part.segment_position)
                end["header"] += len(part.group_kept)
                # One lane: a step to each output and term.
                end["step"] += 0 if layer.identity else int(part.group_outputs.sum()) * layer.terms
                end["crossbar"] += -(-int(part.gather_patterns.sum()) // config.ous_per_crossbar)
            assert (part is None) == (place is None)
            output += layer.out_shape[2]
        ends.append(end)
    needs = network_needs(image, compiled.layers, config)
    assert needs["max_params"] == 1 + 4 + 1 + 4 + 1
    assert needs["max_gathers"] == max(end["descriptor"] for end in ends)
    assert needs["crossbars"] == config.crossbars == max(end["crossbar"] for end in ends)


def test_parts_of_several_engines_are_what_the_tile_deals_out(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = accelerator_config_for(compiled, engines=4)
    image = network_image(compiled, config, 4)
    for operation in image.operations:
        if operation.layer is None:
            assert operation.parts == operation.places == ()
            continue
        layer = compiled.layers[operation.layer]
        weights = [part.effective_weights() for part in operation.parts if part is not None]
        assert (np.sum(weights, axis=0) == layer.effective_weights()).all()
    # One engine has the layers themselves, in the places that it always had.
    one = network_image(compiled, accelerator_config_for(compiled), 1)
    parts = [op.parts for op in one.operations if op.layer is not None]
    assert all(part is layer for (part,), layer in zip(parts, compiled.layers, strict=True))
    assert all(len(op.places) == 1 for op in one.operations if op.layer is not None)


def test_an_engine_that_cannot_be_is_refused(tmp_path):
    compiled = program("chain", tmp_path)
    wide = {"shape": [4096, 4096, 1], "scale": 1.0, "zero": compiled.layers[0].zero_in}
    tensors = dict(compiled.tensors) | {"a": wide, "b": wide}
    limits = {"lo": 0, "hi": 9}
    unused = Step(op="clip", inputs=("a",), output="b", params=limits)
    more = dataclasses.replace(compiled, steps=(*compiled.steps, unused), tensors=tensors)
    # What the output does not depend on takes no memory; two tensors of 2^24 codes are too much.
    assert accelerator_config_for(more) == accelerator_config_for(compiled)
    first = dataclasses.replace(compiled.steps[0], inputs=("b",))
    bad = dataclasses.replace(
        compiled, input="a", steps=(unused, first, *compiled.steps[1:]), tensors=tensors
    )
    with pytest.raises(InputError, match=r"^expected a network that one engine holds, found activ"):
        accelerator_config_for(bad)


def test_a_network_that_an_engine_does_not_hold_is_refused_with_the_limit(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32))
    image = network_image(compiled, config)
    network_load(compiled, image, config)
    needs = network_needs(image, compiled.layers, config)
    # 4 channels three times, 8 twice, 5 logits; the regions.
    assert needs["max_params"] == 3 * 4 + 2 * 8 + 5
    assert needs["activation_bytes"] == image.activation_bytes
    for name, need in needs.items():
        small = dataclasses.replace(config, **{name: need - 1})
        with pytest.raises(InputError, match=f"^expected {name} of at most {need - 1} for all lay"):
            network_load(compiled, image, small)


def test_several_engines_need_what_the_one_needs_that_needs_most(tmp_path):
    compiled = program("residual", tmp_path, residual="fused", scheme="dictionary")
    needs = []
    for engines in (1, 2):
        config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32), engines)
        image = network_image(compiled, config, engines)
        network_load(compiled, image, config)
        needs.append(network_needs(image, compiled.layers, config))
        for name, need in needs[-1].items():
            small = dataclasses.replace(config, **{name: need - 1})
            message = rf"^expected {name} of at most {need - 1} for all lay"
            with pytest.raises(InputError, match=message):
                network_load(compiled, image, small)
    one, two = needs
    # Parameters and tensors are the accelerator's; of the rest an engine has some half.
    shared = ("max_params", "activation_bytes")
    assert [two[name] for name in shared] == [one[name] for name in shared]
    assert all(one[name] / 2 <= two[name] < one[name] for name in one if name not in shared)


def test_accumulators_of_all_engines_together_must_fit(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = accelerator_config_for(compiled, EngineConfig(crossbar_size=32), 4)
    need = max(accumulator_bits(layer, config) for layer in compiled.layers)
    small = dataclasses.replace(config, acc_width=need - 1)
    with pytest.raises(
        InputError, match=f"expected acc_width of at most {need - 1}, found {need}$"
    ):
        network_load(compiled, network_image(compiled, small, 4), small)


# What is refused


def refused(compiled: Program, number: int, **changes: Any) -> str:
    """The message for a program of which one step has other parameters."""
    steps = list(compiled.steps)
    step = steps[number]
    steps[number] = dataclasses.replace(step, params=dict(step.params) | changes)
    changed = dataclasses.replace(compiled, steps=tuple(steps))
    with pytest.raises(InputError) as caught:
        network_image(changed, engine_config_for(compiled.layers))
    return str(caught.value)


def test_what_cannot_be_run_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(split, "MOST_PASSES", 4)
    pools = program("pools", tmp_path)
    ops = [step.op for step in pools.steps]
    flat, average = ops.index("rearrange"), ops.index("average_pool")
    rng = np.random.default_rng(0)
    start = "expected steps that the accelerator can run, found "
    message = refused(pools, flat, index=rng.permutation(12))
    assert message == (
        f"{start}codes that three loops cannot read, in the step rearrange that computes 'f'; the "
        "tiers protocol and bulk run the layers, with such steps between them in the golden model"
    )
    message = refused(pools, average, zero_in=3)
    assert message.startswith(f"{start}zero point 3 of a tensor that has 0")
    message = refused(pools, average, kernel=[65, 64])
    assert message.startswith(f"{start}windows of 4160 codes, more than 4096")
    message = refused(program("residual", tmp_path), 3, zeros_in=[1, 2])
    assert message.startswith(f"{start}zero points [1, 2] of tensors that have [128, 0]")


def test_zero_points_of_layers_must_be_those_of_their_tensors(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = engine_config_for(compiled.layers)
    for changes, number, found in (
        ({"zero_in": 9}, 1, "zero point 9 of a tensor that has 0"),
        ({"residual_zero": 9}, 2, "zero point 9 of a tensor that has 0"),
    ):
        layers = list(compiled.layers)
        layers[number] = dataclasses.replace(layers[number], **changes)
        with pytest.raises(InputError, match=f"found {found}, in the step layer that"):
            network_image(dataclasses.replace(compiled, layers=tuple(layers)), config)


# Registers and cycles


def test_cycles_are_those_of_the_operations_and_of_the_words_before_them(case):
    compiled, image, _ = case
    config = accelerator_config_for(compiled)
    found = predict_network(image, compiled.layers, config)
    total = 0
    for number, operation in enumerate(image.operations):
        loaded = registers(operation, compiled.layers, config)
        words = len(loaded.engine) + len(loaded.table) + len(loaded.post)
        assert found.operations[number]["words"] == words
        cycles = words + found.operations[number]["cycles"]
        if number:
            total += cycles + NEXT_WORD
        else:
            assert found.image == cycles
    assert found.cycles == total


def test_what_several_engines_load_by_hand(tmp_path):
    """Of the waist's second layer two engines have a part each, of its first one alone."""
    compiled = program("waist", tmp_path, scheme="dense")
    config = accelerator_config_for(compiled, engines=2)
    image = network_image(compiled, config, 2)
    alone = network_image(compiled, accelerator_config_for(compiled), 1)
    first, second = (registers(image.operations[n], compiled.layers, config) for n in (1, 2))
    one = registers(alone.operations[2], compiled.layers, accelerator_config_for(compiled))
    # 15 layer registers and 11 of an accelerator, of which 9 say what an engine has and where.
    assert (len(one.engine), one.own, one.active) == (26, {}, ())
    assert (len(first.engine), len(second.engine)) == (17, 17)
    assert {n: len(own) for n, own in first.own.items()} == {0: 9}
    assert {n: len(own) for n, own in second.own.items()} == {0: 9, 1: 9}
    assert (first.active, second.active) == ((0b01,), (0b11,))
    assert second.table == one.table
    assert second.words == one.words + 9 + 1
    # The second engine's first part begins at 0, where the first engine has another layer's.
    assert second.own[0]["first_crossbar"] == second.own[0]["first_header"] == 1
    assert second.own[1]["first_crossbar"] == second.own[1]["first_header"] == 0


def test_which_of_many_engines_take_part_is_said_in_words_of_32(tmp_path):
    compiled = program("chain", tmp_path, scheme="dense")
    config = accelerator_config_for(compiled, engines=40)
    image = network_image(compiled, config, 40)
    found = registers(image.operations[1], compiled.layers, config)
    assert sum(word << 32 * n for n, word in enumerate(found.active)) == (1 << len(found.own)) - 1
    assert len(found.active) == 2


@pytest.mark.parametrize("engines", [2, 4])
def test_layers_take_what_the_tile_takes_by_itself(engines, tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = accelerator_config_for(compiled, engines=engines)
    image = network_image(compiled, config, engines)
    found = predict_network(image, compiled.layers, config)
    layers = [each for each in found.operations if each["kind"] == "layer"]
    tiles = [predict_tile(deal(layer, engines, config), config) for layer in compiled.layers]
    assert [each["cycles"] for each in layers] == [tile.cycles for tile in tiles]
    # Requests and gathers of all engines: those of one engine, where no group was split; and
    # outputs once, not once an engine.
    single = network_image(compiled, accelerator_config_for(compiled), 1)
    one = predict_network(single, compiled.layers, accelerator_config_for(compiled))
    assert found.events["outputs"] == one.events["outputs"]
    assert found.events["ous"] >= one.events["ous"]
    parts = [part for op in image.operations for part in op.parts if part is not None]
    events = [predict(part, config) for part in parts]
    assert found.events["requests"] == sum(event.requests for event in events)
    assert found.events["merged"] == sum(event.merged for event in events)


@pytest.mark.parametrize(("engines", "kind"), [(0, ValueError), (65, ValueError), (2.0, TypeError)])
def test_a_number_of_engines_that_is_none_is_refused(engines, kind, tmp_path):
    compiled = program("chain", tmp_path)
    with pytest.raises(kind, match=r"^engines must be "):
        accelerator_config_for(compiled, engines=engines)
    with pytest.raises(kind, match=r"^engines must be "):
        network_image(compiled, accelerator_config_for(compiled), engines)


def test_the_time_of_an_operation_by_hand(tmp_path):
    compiled = program("residual", tmp_path, residual="fused")
    config = accelerator_config_for(compiled)
    image = network_image(compiled, config)
    found = predict_network(image, compiled.layers, config)
    cycles = {each["name"]: each["cycles"] for each in found.operations}
    # The image: 32 bytes and 2 * 20 of border, one a cycle.
    assert cycles["x"] == 4 * 4 * 2 + (6 * 6 - 4 * 4) * 2
    # The average of 4 pixels of 8 channels: the first byte after 2 cycles, the output 4 behind.
    assert cycles["g"] == 1 + 32 + 4
    layer = predict(compiled.layers[-1], config)
    assert cycles["y"] == layer.cycles
    assert len(found.layers) == len(compiled.layers)


def test_every_network_of_the_tests_is_here():
    assert {name for name, _ in EXPECTED} == set(NETS)
