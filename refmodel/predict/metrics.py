"""Metrics of a compiled network: patterns, cells, index bits, events of an inference.

Everything is counted from the program, in integers; nothing here is energy or time. Sources of the
formulas: docs/specification/architecture.md, Bounds (operation units, conversions, cycles) and
Parts (what reads and writes what). With R, C, S, A as there, B = 8 bits of an input and D bits of
the DAC, for one layer::

    OUs                  sum over gathers of ceil(patterns * S / C)
    crossbars            ceil(OUs / (floor(X / R) * floor(X / C)))
    cells programmed     sum over gathers of rows * patterns * S
    events               refmodel.predict.events

    from refmodel.predict.metrics import network_metrics

    found = network_metrics(program)
    print(found.total.sparsity, found.total.conversions, found.layers[0].cycles)
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refmodel import golden
from refmodel.config import WEIGHT_BITS, EngineConfig
from refmodel.predict import cycles
from refmodel.predict.events import layer_events
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for, index_bits, ous_of_gathers

ALL = "all"
"""Name of the total over a network's layers."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of one layer, or their sums over a network.

    Attributes
    ----------
    name, scheme
        Name and scheme of the layer; ``all`` and the network's scheme for the sums.
    patterns, kept, reused, dropped
        Weight patterns: all; programmed; taken from another output; replaced by zero.
    weights, weights_zero
        Weights of the layer as it was given; effective weights that are 0.
    ous_dense, ous
        Operation units that scheme dense would need, and that the program needs.
    crossbars
        Arrays that hold the layer's operation units; of a network, all layers resident at once.
    cells_programmed, cells_ous, cells_crossbars
        Cells that hold weights; cells of the operation units; cells of the crossbars.
    weight_bits, weight_bits_dense
        Bits in the cells that hold weights; the same with every weight programmed once.
    index_shapes, index_offsets, index_words, index_padding, index_headers
        Bits of kernel positions, of full channel offsets, of reuse words, of what fills up the
        lanes of their memory, of headers of gathers and groups: see
        :func:`refmodel.program.sizes.index_bits`.
    positions
        Output positions of an image.
    requests
        Requests at the crossbar port for one image: at most A columns each.
    ou_activations
        Pairs of operation unit and output position of one image; each takes ceil(B / D) input
        digits.
    conversions
        Columns converted for one image; converters without a column in use are not counted.
    wordline_drives
        Wordlines driven for one image: rows in use of each request, whatever their digits.
    buffer_reads
        Bytes read from the activation buffer for one image.
    index_reads
        Words read from the index memories for one image: headers of gathers and groups, segments
        (twice where they have full offsets), reuse words; once for each block of positions.
    psum_writes, psum_reads
        Partial sums written to the store for one image, one to a pattern of a gather; and read:
        by gathers that add to a slot, and by every reuse word that is not "none".
    merges
        Reuse words merged for one image, "none" included; with an identity map, the outputs that
        groups touch. Each takes a cycle of a merge lane.
    accumulator_writes, accumulator_updates
        Accumulators of one image that the first group of an output writes; and that another group
        reads, adds to and writes. Terms of one output are added up before.
    outputs
        Output codes of one image.
    cycles
        Predicted clock cycles of one image: :func:`refmodel.predict.cycles.predict`.
    conversion_cycles, gather_cycles, merge_cycles, output_cycles
        Work of each resource for one image, in cycles; they overlap.
    bound, limit
        The largest of the four (of a network: summed over layers), and what is owed: 1.02 times the
        bound, plus the start.
    """

    name: str
    scheme: str
    patterns: int
    kept: int
    reused: int
    dropped: int
    weights: int
    weights_zero: int
    ous_dense: int
    ous: int
    crossbars: int
    cells_programmed: int
    cells_ous: int
    cells_crossbars: int
    weight_bits: int
    weight_bits_dense: int
    index_shapes: int
    index_offsets: int
    index_words: int
    index_padding: int
    index_headers: int
    positions: int
    requests: int
    ou_activations: int
    conversions: int
    wordline_drives: int
    buffer_reads: int
    index_reads: int
    psum_writes: int
    psum_reads: int
    merges: int
    accumulator_writes: int
    accumulator_updates: int
    outputs: int
    cycles: int
    conversion_cycles: int
    gather_cycles: int
    merge_cycles: int
    output_cycles: int
    bound: int
    limit: int

    @property
    def reuse_ratio(self) -> float:
        """Share of the weight patterns that are not kept, dropped ones included."""
        return (self.reused + self.dropped) / self.patterns

    @property
    def sparsity(self) -> float:
        """Share of the effective weights that are 0."""
        return self.weights_zero / self.weights

    @property
    def ou_reduction(self) -> float:
        """Operation units of scheme dense over those of the program."""
        return self.ous_dense / self.ous

    @property
    def occupancy(self) -> float:
        """Share of the crossbars' cells that hold weights."""
        return self.cells_programmed / self.cells_crossbars

    @property
    def ou_occupancy(self) -> float:
        """Share of the operation units' cells that hold weights."""
        return self.cells_programmed / self.cells_ous

    @property
    def index_bits(self) -> int:
        """Bits of the index memory in all, padding included."""
        words = self.index_words + self.index_padding
        return self.index_shapes + self.index_offsets + words + self.index_headers

    @property
    def weight_bits_saved(self) -> int:
        """Bits of weights that need not be programmed, compared with scheme dense."""
        return self.weight_bits_dense - self.weight_bits

    @property
    def index_share(self) -> float | None:
        """Index bits over the weight bits saved; None where nothing is saved."""
        saved = self.weight_bits_saved
        return self.index_bits / saved if saved > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """All figures, ratios among them, as JSON values."""
        derived = (
            "reuse_ratio", "sparsity", "ou_reduction", "occupancy", "ou_occupancy", "index_bits",
            "weight_bits_saved", "index_share",
        )  # fmt: skip
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}


