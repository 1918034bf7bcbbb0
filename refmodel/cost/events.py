"""Events of a network on an engine, a tile or an accelerator, for one image and for pricing.

Counting is the slow stage (it predicts cycles); pricing the counts with a technology is cheap, so
that a sweep counts once and prices many times. Names are those of
:mod:`refmodel.predict.events`; beside them stand the bytes that post-processing and the host move,
and what only a tile has.

    from refmodel.cost.events import network_events

    found = network_events(program)
    print(found.layers[0].counts["conversions"], found.cycles)
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refmodel.config import EngineConfig, check_engines
from refmodel.errors import InputError
from refmodel.predict.accelerator import (
    NEXT_WORD,
    NetworkImage,
    accelerator_config_for,
    check_resident,
    network_image,
    predict_network,
)
from refmodel.predict.cycles import predict
from refmodel.predict.deal import deal
from refmodel.predict.events import (
    COUNTED,
    DERIVED,
    add_events,
    layer_events,
    memory_reads,
    tile_events,
)
from refmodel.predict.tile import predict_tile
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import ou_count

MOVED = (
    "activation_writes",
    "operand_reads",
    "accumulator_reads",
    "reduction_adds",
    "list_words",
)
"""Events beside those of :mod:`refmodel.predict.events`.

``activation_writes``
    Bytes written to the activation memory: the image, outputs, borders. Without an accelerator, a
    layer's input with its border, from the host.
``operand_reads``
    Bytes that post-processing reads: windows of pooling, operands of sums, residuals.
``accumulator_reads``
    Accumulators read to be requantised: those of every engine that takes part.
``reduction_adds``
    Additions of engines' accumulators in a tile.
``list_words``
    Words of the sequencer's list.
"""

NAMES = (*COUNTED, *DERIVED, *MOVED)
"""All events of a layer."""


@dataclass(frozen=True, kw_only=True)
class LayerEvents:
    """Events of one operation of a network for one image.

    Attributes
    ----------
    name, kind
        Name of the operation; ``layer``, ``pool`` or ``image``.
    cycles
        Clock cycles, those between it and the operation before among them.
    counts
        Number of each of the events :data:`NAMES`, of all engines together.
    reads
        Words read from each memory of the program, by its name; of all engines together.
    crossbars
        Arrays that the layer needs, of all engines together.
    """

    name: str
    kind: str
    cycles: int
    counts: Mapping[str, int]
    reads: Mapping[str, int]
    crossbars: int


@dataclass(frozen=True, kw_only=True)
class NetworkEvents:
    """Events of a network for one image.

    Attributes
    ----------
    name
        Name of the network; empty where the program has none.
    scheme
        Scheme of the program.
    config, engines
        The engine that the network runs on, and how many of them.
    layers
        Operations in order.
    """

    name: str
    scheme: str
    config: EngineConfig
    engines: int
    layers: tuple[LayerEvents, ...]

    @property
    def cycles(self) -> int:
        """Clock cycles of an image, the taking of it among them."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def crossbars(self) -> int:
        """Arrays of all layers: all are resident, since cells are not rewritten in use."""
        return sum(layer.crossbars for layer in self.layers)

    @property
    def counts(self) -> dict[str, int]:
        """Sums over the layers."""
        return add_events(layer.counts for layer in self.layers)


