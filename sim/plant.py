"""Faults that are planted, to see that the comparison finds them: each is one that must show."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from refmodel import golden
from refmodel.config import MAX_SHIFT, MIN_SHIFT, SHIFT_NONE, EngineConfig
from refmodel.errors import InputError
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim.comparison import expected_records
from sim.job import PLANTS


def choose(
    program: Program,
    codes: np.ndarray,
    config: EngineConfig,
    plant: str | None,
    seed: int,
) -> tuple[str | None, dict[int, LayerProgram], dict[str, int] | None]:
    """Choose a fault that must show.

    Returns
    -------
    The fault in words; layers to load instead; the fault of a code.
    """
    if plant is None:
        return None, {}, None
    rng = np.random.default_rng([seed, PLANTS.index(plant)])
    tensors = golden.run_program(program, codes[:1])
    inputs = {
        step.params["index"]: tensors[step.inputs[0]]
        for step in program.steps
        if step.op == "layer"
    }
    order = rng.permutation(sorted(inputs)).tolist()
    if plant == "code":
        index = order[0]
        layer = program.layers[index]
        ordinal = int(rng.integers(expected_records(layer, config)["codes"]))
        adc = int(rng.integers(config.adcs))
        flip = 1 << int(rng.integers(config.lane_bits)) + adc * config.lane_bits
        fault = {"layer": index, "image": 0, "ordinal": ordinal, "flip": flip}
        text = f"layer {layer.name}, image 0: a bit of ADC {adc} in response {ordinal}"
        return text, {}, fault
    for index in order:
        layer = program.layers[index]
        for text, changed in _changes(layer, plant, rng):
            if _shows(layer, changed, inputs[index], config):
                return f"layer {layer.name}: {text}", {index: changed}, None
    raise InputError(f"expected a layer in which to plant {plant}, found none where it would show")


def _changes(
    layer: LayerProgram, plant: str, rng: np.random.Generator
) -> Iterator[tuple[str, LayerProgram]]:
    """Layers with one word changed, in random order: what was changed, and the layer."""

    def change(name: str, at: int, value: int) -> LayerProgram:
        array = getattr(layer, name).copy()
        array[at] = value
        return dataclasses.replace(layer, **{name: array})

    words = (
        np.flatnonzero(layer.word_shift != SHIFT_NONE) if not layer.identity else np.zeros(0, int)
    )
    if plant == "shift":
        for word in rng.permutation(words).tolist()[:64]:
            before = int(layer.word_shift[word])
            after = before + 1 if before < MAX_SHIFT - MIN_SHIFT else before - 1
            yield (
                f"shift of reuse word {word} {before} to {after}",
                change("word_shift", word, after),
            )
        return
    kept = np.repeat(layer.group_kept, layer.group_outputs * layer.terms)
    positions = layer.kernel[0] * layer.kernel[1]
    candidates = [("slot", word) for word in words.tolist() if kept[word] > 1]
    if positions > 1:
        candidates += [("position", s) for s in range(len(layer.segment_position))]
    if layer.full_offsets:
        candidates += [("channel", s) for s in range(len(layer.segment_channel))]
    for kind, at in (candidates[i] for i in rng.permutation(len(candidates))[:64]):
        name = {
            "slot": "word_slot",
            "position": "segment_position",
            "channel": "segment_channel",
        }[kind]
        before = int(getattr(layer, name)[at])
        if kind == "slot":
            count = int(kept[at])
        else:
            count = positions if kind == "position" else layer.in_shape[2]
        after = (before + 1 + int(rng.integers(max(1, count - 1)))) % count
        if after == before:
            continue
        owner = "reuse word" if kind == "slot" else "segment"
        try:
            yield f"{kind} of {owner} {at} {before} to {after}", change(name, at, after)
        except InputError:
            continue  # a channel run that would leave the input


def _shows(
    layer: LayerProgram, changed: LayerProgram, codes: np.ndarray, config: EngineConfig
) -> bool:
    """Whether a changed layer has other requests or accumulators at some early position."""
    positions = slice(0, min(layer.positions, 256))
    a = golden.run_layer_serial(layer, codes, config, positions=positions)
    b = golden.run_layer_serial(changed, codes, config, positions=positions)
    return not (
        np.array_equal(a.digits, b.digits) and np.array_equal(a.accumulators, b.accumulators)
    )
