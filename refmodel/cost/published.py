"""The published cost model of PRAP-PIM, as published, and the headline that comes out of it.

Shen et al. (High-Confidence Computing 3, 2023, doi:10.1016/j.hcc.2023.100123) compare schemes with
an analytic simulator. This module computes the same numbers from a description of that simulator in
words; sizes of buffers, levels of multiplexers and the order of divisions are as its text has them.
It says nothing about the engine of this package: :mod:`refmodel.cost.energy` does. :data:`INCLUDES`
and :data:`LEAVES_OUT` list the parts that the published energy has and has not.

A layer is spread over tiles of P processing elements (PEs) with G crossbars of X by X cells each,
and is there M x M times, M = ceil(output size / 8). With cr and cc the crossbars that its rows and
its columns fill, as fractions::

    tiles    convolution: ceil(ceil(cr) / P) * ceil(ceil(cc) / G); fc: ceil(ceil(cr) ceil(cc) / P G)
    max_row  8 ceil(min(rows, X) * cr / (tile rows * P) / 8);      fc: 8 ceil(min(rows, X) / 8)
    max_col  8 ceil(min(columns, X) * cc / (tile columns * G) / 8) fc: 8 ceil(min(columns, X) / 8)
    R = ceil(int(max_row / 8) * kept rows), c = ceil(max_col * kept patterns)
    steps    n = 8 bits * R * (c / 8) * 8 columns to the one converter

A step is converter, crossbar, DAC, registers, multiplexers one after the other, and nothing
overlaps with anything; the energy of a component is its power times the time that it is busy.

    from refmodel.cost.published import headline, simulate

    print(simulate("Vgg16", "shape+similar").latency_ns)
    print(headline().speed, headline().energy)
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from refmodel.errors import InputError

FILE = Path(__file__).parents[1] / "assets" / "published" / "networks.json"
"""The published networks and the shares that were typed in for each mode."""

MODES = {
    "naive": "dense",
    "structure": "structured",
    "shape": "shape",
    "ORC": "orc",
    "value_identical": "identical",
    "value_similar": "similar",
    "structure+identical": "structured_identical",
    "shape+similar": "prap",
}
"""The published modes, and the schemes of this package that they stand for."""

BASELINE, PROPOSED = "ORC", "shape+similar"
"""The modes of the headline: how many times faster and more efficient the second is."""

PAPER_SPEED, PAPER_ENERGY = 1.64, 1.51
"""The headline as the abstract of the paper has it."""

INCLUDES = (
    "ADC, DAC and crossbar",
    "input and output registers, shift registers, demultiplexers, multiplexers, join modules",
    "buffers (reads and writes), pooling",
)
"""Components whose energies the published energy is the sum of."""

LEAVES_OUT = (
    "energy of the adders (their time is counted)",
    "energy and size of the index memories: their power is 0 (their reads take time)",
    "overlap: every step waits for the one before, and layers follow one another",
    "leakage, the clock, bits of the index, the reuse words, accumulators, requantisation",
    "the networks: shares of kept rows and patterns are typed in by hand; those of ResNet-18 ORC",
    "    are 0.15, where the published training program has 0.2",
)
"""Costs that the published energy and latency leave out, and values that they take as given."""

_OU = 8
_BITS = 8
_PORT_BYTES = 32
_MOST_TILES = 64 * 64
_LAYER_0_GROUPS = {True: 3, False: 4}  # By whether the mode prunes by shape; for power alone.


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the published architecture.

    Attributes
    ----------
    crossbar_size
        X, rows and columns of a crossbar, a multiple of 8 from 32 to 1024. 256 gives the headline.
    groups
        G, crossbars of a processing element, 1 to 64.
    elements
        P, processing elements of a tile, 1 to 64.
    frequency_mhz
        Clock of registers, shifters, adders and join modules.
    inter_gbps, intra_gbps
        Links between and inside tiles.
    """

    crossbar_size: int = 256
    groups: int = 8
    elements: int = 9
    frequency_mhz: float = 1200.0
    inter_gbps: float = 20.0
    intra_gbps: float = 1024.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("crossbar_size", 32, 1024),
            ("groups", 1, 64),
            ("elements", 1, 64),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {value!r}")
        if self.crossbar_size % _OU:
            raise ValueError(f"crossbar_size must be a multiple of 8, not {self.crossbar_size!r}")
        for name in ("frequency_mhz", "inter_gbps", "intra_gbps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


ADC_BITS = 6
"""Bits of the published converter."""

ADC_NS, DAC_NS = (6 + 2) / 1.2, (1 + 2) / 1.2
"""Nanoseconds of a conversion and of a wordline's drive at 1.2 GS/s."""

ADC_W, DAC_W = 0.6425e-3, 0.0039e-3
"""Watts of the converter (Sparse ReRAM Engine) and of a 1-bit DAC (ISAAC)."""

CROSSBAR_NS = 3.16
"""Nanoseconds of a read of a device; the wires add picoseconds."""

CROSSBAR_W = 0.3e-3
"""Watts of a crossbar of 128 by 128 cells."""

REGISTER_W, SHIFT_W, ADDER_W, JOIN_W = 0.23e-3, 0.05e-3, 0.05e-3, 0.264e-3
"""Watts of a register, a shift register, an adder, and a join module at 65 nm."""

TRANSISTOR_W = 10 * 1.2 / 1e9
"""Watts of a transistor of a multiplexer."""

DEMUX_NS, MUX_NS = 0.27933, 0.032744
"""Nanoseconds of a level of 1 to 8 of the input demultiplexers and output multiplexers."""

BUFFER_NS = 1.2
"""Nanoseconds of an access of 32 bytes to a buffer."""

BUFFER_W_PER_KB = 20.7e-3 / 64
"""Watts of a buffer to a KB, in each direction."""

POOL_W, POOL_NS = 0.4e-3, 1 / 1.2
"""Watts and nanoseconds of the pooling unit."""

_MUX_TRANSISTORS = {2: 8, 4: 24, 8: 72, 16: 216, 32: 648}
_JOIN_SCALE = (32 / 65) ** 2


class _Layer(NamedTuple):
    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """Latency and energy of a layer, as the published simulator has them.

    Attributes
    ----------
    name, kind
        Name of the layer; conv, fc, pooling or element_sum.
    tiles
        Tiles, copies of the layer included.
    latency_ns, energy_nj
        Nanoseconds; nanojoules.
    parts
        Nanojoules by component; they add up to ``energy_nj``.
    adder_nj
        Nanojoules of the adders, which the published energy leaves out.
    """

    name: str
    kind: str
    tiles: int
    latency_ns: float
    energy_nj: float
    parts: Mapping[str, float]
    adder_nj: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """Latency and energy of a network in a mode.

    Attributes
    ----------
    network, mode
        By their published names.
    latency_ns, energy_nj, adder_nj
        Sums over the layers.
    layers
        In order, pooling and sums among them.
    buffers_kb
        KB of the input and output buffer of an element and of the buffer of a tile.
    """

    network: str
    mode: str
    latency_ns: float
    energy_nj: float
    adder_nj: float
    layers: tuple[LayerResult, ...]
    buffers_kb: tuple[float, float, float]

    @property
    def tiles(self) -> int:
        """Tiles of all layers, those of pooling and of sums as well."""
        return sum(layer.tiles for layer in self.layers)

    @property
    def parts(self) -> dict[str, float]:
        """Nanojoules by component."""
        total: dict[str, float] = {}
        for layer in self.layers:
            for name, value in layer.parts.items():
                total[name] = total.get(name, 0.0) + value
        return total


@functools.cache
def _published() -> Mapping[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))["networks"]