def network_events(
    program: Program, config: EngineConfig | None = None, engines: int = 1
) -> NetworkEvents:
    """Count the events of one image of a network, and predict its cycles.

    Parameters
    ----------
    program
        The network.
    config
        The engine, or each of a tile. With ``config.network`` an accelerator, on which pooling and
        sums run as well; without, layers run one after the other, fed by a host that does the
        rest, which is not counted. Where None, the accelerator that the network needs.
    engines
        N, 1 to 64.

    Raises
    ------
    InputError
        The accelerator does not hold the network, or cannot run it.
    """
    check_engines(engines)
    if not program.layers:
        raise InputError("expected a convolution or fully connected layer, found none")
    if config is None:
        config = accelerator_config_for(program, engines=engines)
    if config.network:
        image = network_image(program, config, engines)
        check_resident(image, program.layers, config)
        layers = _accelerator(image, program, config)
    else:
        layers = [_alone(layer, config, engines) for layer in program.layers]
    return NetworkEvents(
        name=str(program.about.get("network", "")),
        scheme=str(program.about.get("scheme", "")),
        config=config,
        engines=engines,
        layers=tuple(layers),
    )


def _accelerator(image: NetworkImage, program: Program, config: EngineConfig) -> list[LayerEvents]:
    """Events of each operation of an accelerator."""
    found = predict_network(image, program.layers, config)
    result = []
    for operation, figures in zip(image.operations, found.operations, strict=True):
        moved = {
            "activation_writes": figures["written"] * image.engines,
            "operand_reads": figures["operand_reads"],
            "list_words": figures["words"],
        }
        looked_up = {} if operation.tables is None else {"lookup": operation.outputs}
        between = 0 if operation.kind == "image" else NEXT_WORD
        cycles = between + figures["words"] + figures["cycles"]
        if operation.layer is None:
            made = _moves(operation.name, operation.kind, cycles, moved)
        else:
            name = program.layers[operation.layer].name
            made = _layer(name, cycles, operation.parts, config, moved)
        result.append(dataclasses.replace(made, reads={**made.reads, **looked_up}))
    return result


def _alone(layer: LayerProgram, config: EngineConfig, engines: int) -> LayerEvents:
    """Events of a layer on an engine or tile that a host feeds."""
    written = math.prod(layer.padded_shape) * engines
    reads = math.prod(layer.out_shape) if layer.residual else 0
    moved = {"activation_writes": written, "operand_reads": reads}
    if engines == 1:
        return _layer(layer.name, predict(layer, config).cycles, (layer,), config, moved)
    parts = deal(layer, engines, config)
    return _layer(layer.name, predict_tile(parts, config).cycles, parts, config, moved)


def _moves(name: str, kind: str, cycles: int, moved: Mapping[str, int]) -> LayerEvents:
    return LayerEvents(
        name=name,
        kind=kind,
        cycles=cycles,
        counts=dict.fromkeys(NAMES, 0) | dict(moved),
        reads={},
        crossbars=0,
    )


def _layer(
    name: str,
    cycles: int,
    parts: Sequence[LayerProgram | None],
    config: EngineConfig,
    moved: Mapping[str, int],
) -> LayerEvents:
    """Events of a layer, or of its parts in the engines of a tile."""
    busy = [part for part in parts if part is not None]
    counts = layer_events(busy[0], config) if len(parts) == 1 else tile_events(parts, config)
    reads = add_events(memory_reads(part, config) for part in busy)
    reads["output"] = memory_reads(busy[0], config)["output"]
    if len(parts) > 1:
        reads["share"] = reads["output"]
    outputs = counts["outputs"]
    counts = dict.fromkeys(NAMES, 0) | counts | dict(moved)
    counts["accumulator_reads"] = outputs * len(busy)
    counts["reduction_adds"] = outputs * (len(busy) - 1)
    per = config.ous_per_crossbar
    return LayerEvents(
        name=name,
        kind="layer",
        cycles=cycles,
        counts=counts,
        reads=reads,
        crossbars=sum(-(-ou_count(part, config) // per) for part in busy),
    )


def with_latency(config: EngineConfig, cycles: int) -> EngineConfig:
    """Give an engine another crossbar latency, and the room and the patience that it needs."""
    return dataclasses.replace(
        config,
        crossbar_latency=cycles,
        requests_in_flight=max(config.requests_in_flight, cycles + 4),
        port_timeout=max(config.port_timeout, cycles + 4),
    )
