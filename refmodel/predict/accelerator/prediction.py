"""Cycles and events of a network on the accelerator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refmodel.config import EngineConfig
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.registers import registers
from refmodel.predict.cycles import EVENTS, Prediction, predict
from refmodel.predict.tile import TilePrediction, predict_tile
from refmodel.program.layer import LayerProgram

# Cycles.

NEXT_WORD = 1
"""Cycles from start accepted, or from the end of an operation, to the next word taken."""

FIRST_ITEM = 2
"""Cycles from an operation's start to its first byte read at the pool."""

POOL_LATENCY = 4
"""Cycles from the last byte of a window at the pool to the output: difference and product, sum,
shift, clip."""


LOOK_UP = 1
"""Cycles that an output is later where it goes through a table."""


@dataclass(frozen=True, kw_only=True)
class NetworkPrediction:
    """Cycles and events of one image on the accelerator.

    Attributes
    ----------
    cycles
        From start accepted to the end of the last operation, with everything loaded, the image as
        well, and ``o`` always ready.
    image
        From the first word of the list to the end of the operation that takes the image, its bytes
        being there.
    operations
        Per operation its name, kind, ``words`` loaded before it, ``cycles`` from its start to its
        end, ``filled``, bytes of border that it writes, ``written``, these and its outputs, and
        ``operand_reads``, bytes that post-processing reads for it.
    layers
        To each ``layer`` operation, in order, the prediction of the engine alone, or of the tile.
    """

    cycles: int
    image: int
    operations: tuple[Mapping[str, Any], ...]
    layers: tuple[Prediction | TilePrediction, ...]

    @property
    def events(self) -> dict[str, int]:
        """Values of the counters in the end, for all layers and engines together.

        ``activation_writes`` are the bytes of outputs and borders that operations write, the image
        not counted, which is loaded; every engine has a copy of them. ``operand_reads`` are the
        bytes that post-processing reads for residuals, pools and sums.
        """
        total: dict[str, int] = dict.fromkeys((*EVENTS, "stall_gather", "stall_slots"), 0)
        for layer in self.layers:
            engines: Sequence[Prediction | None] = [layer] if isinstance(layer, Prediction) else ()
            if isinstance(layer, TilePrediction):
                engines = layer.engines
                total["outputs"] += layer.positions * layer.outputs
            for engine in engines:
                for name in total if engine is not None else ():
                    total[name] += getattr(engine, name)
        run = [each for each in self.operations if each["kind"] != "image"]
        for name, key in (("activation_writes", "written"), ("operand_reads", "operand_reads")):
            total[name] = sum(each[key] for each in run)
        return total


def predict_network(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> NetworkPrediction:
    """Predict the cycles of one image of a network.

    An operation ends when its last output is accepted and its border is written. One byte a cycle
    is written; outputs go before the border, so an operation takes as long as its outputs do, or as
    many cycles as there are bytes where that is more. Between two operations the registers are
    loaded, a word a cycle, and the operation is started in a cycle of its own. A table makes every
    output one cycle later.
    """
    total = before = 0
    operations = []
    predictions = []
    for operation in image.operations:
        words = registers(operation, layers, config).words
        if operation.layer is not None:
            if image.engines == 1:
                prediction = predict(layers[operation.layer], config)
            else:
                prediction = predict_tile(operation.parts, config)
            predictions.append(prediction)
            cycles = prediction.cycles
        elif operation.kind == "pool":
            cycles = FIRST_ITEM - 1 + operation.reads + POOL_LATENCY
        else:
            cycles = operation.outputs
        cycles += LOOK_UP * (operation.tables is not None)
        filled = 0 if operation.fill is None else operation.fill.bytes
        cycles = max(cycles, operation.outputs + filled)
        if operation.kind == "image":
            before += words + cycles
        else:
            total += NEXT_WORD + words + cycles
        operations.append(
            {
                "name": operation.name,
                "kind": operation.kind,
                "words": words,
                "cycles": cycles,
                "filled": filled,
                "written": operation.outputs + filled,
                "operand_reads": operation.reads,
            }
        )
    return NetworkPrediction(
        cycles=total, image=before, operations=tuple(operations), layers=tuple(predictions)
    )
