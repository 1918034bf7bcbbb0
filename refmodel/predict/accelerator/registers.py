"""The registers that each operation of the accelerator is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refmodel.config import ACTIVE_BITS, LOOKUPS, SOURCES, EngineConfig
from refmodel.predict.accelerator.operations import Operation, Place
from refmodel.predict.accelerator.resident import index_needs
from refmodel.program.layer import LayerProgram

OUTPUT_REGISTERS = (
    *("last_row", "last_column", "last_channel"),
    *("output_base", "output_row_step", "output_column_step"),
    *("source", "send", "fill"),
)
"""Registers that every operation sets: its loops, how outputs are written, where they come from."""


FILL_REGISTERS = (
    *("fill_base", "fill_first", "fill_between", "fill_last", "fill_gap"),
    *("fill_more", "fill_code"),
)
"""Registers that an operation with a border sets."""

OPERAND_REGISTERS = (
    *("base", "row_step", "column_step", "channel_step"),
    *("first_channel", "last_channel", "zero", "multiplier"),
)
"""Registers of each operand, here without the number before them."""

WINDOW_REGISTERS = (
    *("last_operand", "last_tap_row", "last_tap_column", "tap_row_step", "tap_column_step"),
)
"""Registers that an operation with operands sets beside those of the operands."""

POOL_REGISTERS = ("maximum", "shift", "zero_out", "clip_lo", "clip_hi")
"""Registers that a pool sets."""

OWN_REGISTERS = (
    *("last_descriptor", "last_segment", "last_header", "last_step"),
    *("first_descriptor", "first_segment", "first_header", "first_step", "first_crossbar"),
)
"""Layer registers that each of several engines has for itself: how much it has, and where."""


@dataclass(frozen=True, kw_only=True)
class Registers:
    """Registers that the sequencer loads before an operation, one word a cycle.

    Attributes
    ----------
    engine
        Layer registers that go to every engine, by name; empty where none runs. One engine alone
        has all of its registers here.
    table
        Address offsets of the kernel positions, for every engine.
    post
        Registers of post-processing, by name.
    own
        With several engines: number of each that takes part, to its :data:`OWN_REGISTERS`.
    active
        With several engines: which of them take part, a bit each, :data:`ACTIVE_BITS` to a word.
    """

    engine: Mapping[str, int]
    table: tuple[int, ...]
    post: Mapping[str, int]
    own: Mapping[int, Mapping[str, int]]
    active: tuple[int, ...]

    @property
    def words(self) -> int:
        """Words of all of them."""
        own = sum(len(each) for each in self.own.values())
        return len(self.engine) + len(self.table) + len(self.post) + own + len(self.active)


def registers(
    operation: Operation, layers: Sequence[LayerProgram], config: EngineConfig
) -> Registers:
    """Give what an operation needs in the registers."""
    last = {
        f"last_{name}": size - 1
        for name, size in zip(("row", "column", "channel"), operation.shape, strict=True)
    }
    output = operation.output
    post = last | {
        "output_base": output.base,
        "output_row_step": output.row_step,
        "output_column_step": output.column_step,
        "source": SOURCES.index(operation.kind),
        "send": int(operation.send),
        "fill": int(operation.fill is not None),
    }
    fill = operation.fill
    if fill is not None:
        values = (fill.base, fill.first, fill.between, fill.last, fill.gap)
        values += (fill.runs - 1, fill.code)
        post |= dict(zip(FILL_REGISTERS, values, strict=True))
    for number, operand in enumerate(operation.operands):
        walk = operand.walk
        values = (walk.base, walk.row_step, walk.column_step, walk.channel_step)
        values += (operand.first_channel, operand.last_channel, operand.zero, operand.multiplier)
        names = (f"{name}_{number}" for name in OPERAND_REGISTERS)
        post |= dict(zip(names, values, strict=True))
    if operation.operands:
        down, across = operation.kernel
        values = (len(operation.operands) - 1, down - 1, across - 1)
        values += (operation.tap_row_step, operation.tap_column_step)
        post |= dict(zip(WINDOW_REGISTERS, values, strict=True))
    if config.max_tables:
        tables = operation.tables
        kind = "none" if tables is None else "one" if len(tables) == 1 else "channel"
        post["lookup"] = LOOKUPS.index(kind)
        if tables is not None:
            post["first_table"] = operation.first_table
    if config.products and operation.kind == "pool":
        post["product"] = int(operation.product)
    if operation.kind == "pool":
        values = (int(operation.maximum), operation.shift, operation.zero_out, *operation.clip)
        post |= dict(zip(POOL_REGISTERS, values, strict=True))
    if operation.layer is None:
        return Registers(engine={}, table=(), post=post, own={}, active=())
    layer, place = layers[operation.layer], operation.place
    assert place is not None
    table = kernel_table(layer, place.pitch)
    common = engine_registers(layer, config.merge_lanes, place) | place_registers(layer, place)
    own: dict[int, dict[str, int]] = {}
    active: list[int] = []
    if len(operation.parts) > 1:
        for n, (part, place) in enumerate(zip(operation.parts, operation.places, strict=True)):
            if part is not None and place is not None:
                each = engine_registers(part, config.merge_lanes, place)
                each |= place_registers(part, place)
                own[n] = {name: each[name] for name in OWN_REGISTERS}
        common = {name: common[name] for name in common if name not in OWN_REGISTERS}
        mask = sum(1 << n for n in own)
        for first in range(0, len(operation.parts), ACTIVE_BITS):
            active.append(mask >> first & (1 << ACTIVE_BITS) - 1)
    return Registers(
        engine=common,
        table=table,
        post=post,
        own=own,
        active=tuple(active),
    )


def engine_registers(layer: LayerProgram, lanes: int, place: Place | None = None) -> dict[str, int]:
    """Give the layer registers that every engine has.

    Parameters
    ----------
    lanes
        ``merge_lanes`` of the engine.
    place
        Where the layer is resident; None: at the beginning, its input with its own border.
    """
    channels = layer.in_shape[2]
    if place is None:
        place = Place(pitch=layer.padded_shape[1] * channels)
    needs = index_needs(layer, lanes)
    return {
        "last_column": layer.out_shape[1] - 1,
        "last_row": layer.out_shape[0] - 1,
        "column_step": layer.stride[1] * channels,
        "row_step": layer.stride[0] * place.pitch,
        "last_descriptor": place.descriptor + needs["descriptor"] - 1,
        "last_segment": place.segment + needs["segment"] - 1,
        "last_header": place.header + needs["header"] - 1,
        "last_step": place.step + max(needs["step"] - 1, 0),
        "last_output": layer.out_shape[2] - 1,
        "last_term": layer.terms - 1,
        "identity": int(layer.identity),
        "full_offsets": int(layer.full_offsets),
        "zero_out": layer.zero_out,
        "clip_lo": layer.clip_lo,
        "clip_hi": layer.clip_hi,
    }


def place_registers(layer: LayerProgram, place: Place) -> dict[str, int]:
    """Give the layer registers that an engine of an accelerator has beside those."""
    return {
        "base": place.base,
        "first_descriptor": place.descriptor,
        "first_segment": place.segment,
        "first_header": place.header,
        "first_step": place.step,
        "first_output": place.output,
        "first_crossbar": place.crossbar,
        "residual": int(layer.residual),
        "residual_zero": layer.residual_zero,
        "residual_multiplier": layer.residual_multiplier,
        "residual_shift": layer.residual_shift,
    }


def kernel_table(layer: LayerProgram, pitch: int) -> tuple[int, ...]:
    """Address offset of each kernel position, in an input of a pitch."""
    return tuple(
        row * layer.dilation[0] * pitch + column * layer.dilation[1] * layer.in_shape[2]
        for row in range(layer.kernel[0])
        for column in range(layer.kernel[1])
    )
