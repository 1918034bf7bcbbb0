"""Masks: which weights a layer keeps (docs/specification/algorithm.md, rules 1 to 3).

:func:`structure_mask` (rule 1) keeps whole input channels, :func:`orc_mask` (rule 2) the largest
weights of each output, :func:`shape_mask` (rule 3) positions of the kernel:

Input channels are taken in groups of ``channels`` (C_g). In a group every output keeps
``positions`` (V) of the k * k kernel positions, the same ones in all channels of the group:

- score of a position = sum of |W| over the group's channels, in float32, channel after channel;
- an output's own shape = its V best positions (equal scores: the lower position);
- candidates = the ``shapes`` most frequent own shapes of the group; equally frequent ones in the
  order of their descending positions compared as tuples, the smaller first. Only a 3x3 kernel with
  V = 8 is ordered by the dropped position instead, the lower first: so the published ids have it;
- each output takes the candidate that retains the largest sum of |W| over the group; of equal ones
  the earlier candidate. The published program adds in float32, along a row of the kernel, then the
  rows, then the channels; so does this one, because near ties depend on it.

Worked tie: with V = 1 and scores [2, 2, 1] the shape is position 0. Two outputs with own shapes
{3, 1} and {3, 2}: (3, 1) < (3, 2), so {3, 1} is the first candidate.

A 1x1 kernel has no positions to choose from: there the group keeps the ``rows`` channels with the
largest sum of |W| over all outputs (equal sums: the lower channel), the same for every output.

Channel counts that C_g does not divide are padded with zero channels, which are then trimmed. They
change no score, and no choice: among equals a padded channel comes last.
"""

import numpy as np
from numpy.typing import NDArray

PUBLISHED_SHAPES = 8
"""Candidate shapes of a group in the published program."""

OU_ROWS = 8
"""Rows of an operation unit in the published program."""

_BLOCK = 1 << 20
"""Weights ranked at once; bounds the memory."""


def shape_mask(
    weight: NDArray[np.float32],
    channels: int,
    positions: int,
    shapes: int = PUBLISHED_SHAPES,
    rows: int = OU_ROWS,
) -> NDArray[np.uint8]:
    """Mask of rule 3.

    Parameters
    ----------
    weight
        Finite float32 [out, in, kh, kw]. A grouped convolution is given one group at a time.
    channels
        C_g, input channels in a group, at least 1.
    positions
        V, kept positions of the kernel, at least 1. Where the kernel has no more, all are kept. Not
        used for a 1x1 kernel.
    shapes
        Most candidate shapes of a group, at least 1.
    rows
        Channels that a group of a 1x1 kernel keeps, at least 1.

    Returns
    -------
    uint8 [out, in, kh, kw]
        1 where the weight is kept.
    """
    check_weight(weight)
    for name, value in (
        ("channels", channels),
        ("positions", positions),
        ("shapes", shapes),
        ("rows", rows),
    ):
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}")
    kernel = weight.shape[2] * weight.shape[3]
    if kernel == 1:
        return _channel_mask(weight, channels, rows)
    if positions >= kernel:
        return np.ones(weight.shape, np.uint8)
    return _position_mask(weight, channels, positions, shapes)


def structure_mask(weight: NDArray[np.float32], keep: float) -> NDArray[np.uint8]:
    """Mask of rule 1: the int(in * keep) most important input channels, whole.

    The importance of a channel is the sum of its |W| over outputs and positions, added in float64
    (the rule does not say how; the published program adds in float32). Equal ones: the lower
    channel. Worked: sums [3, 5, 3] with keep 0.7 keep int(2.1) = 2 channels, 1 and 0.

    Parameters
    ----------
    weight
        Finite float32 [out, in, kh, kw]. A grouped convolution is given one group at a time.
    keep
        Share of the input channels that is kept, 0 to 1.

    Returns
    -------
    uint8 [out, in, kh, kw]
        1 where the weight is kept.
    """
    check_weight(weight)
    check_share("keep", keep)
    # Rows in memory are added one after another, on every machine.
    importance = np.zeros(weight.shape[1])
    for output in weight:
        importance += np.abs(output).reshape(len(output), -1).sum(axis=1, dtype=np.float64)
    kept = np.zeros(len(importance), np.uint8)
    kept[np.argsort(-importance, kind="stable")[: int(len(importance) * keep)]] = 1
    return np.broadcast_to(kept[:, None, None], weight.shape).copy()


