"""What a campaign has drawn and what it has not: functional coverage, by value and by pair."""

from collections import Counter
from collections.abc import Iterable, Mapping

from refmodel.compression.schemes import SCHEMES
from refmodel.config import SHIFT_NONE, EngineConfig
from refmodel.golden.devices.device import Device
from refmodel.program.layer import LayerProgram
from tests.campaign.draw import Drawn

ENGINE: dict[str, tuple[str, ...]] = {
    "OU rows": ("4", "8", "9", "16", "32"),
    "OU columns": ("4", "8", "12", "16", "20", "24", "28", "32"),
    "crossbar": ("64", "128", "256", "512"),
    "cell bits": ("1", "2", "4"),
    "DAC bits": ("1", "2", "4"),
    "ADC": ("lossless", "clipping"),
    "converters": ("one", "several requests a weight", "several weights a request", "uneven"),
    "merge lanes": ("1", "2", "4"),
    "positions of a block": ("1", "2", "4"),
    "latency": ("1", "2", "5", "10", "40"),
    "gather buffers": ("2", "3", "4", "16"),
    "ring": ("shortest", "roomy"),
}
"""Sizes of engines, and their values."""

LAYER: dict[str, tuple[str, ...]] = {
    "scheme": ("any", *SCHEMES),
    "kernel": ("1x1", "3x3", "5x5", "7x7", "other"),
    "stride": ("1", "2", "by axis"),
    "padding": ("none", "even", "uneven"),
    "terms": ("1", "2", "3", "4"),
    "words": ("identity map", "words", "words with none"),
    "segments": ("runs of one length", "offsets of their own"),
    "gathers of a slot": ("1", "2", "more"),
    "groups": ("1", "several"),
    "positions": ("1", "several"),
}
"""Properties of layers, and their values."""

DEVICE: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("variation_on", "variation_off", "stuck_off", "stuck_on", "read_noise", "adc_offset"),
    ("0", "above 0"),
)
"""Non-idealities of the chip at the port."""

RUN: dict[str, tuple[str, ...]] = {
    "run": ("unit", "unit with stalls", "chip", "chip with stalls"),
}
"""How a layer ran."""

CROSSED = (
    "OU rows", "cell bits", "DAC bits", "ADC", "converters", "merge lanes",
    "positions of a block", "ring", "run",
)  # fmt: skip
"""What is crossed with the scheme."""

NAMED = 12
"""Pairs that a hole of a crossing is named by; more are counted."""


def engine_values(config: EngineConfig, drawn: Iterable[LayerProgram]) -> dict[str, str]:
    """Return the value of each size of an engine."""
    columns = 8 // config.cell_bits
    if config.adcs == 1:
        converters = "one"
    elif columns % config.adcs == 0 and config.adcs < columns:
        converters = "several requests a weight"
    elif config.adcs % columns == 0:
        converters = "several weights a request"
    else:
        converters = "uneven"
    kept = max(int(layer.group_kept.max()) for layer in drawn)
    least = max(4, kept + config.patterns_per_ou - 1)
    return {
        "OU rows": str(config.ou_rows),
        "OU columns": str(config.ou_cols),
        "crossbar": str(config.crossbar_size),
        "cell bits": str(config.cell_bits),
        "DAC bits": str(config.dac_bits),
        "ADC": "clipping" if config.adc_bits else "lossless",
        "converters": converters,
        "merge lanes": str(config.merge_lanes),
        "positions of a block": str(config.position_lanes),
        "latency": str(config.crossbar_latency),
        "gather buffers": str(config.gather_buffers),
        "ring": "shortest" if config.slots == 1 << (least - 1).bit_length() else "roomy",
    }