@dataclass(frozen=True, kw_only=True)
class NetworkMetrics:
    """Figures of a network.

    Attributes
    ----------
    layers
        One to a layer, in order.
    total
        Their sums.
    """

    layers: tuple[Metrics, ...]
    total: Metrics

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: ``layers``, ``total``."""
        return {"layers": [each.to_dict() for each in self.layers], "total": self.total.to_dict()}


def layer_metrics(
    layer: LayerProgram, config: EngineConfig, prediction: cycles.Prediction | None = None
) -> Metrics:
    """Count what one layer holds and does.

    Parameters
    ----------
    layer
        The program.
    config
        The engine; ``refmodel.program.sizes.engine_config_for`` sizes one.
    prediction
        The result of :func:`refmodel.predict.cycles.predict` for the two, if it is at hand.
    """
    found = prediction or cycles.predict(layer, config)
    positions, width = layer.positions, config.columns_per_weight
    rows, patterns = layer.gather_rows, layer.gather_patterns.astype(np.int64)
    ous = ous_of_gathers(layer, config)
    count = int(ous.sum())
    crossbars = -(-count // config.ous_per_crossbar)
    cells = int((rows * patterns).sum()) * width << config.pairs
    bits = index_bits(layer, config)
    events = layer_events(layer, config)
    gathers, segments = len(layer.gather_base), len(layer.segment_position)
    segments *= 2 if layer.full_offsets else 1
    return Metrics(
        name=layer.name,
        scheme=layer.scheme,
        patterns=layer.patterns,
        kept=layer.kept,
        reused=layer.reused,
        dropped=layer.dropped,
        weights=layer.weight_count,
        weights_zero=layer.weight_count - golden.nonzero_weights(layer),
        ous_dense=layer.ous_dense,
        ous=count,
        crossbars=crossbars,
        cells_programmed=cells,
        cells_ous=count * config.ou_rows * config.ou_cols << config.pairs,
        cells_crossbars=crossbars * config.crossbar_size**2 << config.pairs,
        weight_bits=cells * config.cell_bits,
        weight_bits_dense=layer.weight_count * WEIGHT_BITS,
        index_shapes=bits["shapes"],
        index_offsets=bits["offsets"],
        index_words=bits["words"],
        index_padding=bits["padding"],
        index_headers=bits["headers"],
        positions=positions,
        requests=events["requests"],
        ou_activations=events["ous"],
        conversions=events["conversions"],
        wordline_drives=events["wordline_drives"],
        buffer_reads=events["gathered"],
        index_reads=found.blocks
        * (gathers + len(layer.group_kept) + segments + len(layer.word_slot)),
        psum_writes=events["psum_writes"],
        psum_reads=events["psum_reads"],
        merges=events["merged"],
        accumulator_writes=events["accumulator_writes"],
        accumulator_updates=events["accumulator_updates"],
        outputs=events["outputs"],
        cycles=found.cycles,
        conversion_cycles=found.conversion * positions,
        gather_cycles=found.gather * positions,
        merge_cycles=found.merge * found.blocks,
        output_cycles=found.output * positions,
        bound=found.bound,
        limit=found.limit,
    )


def network_metrics(
    program: Program,
    config: EngineConfig | None = None,
    predictions: Sequence[cycles.Prediction] | None = None,
) -> NetworkMetrics:
    """Count what a network holds and does for one image.

    Parameters
    ----------
    config
        The engine; sized to the network from the default where None.
    predictions
        One to a layer, if they are at hand.
    """
    config = engine_config_for(program.layers, config) if predictions is None else config
    if config is None:
        raise TypeError("predictions need the config that they are for, not None")
    layers = tuple(
        layer_metrics(layer, config, None if predictions is None else predictions[i])
        for i, layer in enumerate(program.layers)
    )
    return NetworkMetrics(layers=layers, total=total(layers, str(program.about.get("scheme", ""))))


def total(layers: Sequence[Metrics], scheme: str = "") -> Metrics:
    """Add up figures."""
    sums = {
        item.name: sum(getattr(layer, item.name) for layer in layers)
        for item in dataclasses.fields(Metrics)
        if item.name not in ("name", "scheme")
    }
    return Metrics(name=ALL, scheme=scheme, **sums)