def orc_mask(weight: NDArray[np.float32], keep: float) -> NDArray[np.uint8]:
    """Mask of rule 2: the int(in * kh * kw * keep) largest |w| of each output on its own.

    Equal ones: the lower channel, then the lower position. Worked: an output [1, -2, 2, 1] with
    keep 0.8 keeps int(3.2) = 3 weights: -2, 2 and the first 1.

    The published program (``get_ORC_mask``) mis-sorts every output but the first of a fully
    connected layer; the rule is the same for all of them (docs/specification/algorithm.md, rule 2;
    index.json of the golden cases, ``derived_mask_rowwise_topk``).

    Parameters
    ----------
    weight
        Finite float32 [out, in, kh, kw]. A grouped convolution is given one group at a time.
    keep
        Share of an output's weights that is kept, 0 to 1.

    Returns
    -------
    uint8 [out, in, kh, kw]
        1 where the weight is kept.
    """
    check_weight(weight)
    check_share("keep", keep)
    outputs, size = len(weight), weight[0].size
    count = int(size * keep)
    mask = np.zeros((outputs, size), np.uint8)
    if not count:
        return mask.reshape(weight.shape)
    flat = weight.reshape(outputs, size)
    step = max(1, _BLOCK // size)
    for start in range(0, outputs, step):
        magnitude = np.abs(flat[start : start + step])
        least = np.partition(magnitude, size - count, axis=1)[:, size - count, None]
        larger = magnitude > least
        # Of those that equal the least kept one, the first fill what is left.
        equal = magnitude == least
        left = count - np.count_nonzero(larger, axis=1)
        equal &= np.cumsum(equal, axis=1, dtype=np.int32) <= left[:, None]
        mask[start : start + step] = larger | equal
    return mask.reshape(weight.shape)


def check_share(name: str, value: float) -> None:
    """Refuse what is not a share from 0 to 1."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be 0 to 1, not {value!r}")


def check_weight(weight: NDArray[np.float32] | NDArray[np.int8], *, integers: bool = False) -> None:
    """Refuse what is not a finite float32 array [out, in, kh, kw] with at least one weight.

    With ``integers``, int8 will do as well.
    """
    kinds = (np.float32, np.int8) if integers else (np.float32,)
    if not isinstance(weight, np.ndarray) or weight.dtype not in kinds:
        found = weight.dtype if isinstance(weight, np.ndarray) else type(weight).__name__
        raise TypeError(f"weight must be a float32 array, not {str(found)!r}")
    if weight.ndim != 4 or not weight.size:
        raise ValueError(f"weight must have the shape [out, in, kh, kw], not {weight.shape!r}")
    # An output at a time: no array as large as the weights.
    for output in weight:
        if not np.isfinite(output).all():
            raise ValueError(f"weight must be finite, not {output[~np.isfinite(output)][0]!r}")


def _channel_mask(weight: NDArray[np.float32], channels: int, rows: int) -> NDArray[np.uint8]:
    """Mask of a 1x1 kernel: the ``rows`` largest channels of each group, for every output."""
    inputs = weight.shape[1]
    # Rows in memory are added one after another, on every machine.
    importance = np.zeros(inputs)
    for output in weight[:, :, 0, 0]:
        importance += np.abs(output)
    padded = np.zeros(-(-inputs // channels) * channels)
    padded[:inputs] = importance
    padded = padded.reshape(-1, channels)
    best = np.argsort(-padded, axis=1, kind="stable")[:, :rows]
    kept = np.zeros(padded.shape, np.uint8)
    np.put_along_axis(kept, best, 1, axis=1)
    row = kept.reshape(-1)[:inputs]
    return np.broadcast_to(row[None, :, None, None], weight.shape).copy()


def _position_mask(
    weight: NDArray[np.float32], channels: int, positions: int, shapes: int
) -> NDArray[np.uint8]:
    """Mask of a kernel with more positions than ``positions``."""
    outputs, inputs, height, width = weight.shape
    kernel = height * width
    groups = -(-inputs // channels)
    magnitude = np.zeros((groups * channels, outputs, kernel), np.float32)
    magnitude[:inputs] = np.abs(weight).reshape(outputs, inputs, kernel).transpose(1, 0, 2)
    magnitude = magnitude.reshape(groups, channels, outputs, kernel)
    score = magnitude[:, 0].copy()
    for channel in range(1, channels):
        score += magnitude[:, channel]

    # Own shapes, and the candidates of each group.
    best = np.argsort(-score, axis=-1, kind="stable")[..., :positions]
    own = np.zeros(score.shape, bool)
    np.put_along_axis(own, best, True, axis=-1)
    names = _shape_names(own, dropped=(height, width) == (3, 3) and positions == 8)
    candidates = np.zeros((groups, shapes, kernel), bool)
    present = np.zeros((groups, shapes), bool)
    for group in range(groups):
        _, first, count = np.unique(names[group], return_index=True, return_counts=True)
        chosen = first[np.argsort(-count, kind="stable")[:shapes]]
        candidates[group, : len(chosen)] = own[group, chosen]
        present[group, : len(chosen)] = True

    # What each candidate retains, added in the order that the module describes.
    retained = np.zeros((groups, outputs, shapes), np.float32)
    for channel in range(channels):
        of_channel = np.zeros_like(retained)
        for row in range(height):
            of_row = np.zeros_like(retained)
            for position in range(row * width, (row + 1) * width):
                part = magnitude[:, channel, :, position, None]
                of_row += part * candidates[:, None, :, position]
            of_channel += of_row
        retained += of_channel
    retained[np.broadcast_to(~present[:, None, :], retained.shape)] = -1
    choice = np.argmax(retained, axis=-1)

    taken = np.take_along_axis(candidates, choice[..., None], axis=1).astype(np.uint8)
    mask = np.broadcast_to(
        taken.transpose(1, 0, 2)[:, :, None, :], (outputs, groups, channels, kernel)
    )
    mask = mask.reshape(outputs, groups * channels, height, width)[:, :inputs]
    return np.ascontiguousarray(mask)


def _shape_names(shape: NDArray[np.bool_], *, dropped: bool) -> NDArray[np.bytes_]:
    """Byte strings that sort as the shapes do: the highest position is the highest bit.

    Shapes with equally many positions, written as descending tuples, compare as these numbers do.
    With ``dropped`` the bits are those of the positions left out.
    """
    packed = np.packbits(shape[..., ::-1] ^ dropped, axis=-1)
    return packed.view(f"S{packed.shape[-1]}")[..., 0]
