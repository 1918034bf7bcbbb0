"""Layers and inputs drawn at random for the serial arithmetic."""

import numpy as np

from refmodel.config import EngineConfig
from refmodel.program.layer import LayerProgram
from tests.support.layers.builders import random_codes, random_layer_program


def draw_layer(seed: int, config: EngineConfig, **changes) -> tuple[LayerProgram, np.ndarray]:
    rng = np.random.default_rng(seed)
    layer = random_layer_program(
        rng, ou_rows=config.ou_rows, long_patterns=config.ou_rows < 9, **changes
    )
    return layer, random_codes(rng, layer, images=2)