def networks() -> tuple[str, ...]:
    """Names of the published networks."""
    return tuple(_published())


class _Mapped(NamedTuple):
    """How a layer lies in the tiles: see the module's text."""

    layer: _Layer
    copies: int
    tiles: int
    max_row: int
    max_col: int
    rows: int
    columns: int
    reused: bool


def _map(layer: _Layer, kept_rows: float, kept_patterns: float, settings: Settings) -> _Mapped:
    size, elements, groups = settings.crossbar_size, settings.elements, settings.groups
    rows, columns = layer.inputs * layer.kernel**2, layer.outputs * _BITS
    row_share = math.ceil(rows / _OU) / (size // _OU)
    col_share = layer.outputs / (size // _OU)
    if layer.kind == "conv":
        tile_rows = math.ceil(math.ceil(row_share) / elements)
        tile_cols = math.ceil(math.ceil(col_share) / groups)
        tiles = tile_rows * tile_cols
        # The quotient first: the ceiling below is sensitive to the order.
        max_row = min(rows, size) * (row_share / (tile_rows * elements))
        max_col = min(columns, size) * (col_share / (tile_cols * groups))
    else:
        tiles = math.ceil(math.ceil(row_share) * math.ceil(col_share) / (groups * elements))
        max_row, max_col = min(rows, size), min(columns, size)
    max_row, max_col = (_OU * math.ceil(most / _OU) for most in (max_row, max_col))
    # The published program holds shares that are removed: 1 - (1 - kept) may differ in its last
    # bit, and the ceiling with it.
    pruned, reused = 1 - kept_rows, 1 - kept_patterns
    return _Mapped(
        layer=layer,
        copies=math.ceil(layer.size / 8) ** 2,
        tiles=tiles,
        max_row=max_row,
        max_col=max_col,
        rows=math.ceil(int(max_row / _OU) * (1 - pruned)),
        columns=math.ceil(max_col * (1 - reused)),
        reused=reused != 0,
    )


def _kilobytes(data: float) -> float:
    """Round bytes up to a power of two; KB."""
    return 2.0 ** math.ceil(math.log2(data)) / 1024


def _buffers(
    mapped: Sequence[_Mapped], mode: str, settings: Settings
) -> tuple[float, float, float]:
    """KB of an element's input and output buffers and of a tile's: the largest of all layers."""
    found = [(0.0, 0.0, 0.0)]
    for each in mapped:
        layer, share = each.layer, each.tiles * settings.elements * each.copies
        source = (layer.size * layer.stride) ** 2 if layer.kind == "conv" else 1
        sums = math.ceil(each.max_col / _OU) * settings.groups
        held = sums / share
        if each.reused and _reuses(mode):
            held += sums * (2 if "similar" in mode else 1)
        found.append(
            (
                _kilobytes(layer.inputs * source / share),
                _kilobytes(held),
                _kilobytes(layer.outputs * layer.size**2 / each.copies),
            )
        )
    inputs, outputs, tile = zip(*found, strict=True)
    return max(inputs), max(outputs), max(tile)


def _reuses(mode: str) -> bool:
    return "identical" in mode or "similar" in mode


def _accesses(data: float) -> float:
    """Nanoseconds of the accesses to a buffer for some bytes."""
    return math.ceil(data / _PORT_BYTES) * BUFFER_NS


def _levels(ways: int) -> int:
    """Levels of 1 to 8, as the published loop counts them: one more than digits in base 8."""
    levels = 1
    while ways > 0:
        ways //= 8
        levels += 1
    return levels


class _Simulator:
    """One network in one mode."""

    def __init__(self, mode: str, settings: Settings, buffers: tuple[float, float, float]) -> None:
        self.mode, self.settings = mode, settings
        self.period = 1e3 / settings.frequency_mhz
        inputs, outputs, tile = buffers
        self.tile_w = BUFFER_W_PER_KB * tile
        self.all_w = BUFFER_W_PER_KB * (settings.elements * (inputs + outputs) + tile)
        # Bytes that a tile's element sums take, as wide as codes of the converters.
        self.sums = settings.elements * settings.crossbar_size / 8 * ADC_BITS

    def layer(self, each: _Mapped, first: bool) -> LayerResult:
        """Price a convolution or a fully connected layer; ``first`` is the first of the network."""
        settings, period, mode = self.settings, self.period, self.mode
        size, groups, elements = settings.crossbar_size, settings.groups, settings.elements
        times = self._times(each)
        read, write = self._accesses(each)
        chunks = math.ceil(each.max_col / _OU)
        merge = _accesses(chunks * elements)
        read += merge
        write += _accesses(self.sums)
        join = math.ceil(math.log2(elements)) * period
        link = self.sums / settings.intra_gbps
        tiles = each.tiles * each.copies
        sent = int(each.layer.outputs * _BITS / settings.inter_gbps / tiles)
        inter = merge + period + chunks * elements * _BITS / settings.inter_gbps + sent
        latency = read + write + sum(times.values()) + join + link + inter

        active = elements * (_LAYER_0_GROUPS["shape" in mode] if first else groups)
        crossbar = CROSSBAR_W * (size / 128) ** 2 / (size // _OU) / size
        watts = {
            "adc": ADC_W,
            "dac": _OU * DAC_W,
            "crossbar": crossbar,
            "input register": _OU * REGISTER_W,
            "output register": REGISTER_W,
            "shift": 2 * SHIFT_W,
            "demultiplexer": _OU * 8 * TRANSISTOR_W,
            "multiplexer": _MUX_TRANSISTORS.get(size, 1944) * TRANSISTOR_W,
        }
        steps = int(each.layer.size / math.sqrt(each.copies)) ** 2
        parts = {name: active * power * times[name] for name, power in watts.items()}
        parts["join"] = (elements - 1) * groups * JOIN_W * _JOIN_SCALE * join
        parts["buffer"] = self.all_w * (read + write)
        parts = {name: value * steps * tiles for name, value in parts.items()}
        return LayerResult(
            name=each.layer.name,
            kind=each.layer.kind,
            tiles=tiles,
            latency_ns=latency * steps,
            energy_nj=sum(parts.values()),
            parts=parts,
            adder_nj=active * 2 * ADDER_W * times["adder"] * steps * tiles,
        )

    def _times(self, each: _Mapped) -> dict[str, float]:
        """Nanoseconds for which each component is busy in a position."""
        size, period = self.settings.crossbar_size, self.period
        steps = _BITS * each.rows * (each.columns / _OU) * _OU
        sums = each.rows * each.max_col / _OU * period
        kilobytes = size**2 / 8192
        wire = 0.001 * (0.0002 * kilobytes**2 + 5e-6 * kilobytes + 4e-14)
        return {
            "adc": steps * ADC_NS,
            "dac": steps * DAC_NS,
            "crossbar": steps * (CROSSBAR_NS + wire),
            "input register": steps * period,
            "output register": each.rows * (each.columns / _OU) * period,
            "shift": steps * period + (sums if "similar" in self.mode else 0.0),
            "demultiplexer": steps * _levels(math.ceil(size / 128)) * DEMUX_NS,
            "multiplexer": steps * _levels(size) * MUX_NS,
            "adder": steps * period + sums * (2 if "similar" in self.mode else 1),
        }

    def _accesses(self, each: _Mapped) -> tuple[float, float]:
        """Nanoseconds of reads and writes of an element's buffers in a position."""
        mode, groups, rows = self.mode, self.settings.groups, each.rows
        chunks = math.ceil(each.max_col / _OU)
        again = chunks if mode == "ORC" else 1
        one = _accesses(each.max_row) if each.layer.kind == "fc" else BUFFER_NS
        write = one * math.ceil(each.max_row / _OU) * again
        reads = rows * groups * again + chunks * rows * groups
        write += BUFFER_NS * chunks * rows * groups
        if _reuses(mode):
            write += BUFFER_NS * (each.columns / _OU) * rows * groups
            reads += chunks * rows * groups
        if "structure" in mode or "shape" in mode:
            reads += rows * groups
        if mode == "ORC":
            reads += rows * (each.max_col / _OU) * groups
        return BUFFER_NS * reads, write

    def pooling(self, layer: _Layer) -> LayerResult:
        """Price a pooling layer."""
        copies = math.ceil(layer.size / 8) ** 2
        steps = int(layer.size / math.sqrt(copies)) ** 2
        window = _accesses(layer.inputs * layer.kernel**2)
        result = _accesses(layer.outputs)
        sent = int(layer.outputs * _BITS / self.settings.inter_gbps / copies)
        latency = 2 * window + 2 * result + POOL_NS + result + sent
        parts = {
            "buffer": 2 * (window + result) * self.tile_w * copies * steps,
            "pooling": POOL_NS * POOL_W * copies * steps,
        }
        return LayerResult(
            name=layer.name,
            kind=layer.kind,
            tiles=copies,
            latency_ns=latency * steps,
            energy_nj=sum(parts.values()),
            parts=parts,
        )

    def element_sum(self, layer: _Layer) -> LayerResult:
        """Price the sum of two branches: it is not divided among copies."""
        steps, write = layer.size**2, _accesses(self.sums)
        sent = int(layer.outputs * _BITS / self.settings.inter_gbps)
        energy = write * self.tile_w * steps
        return LayerResult(
            name=layer.name,
            kind=layer.kind,
            tiles=1,
            latency_ns=(write + self.period + sent) * steps,
            energy_nj=energy,
            parts={"buffer": energy},
        )


def simulate(network: str, mode: str, settings: Settings | None = None) -> NetworkResult:
    """Compute latency and energy of a network in a mode, as the published simulator does.

    Parameters
    ----------
    network
        One of :func:`networks`.
    mode
        One of :data:`MODES`.
    settings
        The published ones where None.

    Raises
    ------
    InputError
        The network does not fit the published 64 by 64 tiles.
    """
    settings = settings or Settings()
    if network not in networks():
        raise InputError(f"expected one of {', '.join(networks())}, found network {network!r}")
    if mode not in MODES:
        raise InputError(f"expected one of {', '.join(MODES)}, found mode {mode!r}")
    layers = [_Layer(*entry) for entry in _published()[network]["layers"]]
    shares = _published()[network]["modes"][mode]
    computing = [layer for layer in layers if layer.kind in ("conv", "fc")]
    mapped = [
        _map(layer, rows, patterns, settings)
        for layer, rows, patterns in zip(
            computing, shares["kept_rows"], shares["kept_patterns"], strict=True
        )
    ]
    buffers = _buffers(mapped, mode, settings)
    simulator = _Simulator(mode, settings, buffers)
    waiting, results = iter(enumerate(mapped)), []
    for layer in layers:
        if layer.kind == "pooling":
            results.append(simulator.pooling(layer))
        elif layer.kind == "element_sum":
            results.append(simulator.element_sum(layer))
        else:
            index, each = next(waiting)
            results.append(simulator.layer(each, index == 0))
    result = NetworkResult(
        network=network,
        mode=mode,
        latency_ns=sum(layer.latency_ns for layer in results),
        energy_nj=sum(layer.energy_nj for layer in results),
        adder_nj=sum(layer.adder_nj for layer in results),
        layers=tuple(results),
        buffers_kb=buffers,
    )
    if result.tiles > _MOST_TILES:
        raise InputError(
            f"expected {network} in at most {_MOST_TILES} tiles, found {result.tiles} at crossbars "
            f"of {settings.crossbar_size}"
        )
    return result


@dataclass(frozen=True, kw_only=True)
class Headline:
    """How many times better the proposed mode is than a baseline, in the published model.

    Attributes
    ----------
    settings
        Sizes that it is for.
    speed, energy
        Arithmetic means over the networks of latency over latency and of energy over energy.
    energy_with_adders
        The same with the energy of the adders counted.
    rows
        Per network: ``network``, ``speed``, ``energy``, ``energy_with_adders``, and
        milliseconds and millijoules of both modes.
    """

    settings: Settings
    speed: float
    energy: float
    energy_with_adders: float
    rows: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return dataclasses.asdict(self) | {
            "rows": [dict(row) for row in self.rows],
            "baseline": BASELINE,
            "proposed": PROPOSED,
            "paper": {"speed": PAPER_SPEED, "energy": PAPER_ENERGY},
            "includes": list(INCLUDES),
            "leaves_out": list(LEAVES_OUT),
        }


def headline(settings: Settings | None = None) -> Headline:
    """Compare the proposed mode with the baseline on all networks of the publication."""
    settings = settings or Settings()
    rows = []
    for network in networks():
        base = simulate(network, BASELINE, settings)
        best = simulate(network, PROPOSED, settings)
        counted = [each.energy_nj + each.adder_nj for each in (base, best)]
        rows.append(
            {
                "network": network,
                "speed": base.latency_ns / best.latency_ns,
                "energy": base.energy_nj / best.energy_nj,
                "energy_with_adders": counted[0] / counted[1],
                "orc_ms": base.latency_ns / 1e6,
                "prap_ms": best.latency_ns / 1e6,
                "orc_mj": base.energy_nj / 1e6,
                "prap_mj": best.energy_nj / 1e6,
            }
        )
    means = {
        name: sum(row[name] for row in rows) / len(rows)
        for name in ("speed", "energy", "energy_with_adders")
    }
    return Headline(settings=settings, rows=tuple(rows), **means)
