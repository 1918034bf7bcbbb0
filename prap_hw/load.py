"""Memory images: a layer's program as the words and beats that the engine's host sends."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prap_hw.layouts import Layouts, Space
from refmodel.compile import check_fits
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.golden import cells
from refmodel.program import LayerProgram
from refmodel.tile import LayerPart, check_fits_tile


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerImage:
    """What to send to an engine before a layer can start.

    Attributes
    ----------
    words
        Payloads of ``i_load`` as integers, in any order.
    beats
        Payloads of ``i_cells`` as integers.
    """

    words: list[int]
    beats: list[int]


def layer_image(layer: LayerProgram, config: EngineConfig) -> LayerImage:
    """Make the images of one layer for one engine.

    Raises
    ------
    InputError
        The layer does not fit the engine; the message names the limit.
    """
    check_fits(layer, config)
    layouts = Layouts(config)
    words: list[int] = []
    places: dict[int, dict[str, tuple[int, int]]] = {}

    def struct(layout, **values) -> int:
        # What layout.const does, in an eighth of the time: ResNet-20 has 250,000 of them.
        if id(layout) not in places:
            places[id(layout)] = {
                name: (field.offset, (1 << field.width) - 1) for name, field in layout
            }
        bits = 0
        for name, value in values.items():
            offset, mask = places[id(layout)][name]
            bits |= (int(value) & mask) << offset
        return bits

    def load(space: Space, addr: int, bits: int) -> None:
        words.append(struct(layouts.load, space=space.value, addr=addr, data=bits))

    steps = reuse_steps(layer, config.merge_lanes)
    _, width, channels = layer.padded_shape
    registers = {
        "last_column": layer.out_shape[1] - 1,
        "last_row": layer.out_shape[0] - 1,
        "column_step": layer.stride[1] * channels,
        "row_step": layer.stride[0] * width * channels,
        "last_descriptor": len(layer.gather_base) - 1,
        "last_segment": len(layer.segment_position) - 1,
        "last_header": len(layer.group_kept) - 1,
        "last_step": max(len(steps) - 1, 0),
        "last_output": layer.out_shape[2] - 1,
        "last_term": layer.terms - 1,
        "identity": layer.identity,
        "full_offsets": layer.full_offsets,
        "zero_out": layer.zero_out,
        "clip_lo": layer.clip_lo,
        "clip_hi": layer.clip_hi,
    }
    for number, (name, field) in enumerate(layouts.registers):
        # A step that is never taken may exceed the address: only its low bits are kept.
        load(Space.REGISTER, number, int(registers[name]) & ((1 << field.width) - 1))
    for q in range(len(layer.gather_base)):
        descriptor = struct(
            layouts.descriptor,
            base=layer.gather_base[q],
            length=layer.gather_length[q],
            last_segment=layer.gather_segments[q] - 1,
            patterns=layer.gather_patterns[q],
            final=layer.gather_final[q],
        )
        load(Space.DESCRIPTOR, q, descriptor)
    for s, position in enumerate(layer.segment_position.tolist()):
        load(Space.POSITION, s, position)
        if layer.full_offsets:
            offset = struct(
                layouts.offset, channel=layer.segment_channel[s], length=layer.segment_length[s]
            )
            load(Space.OFFSET, s, offset)
    for g in range(len(layer.group_kept)):
        first = layer.group_first_output[g]
        header = struct(
            layouts.header,
            kept=layer.group_kept[g],
            first_output=first,
            last_output=first + layer.group_outputs[g] - 1,
            write=layer.group_write[g],
        )
        load(Space.HEADER, g, header)
    for step, lanes in enumerate(steps):
        for lane, (slot, shift, minus) in enumerate(lanes):
            word = struct(layouts.word, slot=slot, shift=shift, minus=minus)
            load(Space.WORD, step * config.merge_lanes + lane, word)
    for position in range(layer.kernel[0] * layer.kernel[1]):
        y, x = divmod(position, layer.kernel[1])
        offset = (y * layer.dilation[0] * width + x * layer.dilation[1]) * channels
        load(Space.TABLE, position, offset)
    for output in range(layer.out_shape[2]):
        params = struct(
            layouts.params,
            bias=layer.bias[output],
            multiplier=layer.multiplier[output],
            shift=layer.shift[output],
        )
        load(Space.OUTPUT, output, params)

    beats = []
    for ou, block in enumerate(cells(layer, config)):
        crossbar, rest = divmod(ou, config.ous_per_crossbar)
        row_block, col_block = divmod(rest, config.col_blocks)
        for row, values in enumerate(block):
            beats.append(
                struct(
                    layouts.cells,
                    crossbar=crossbar,
                    row_block=row_block,
                    col_block=col_block,
                    row=row,
                    cells=sum(int(cell) << config.cell_bits * j for j, cell in enumerate(values)),
                )
            )
    return LayerImage(words=words, beats=beats)


def tile_image(
    layer: LayerProgram, parts: Sequence[LayerPart | None], config: EngineConfig
) -> LayerImage:
    """Make the images of one layer for a tile: every word and beat with the engine it is for.

    Parameters
    ----------
    layer
        The layer, or a pass of it.
    parts
        What :func:`refmodel.tile.deal` gives for it.
    config
        Each of the tile's engines.

    Raises
    ------
    InputError
        A part, or the sum of all, does not fit the engines; the message names the limit.
    """
    check_fits_tile(layer, parts, config)
    load, cells = Layouts(config).load, Layouts(config).cells
    words: list[int] = []
    beats: list[int] = []
    active = 0
    shares = np.zeros(layer.out_shape[2], object)
    for n, part in enumerate(parts):
        if part is None:
            continue
        image = layer_image(part, config)
        words += [word | n << load.size for word in image.words]
        beats += [beat | n << cells.size for beat in image.beats]
        active |= 1 << n
        shares[part.touched] += 1 << n
    tile_words = [(Space.ENGINES, 0, active)]
    tile_words += [(Space.SHARE, output, share) for output, share in enumerate(shares.tolist())]
    for space, addr, bits in tile_words:
        words.append(load.const({"space": space, "addr": addr, "data": bits}).as_bits())
    return LayerImage(words=words, beats=beats)


def reuse_steps(layer: LayerProgram, lanes: int) -> list[list[tuple[int, int, int]]]:
    """Reuse words in the order in which the merge takes them, ``lanes`` to a step.

    A group's outputs are walked in blocks of ``lanes`` aligned to multiples of it, and in a block
    term by term; lanes without an output of the group get a word that says none.

    Returns
    -------
    One list a step of (slot, stored shift, sign bit), ``lanes`` long. Empty for an identity map.
    """
    steps: list[list[tuple[int, int, int]]] = []
    if layer.identity:
        return steps
    words = list(
        zip(
            layer.word_slot.tolist(),
            layer.word_shift.tolist(),
            layer.word_sign.tolist(),
            strict=True,
        )
    )
    start = 0
    for first, count in zip(
        layer.group_first_output.tolist(), layer.group_outputs.tolist(), strict=True
    ):
        for block in range(first // lanes, (first + count - 1) // lanes + 1):
            for term in range(layer.terms):
                step = []
                for output in range(block * lanes, block * lanes + lanes):
                    inside = first <= output < first + count
                    at = start + (output - first) * layer.terms + term
                    slot, shift, sign = words[at] if inside else (0, SHIFT_NONE, 0)
                    step.append((0, SHIFT_NONE, 0) if shift == SHIFT_NONE else (slot, shift, sign))
                steps.append(step)
        start += count * layer.terms
    return steps


def padded_input(layer: LayerProgram, codes: np.ndarray) -> np.ndarray:
    """The bytes of ``i_acts``: one input with its border of zero points.

    Parameters
    ----------
    codes
        uint8 [H, W, C].

    Returns
    -------
    uint8 [bytes], row by row, channels fastest.
    """
    top, left, bottom, right = layer.pads
    return np.pad(
        codes,
        ((top, bottom), (left, right), (0, 0)),
        constant_values=layer.zero_in,
    ).reshape(-1)
