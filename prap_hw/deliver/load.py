"""Memory images: a layer's program as the words and beats that a host sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prap_hw.common.layouts import Layouts, Space, TileLayouts
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.cells import cells
from refmodel.predict.accelerator.operations import NetworkImage, Operation, Place
from refmodel.predict.accelerator.registers import engine_registers, kernel_table, registers
from refmodel.predict.accelerator.sizing import check_resident
from refmodel.predict.deal import LayerPart, check_fits_tile
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import check_fits


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerImage:
    """Words and cells to send to an engine before a layer can start.

    Attributes
    ----------
    words
        Payloads of ``i_load`` as integers, in any order.
    beats
        Payloads of ``i_cells`` as integers.
    """

    words: list[int]
    beats: list[int]


def layer_image(
    layer: LayerProgram,
    config: EngineConfig,
    place: Place | None = None,
    *,
    outputs: bool = True,
) -> LayerImage:
    """Make the images of one layer for one engine.

    Parameters
    ----------
    place
        Where it is resident on an accelerator, whose list has the registers and the table of kernel
        positions; None for an engine by itself.
    outputs
        Whether output parameters are among the words.

    Raises
    ------
    InputError
        The layer does not fit the engine; the message names the limit. Or it has a residual, which
        no engine by itself can read.
    """
    if place is None and layer.residual:
        raise InputError(
            f"layer {layer.name}: expected no residual operand on an engine by itself, found one: "
            f"compress with separate residuals, or use tier network"
        )
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
    if place is None:
        for space, addr, value in _registers(engine_registers(layer, config.merge_lanes), layouts):
            load(space, addr, value)
        for position, offset in enumerate(
            kernel_table(layer, layer.padded_shape[1] * layer.in_shape[2])
        ):
            load(Space.TABLE, position, offset)
        place = Place()
    for q in range(len(layer.gather_base)):
        descriptor = struct(
            layouts.descriptor,
            base=layer.gather_base[q],
            length=layer.gather_length[q],
            last_segment=layer.gather_segments[q] - 1,
            patterns=layer.gather_patterns[q],
            final=layer.gather_final[q],
        )
        load(Space.DESCRIPTOR, place.descriptor + q, descriptor)
    for s, position in enumerate(layer.segment_position.tolist()):
        load(Space.POSITION, place.segment + s, position)
        if layer.full_offsets:
            offset = struct(
                layouts.offset, channel=layer.segment_channel[s], length=layer.segment_length[s]
            )
            load(Space.OFFSET, place.segment + s, offset)
    for g in range(len(layer.group_kept)):
        first = layer.group_first_output[g]
        header = struct(
            layouts.header,
            kept=layer.group_kept[g],
            first_output=first,
            last_output=first + layer.group_outputs[g] - 1,
            write=layer.group_write[g],
        )
        load(Space.HEADER, place.header + g, header)
    for step, lanes in enumerate(steps):
        for lane, (slot, shift, minus) in enumerate(lanes):
            word = struct(layouts.word, slot=slot, shift=shift, minus=minus)
            load(Space.WORD, (place.step + step) * config.merge_lanes + lane, word)
    for output in range(layer.out_shape[2] if outputs else 0):
        params = struct(
            layouts.params,
            bias=layer.bias[output],
            multiplier=layer.multiplier[output],
            shift=layer.shift[output],
        )
        load(Space.OUTPUT, place.output + output, params)

    beats = []
    for ou, block in enumerate(cells(layer, config)):
        crossbar, rest = divmod(ou, config.ous_per_crossbar)
        row_block, col_block = divmod(rest, config.col_blocks)
        for row, values in enumerate(block):
            beats.append(
                struct(
                    layouts.cells,
                    crossbar=place.crossbar + crossbar,
                    row_block=row_block,
                    col_block=col_block,
                    row=row,
                    cells=_row_of_cells(values.tolist(), config),
                )
            )
    return LayerImage(words=words, beats=beats)


def _row_of_cells(values: Sequence[int], config: EngineConfig) -> int:
    """Bits of a row of an OU: of a pair the plus cell first, below the minus cell."""
    minus = [(-value << config.cell_bits) if value < 0 else value for value in values]
    return sum(value << config.stored_bits * j for j, value in enumerate(minus))


def _registers(values: Mapping[str, int], layouts: Layouts) -> list[tuple[Space, int, int]]:
    """Give layer registers as (space, address, bits)."""
    fields = {name: (number, field) for number, (name, field) in enumerate(layouts.registers)}
    result = []
    for name, value in values.items():
        number, field = fields[name]
        # A step that is never taken may exceed the address: only its low bits are kept.
        result.append((Space.REGISTER, number, int(value) & ((1 << field.width) - 1)))
    return result


def network_load(program: Program, image: NetworkImage, config: EngineConfig) -> LayerImage:
    """Make the images of a whole network for an accelerator.

    Returns
    -------
    Words of all layers, of the tables, and of the sequencer's list; rows of cells of all layers.
    With several engines each has the one that it is for.

    Raises
    ------
    InputError
        A layer, or all of them together, do not fit the engines; the message names the limit.
    """
    check_resident(image, program.layers, config)
    layouts = Layouts(config)
    words: list[int] = []
    beats: list[int] = []
    for operation in image.operations:
        if operation.layer is None:
            continue
        layer = program.layers[operation.layer]
        if image.engines == 1:
            one = layer_image(layer, config, operation.place)
        else:
            one = _dealt_image(layer, operation, config)
        words += one.words
        beats += one.beats
    for number, code in enumerate(image.tables.reshape(-1).tolist()):
        words.append(_word(layouts, Space.LOOKUP, number, code))
    for number, command in enumerate(command_words(program, image, config)):
        words.append(_word(layouts, Space.COMMAND, number, command))
    return LayerImage(words=words, beats=beats)


def command_words(program: Program, image: NetworkImage, config: EngineConfig) -> list[int]:
    """Make the sequencer's list: before each operation its registers, then the run.

    With several engines, what all of them have in common goes to every engine at once.
    """
    layouts = Layouts(config)
    layout, every = layouts.command, {}
    if image.engines > 1:
        layout, every = TileLayouts(config, image.engines).command, {"every": 1}
    post = {name: (number, field) for number, (name, field) in enumerate(layouts.post)}
    commands = []

    def add(**fields: Any) -> None:
        values: dict[Any, Any] = dict(fields)
        commands.append(layout.const(values).as_bits())

    for operation in image.operations:
        loaded = registers(operation, program.layers, config)
        for space, addr, data in _registers(loaded.engine, layouts):
            add(space=space, addr=addr, data=data, **every)
        for engine, own in loaded.own.items():
            for space, addr, data in _registers(own, layouts):
                add(space=space, addr=addr, data=data, engine=engine)
        for number, mask in enumerate(loaded.active):
            add(space=Space.ENGINES, addr=number, data=mask)
        for position, offset in enumerate(loaded.table):
            add(space=Space.TABLE, addr=position, data=offset, **every)
        for name, value in loaded.post.items():
            number, field = post[name]
            # Steps may be negative, and those that are never taken may exceed the address.
            add(space=Space.POST, addr=number, data=int(value) & ((1 << field.width) - 1))
        add(run=1, last=operation is image.operations[-1])
    return commands


def tile_image(
    layer: LayerProgram, parts: Sequence[LayerPart | None], config: EngineConfig
) -> LayerImage:
    """Make the images of one layer for a tile: every word and beat with the engine it is for.

    Parameters
    ----------
    layer
        The layer, or a pass of it.
    parts
        Each engine's part of it, as :func:`refmodel.predict.deal.deal` gives them.
    config
        Each of the tile's engines.

    Raises
    ------
    InputError
        A part, or the sum of all, does not fit the engines; the message names the limit.
    """
    check_fits_tile(layer, parts, config)
    layouts = Layouts(config)
    images = [None if part is None else layer_image(part, config) for part in parts]
    image = _joined(images, layouts)
    active = sum(1 << n for n, part in enumerate(parts) if part is not None)
    words = [_word(layouts, Space.ENGINES, 0, active), *_shares(layer, parts, 0, layouts)]
    return LayerImage(words=image.words + words, beats=image.beats)


def _dealt_image(layer: LayerProgram, operation: Operation, config: EngineConfig) -> LayerImage:
    """Make the images of a layer that is dealt out and resident on an accelerator."""
    check_fits_tile(layer, operation.parts, config)
    layouts = Layouts(config)
    images = [
        # Output parameters are the accelerator's, once.
        None if part is None else layer_image(part, config, place, outputs=n == 0)
        for n, (part, place) in enumerate(zip(operation.parts, operation.places, strict=True))
    ]
    assert operation.place is not None
    image = _joined(images, layouts)
    words = _shares(layer, operation.parts, operation.place.output, layouts)
    return LayerImage(words=image.words + words, beats=image.beats)


def _joined(images: Sequence[LayerImage | None], layouts: Layouts) -> LayerImage:
    """Put the images of engines together, each word and beat with the engine that it is for."""
    words: list[int] = []
    beats: list[int] = []
    for n, image in enumerate(images):
        if image is not None:
            words += [word | n << layouts.load.size for word in image.words]
            beats += [beat | n << layouts.cells.size for beat in image.beats]
    return LayerImage(words=words, beats=beats)


def _shares(
    layer: LayerProgram, parts: Sequence[LayerProgram | None], first: int, layouts: Layouts
) -> list[int]:
    """Words that say which engines have a share in each output of a layer, from ``first`` on."""
    shares = np.zeros(layer.out_shape[2], object)
    for n, part in enumerate(parts):
        if isinstance(part, LayerPart):
            shares[part.touched] += 1 << n
    return [
        _word(layouts, Space.SHARE, first + output, share)
        for output, share in enumerate(shares.tolist())
    ]


def _word(layouts: Layouts, space: Space, addr: int, bits: int) -> int:
    values: dict[Any, Any] = {"space": space, "addr": addr, "data": bits}
    return layouts.load.const(values).as_bits()


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
