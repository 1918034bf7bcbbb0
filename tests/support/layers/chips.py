"""Chips asked one request at a time, beside whole layers at once."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.golden.devices.chip import Chip, LayerChip
from refmodel.golden.devices.device import Device
from refmodel.program.layer import LayerProgram
from tests.support.layers.bad_devices import BAD
from tests.support.layers.drawn_layers import draw_layer

ENGINES = st.builds(
    EngineConfig,
    ou_rows=st.sampled_from([4, 8, 9, 32]),
    ou_cols=st.sampled_from([4, 8, 12, 32]),
    crossbar_size=st.sampled_from([32, 64]),
    cell_bits=st.sampled_from([1, 2, 4]),
    dac_bits=st.sampled_from([1, 2, 4]),
    adc_bits=st.sampled_from([0, 0, 3]),
    adcs=st.sampled_from([1, 3, 8]),
)
SEEDS = st.integers(0, 2**32 - 1)


def chip(
    device: Device = BAD,
    config: EngineConfig | None = None,
    seed: int = 1,
    *,
    pairs: bool = False,
    **more: Any,
) -> Chip:
    """One chip."""
    return Chip(device=device, config=config or EngineConfig(), seed=seed, pairs=pairs, **more)


def by_request(
    layer: LayerProgram, codes: np.ndarray, config: EngineConfig, drawn: LayerChip
) -> np.ndarray:
    """Codes of all requests one at a time, in their order."""
    ideal = golden.run_layer_serial(layer, codes, config)
    result = np.zeros(ideal.codes.shape, np.int32)
    images, positions, requests, _ = ideal.codes.shape
    for image in range(images):
        for position in range(positions):
            for r in range(requests):
                level = drawn.request(
                    int(ideal.ou[r]),
                    int(ideal.digit[r]),
                    image * positions + position,
                    ideal.digits[image, position, r],
                )
                first = int(ideal.chunk[r]) * config.adcs
                code = drawn.convert(level, int(ideal.ou[r]), np.arange(config.ou_cols))
                part = code[first : first + config.adcs]
                result[image, position, r, : len(part)] = part
    return result


SMALL: dict[str, Any] = {"in_shape": (2, 3, 4), "outputs": 3, "groups": 1, "kernel": (1, 1)}


def sequential_is_vectorised(
    seed: int, config: EngineConfig, device: Device = BAD, *, pairs: bool = False, **more: Any
) -> bool:
    """Whether requests, traces and accumulators of a small layer agree on a chip."""
    layer, codes = draw_layer(seed, config, **SMALL)
    whole = chip(device, config, seed, pairs=pairs, **more)
    drawn = whole.layer(layer, 3, first_image=5)
    trace = golden.run_layer_serial(layer, codes, config, device=drawn)
    same = (by_request(layer, codes, config, drawn) == trace.codes).all()
    fast = golden.serial_accumulators(layer, codes, config, device=drawn)
    return bool(same) and bool((fast == trace.accumulators.reshape(fast.shape)).all())