def layer_values(layer: LayerProgram) -> dict[str, str]:
    """Return the value of each property of a layer."""
    top, left, bottom, right = layer.pads
    square = layer.kernel[0] == layer.kernel[1] != 2
    longest, here = 0, 0
    for more in layer.gather_accumulate.tolist():
        here = here + 1 if more else 1
        longest = max(longest, here)
    if layer.identity:
        words = "identity map"
    else:
        words = "words with none" if (layer.word_shift == SHIFT_NONE).any() else "words"
    return {
        "scheme": layer.scheme,
        "kernel": f"{layer.kernel[0]}x{layer.kernel[1]}" if square else "other",
        "stride": str(layer.stride[0]) if layer.stride[0] == layer.stride[1] else "by axis",
        "padding": "none"
        if not any(layer.pads)
        else "even"
        if (top, left) == (bottom, right)
        else "uneven",
        "terms": str(layer.terms),
        "words": words,
        "segments": "offsets of their own" if layer.full_offsets else "runs of one length",
        "gathers of a slot": str(longest) if longest <= 2 else "more",
        "groups": "1" if layer.conv_groups == 1 else "several",
        "positions": "1" if layer.out_shape[0] * layer.out_shape[1] == 1 else "several",
    }


def count(
    config: EngineConfig, drawn: Iterable[Drawn], device: Device | None, runs: Iterable[str]
) -> Counter[str]:
    """Count what an engine, its layers and its chip are, and each layer's crossing with them.

    Returns
    -------
    ``size=value`` and ``scheme=value * size=value``, each with the number of layers, or of engines
    where the size is an engine's or a chip's.
    """
    layers = [item.layer for item in drawn]
    engine = engine_values(config, layers)
    found = Counter(f"{name}={value}" for name, value in engine.items())
    if device is not None:
        found.update(f"{name}={'above 0' if getattr(device, name) else '0'}" for name in DEVICE)
    for layer in layers:
        own = layer_values(layer)
        found.update(f"{name}={value}" for name, value in own.items())
        for run in runs:
            found[f"run={run}"] += 1
            found[_pair(own["scheme"], "run", run)] += 1
        for name in CROSSED:
            if name in engine:
                found[_pair(own["scheme"], name, engine[name])] += 1
    return found


def _pair(scheme: str, name: str, value: str) -> str:
    return f"scheme={scheme} * {name}={value}"


def table(counts: Mapping[str, int]) -> list[str]:
    """Return lines of a table in Markdown: each value's count, and what was never drawn."""
    lines = ["| what | drawn: how often | never |", "|---|---|---|"]
    for name, values in {**ENGINE, **LAYER, **DEVICE, **RUN}.items():
        drawn = ", ".join(
            f"{value}: {counts[f'{name}={value}']:,}"
            for value in values
            if counts.get(f"{name}={value}")
        )
        never = ", ".join(value for value in values if not counts.get(f"{name}={value}"))
        lines.append(f"| {name} | {drawn} | {never or '-'} |")
    every = {**ENGINE, **RUN}
    for name in CROSSED:
        pairs = [(scheme, value) for scheme in LAYER["scheme"] for value in every[name]]
        holes = [pair for pair in pairs if not counts.get(_pair(pair[0], name, pair[1]))]
        named = ", ".join(f"{scheme} with {value}" for scheme, value in holes[:NAMED])
        more = f" and {len(holes) - NAMED} more" if len(holes) > NAMED else ""
        drawn = f"{len(pairs) - len(holes)} of {len(pairs)}"
        lines.append(f"| scheme * {name} | {drawn} | {named or '-'}{more} |")
    return lines


def holes(counts: Mapping[str, int]) -> int:
    """Return how many values and pairs were never drawn."""
    every = {**ENGINE, **LAYER, **DEVICE, **RUN}
    single = [f"{name}={value}" for name, values in every.items() for value in values]
    crossed = [
        _pair(scheme, name, value)
        for name in CROSSED
        for scheme in LAYER["scheme"]
        for value in every[name]
    ]
    return sum(not counts.get(key) for key in (*single, *crossed))
