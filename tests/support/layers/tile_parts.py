"""Parts of a layer that a tile's engines run."""

import numpy as np

from refmodel.predict import deal as dealing
from refmodel.predict.deal import LayerPart
from refmodel.program.layer import LayerProgram


def part_of(layer: LayerProgram, groups: list[int]) -> LayerPart:
    """Whole groups of a layer, by name."""
    lists = dealing._Groups(layer)
    pieces = [
        dealing._Piece(
            group=g,
            slots=np.arange(layer.group_kept[g]),
            first_output=int(layer.group_first_output[g]),
            outputs=int(layer.group_outputs[g]),
        )
        for g in groups
    ]
    return dealing._part(lists, pieces, slice(0, layer.out_shape[2]))
