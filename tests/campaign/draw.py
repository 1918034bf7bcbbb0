"""What a campaign draws: an engine, and layers that it holds, by seed."""

from dataclasses import dataclass, replace

import numpy as np

from refmodel.compression.compile import compile_layer
from refmodel.compression.quantize import MatrixLayer
from refmodel.compression.schemes import SCHEMES, LayerSetting, map_layer
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.device import Device
from refmodel.predict.cycles import predict
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import engine_config_for
from tests.support.layers.builders import random_codes, random_layer_program

KERNELS = ((1, 1), (1, 1), (3, 3), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (2, 2))
"""Kernels of drawn layers; the more often, the more likely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """One layer to run.

    Attributes
    ----------
    what
        Scheme and shape, in words.
    layer
        The program.
    images
        Input codes, uint8 [2, H, W, C].
    """

    what: str
    layer: LayerProgram
    images: np.ndarray


def draw(
    seed: int, number: int, layers: int, most_cycles: int = 2500
) -> tuple[EngineConfig, list[Drawn]]:
    """Draw one engine, sized to the layers that come with it.

    Parameters
    ----------
    seed, number
        Of the campaign, and of the engine in it: the same give the same.
    layers
        How many. Of each scheme there is one before any has a second.
    most_cycles
        Predicted cycles of an image of one layer, at most: another is drawn instead.
    """
    rng = np.random.default_rng([seed, number])
    base = draw_engine(rng)
    # Every second ring is the shortest that holds the layers.
    short = bool(rng.integers(2))
    kinds = np.array(["any", *SCHEMES])
    turns = -(-layers // len(kinds))
    order = np.concatenate([rng.permutation(kinds) for _ in range(turns)]).tolist()
    drawn = []
    while len(drawn) < layers:
        try:
            what, layer = draw_layer(rng, order[len(drawn)], base.ou_rows)
            config = engine_config_for([layer], base)
        except InputError:
            continue  # a layer that no engine of such OUs holds
        if predict(layer, config).cycles <= most_cycles:
            drawn.append(Drawn(what=what, layer=layer, images=random_codes(rng, layer, 2)))
    config = engine_config_for([item.layer for item in drawn], base)
    if short:
        kept = max(int(item.layer.group_kept.max()) for item in drawn)
        least = max(4, kept + config.patterns_per_ou - 1)
        config = replace(config, slots=1 << (least - 1).bit_length())
    return config, drawn


def draw_engine(rng: np.random.Generator) -> EngineConfig:
    """Draw sizes that do not follow from the layers."""

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    cols = pick(4, 8, 8, 12, 16, 20, 24, 28, 32)
    latency = pick(1, 1, 2, 5, 10, 40)
    return EngineConfig(
        ou_rows=pick(4, 8, 8, 9, 16, 32),
        ou_cols=cols,
        crossbar_size=pick(64, 64, 128, 256, 512),
        cell_bits=pick(1, 1, 2, 4),
        dac_bits=pick(1, 1, 2, 4),
        adc_bits=pick(0, 0, 0, 2, 4, 13),
        adcs=min(cols, pick(1, 2, 3, 4, 5, 6, 7, 8, 8, 12, 16, 32)),
        merge_lanes=pick(1, 2, 4),
        position_lanes=pick(1, 1, 2, 4),
        crossbar_latency=latency,
        requests_in_flight=latency + pick(4, 20, 64),
        gather_buffers=pick(2, 3, 4, 16),
    )


def draw_device(seed: int, number: int) -> Device:
    """Draw what an engine's cells and converters are like: each non-ideality in two of three."""
    rng = np.random.default_rng([seed, number, 1])

    def pick(*choices: float) -> float:
        return float(rng.choice(choices))

    return Device(
        name="drawn",
        on_off_ratio=pick(np.inf, 5, 40),
        variation_on=pick(0, 0.07, 0.3),
        variation_off=pick(0, 0.3, 0.8),
        stuck_off=pick(0, 0.002, 0.05),
        stuck_on=pick(0, 0.002, 0.05),
        read_noise=pick(0, 0.03, 0.4),
        drift_nu=pick(0, 0.005, 0.02),
        drift_time=1e4,
        adc_offset=pick(0, 0.1, 0.5),
    )


def draw_layer(rng: np.random.Generator, kind: str, ou_rows: int) -> tuple[str, LayerProgram]:
    """Draw a layer of a scheme; kind ``any``: a program that no scheme need make."""

    def pick(*choices: int) -> int:
        return int(rng.choice(choices))

    if kind == "any":
        layer = random_layer_program(rng, ou_rows=ou_rows, max_kept=pick(3, 9))
        return f"any {layer.in_shape} to {layer.out_shape}", layer
    kernel = KERNELS[rng.integers(len(KERNELS))]
    groups = pick(1, 1, 1, 2, 4)
    depthwise = groups == 4 and rng.random() < 0.5
    inputs = 1 if depthwise else pick(1, 2, 3, 8)
    outputs = groups * (1 if depthwise else pick(2, 4, 8))
    stride = pick(1, 1, 2), pick(1, 1, 2)
    dilation = (pick(1, 1, 2), 1) if max(kernel) <= 3 else (1, 1)
    top, left, bottom, right = (int(rng.integers(0, k // 2 + 2)) for k in (*kernel, *kernel))
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = max(1, span[0] - top - bottom) + pick(0, 1, 2)
    width = max(1, span[1] - left - right) + pick(0, 1, 2)
    rows = (height + top + bottom - span[0]) // stride[0] + 1
    columns = (width + left + right - span[1]) // stride[1] + 1
    setting = LayerSetting(
        scheme=kind,
        channels=pick(1, 2, 4),
        positions=pick(1, 2, 4, 8),
        keep=float(rng.choice([0.2, 0.4, 0.7])),
        structure_keep=float(rng.choice([0.5, 1.0])),
        patterns=pick(1, 2, 4),
        terms=pick(1, 2, 3, 4),
        rounds=3,
        signed=bool(rng.integers(2)),
    )
    layer = MatrixLayer(
        name=kind,
        weight=rng.normal(0, 1, (outputs, inputs, *kernel)).astype(np.float32),
        gain=rng.choice([-1, 1], outputs) * rng.uniform(0.1, 1, outputs),
        bias=rng.normal(0, 0.5, outputs),
        stride=stride,
        pads=(top, left, bottom, right),
        dilation=dilation,
        groups=groups,
        in_scale=0.02,
        in_zero=pick(0, 77, 128),
        out_scale=0.03,
        out_zero=pick(0, 128),
        clip=(0, 255),
        in_shape=(height, width, inputs * groups),
        out_shape=(rows, columns, outputs),
    )
    mapping = map_layer(layer.weight, groups, kind, setting, ou_rows, layer.gain)
    program = compile_layer(layer, mapping, ou_rows)
    words = f"{kind} {kernel[0]}x{kernel[1]}, {program.in_shape} to {program.out_shape}"
    words += f", {groups} groups" if groups > 1 else ""
    return words + (f", {program.terms} terms" if program.terms > 1 else ""), program
