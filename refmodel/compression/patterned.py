"""Weights that already lie on patterns: read their reuse map off them instead of choosing one.

Fine-tuning by the published recipe ends with weights that *are* a reuse map: every pattern of
a group is zero, or a kept pattern in 8 bits, or a kept pattern times a power of two. Rule 7,
applied to them again, does not find that map. It keeps the K patterns of largest norm, and
a pattern that reuses the largest one at scale 1 has the same norm: copies of a few large patterns
fill the K places, the smaller kept patterns are lost, and their users with them. Rule 3 fails
likewise where rounding left a position empty.

:func:`recover_map` returns a map that gives these very weights, or None where there is none within
the layer's setting; then rules 3 and 7 have to choose. Among patterns that differ by a power of
two, the largest is the kept one; among equal ones, the first.
"""

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.prune import OU_ROWS
from refmodel.compression.reuse import FRACTION, LEAST_EXPONENT, ReuseMap


def recover_map(
    codes: NDArray[np.int16], channels: int, positions: int, keep: float, rows: int = OU_ROWS
) -> ReuseMap | None:
    """Find the reuse map whose effective weights equal ``codes``.

    Worked group of four outputs, K = 2: codes [512, 256], [256, 128], [0, 0], [256, 768]. Output 1
    is output 0 times 1/2, output 2 is dropped, outputs 0 and 3 are kept: a map. With K = 1 there is
    none; nor if output 3 were [256, 769], which is no 8-bit pattern and a multiple of none.

    Parameters
    ----------
    codes
        Quantised weights with 8 fraction bits, int16 [out, in, kh, kw], as
        ``quantise(weight, SIMILAR_LEVELS)`` gives them.
    channels
        C_g, input channels in a group; the last group takes what is left.
    positions
        V, the most kernel positions of a shape. Not used for a 1x1 kernel.
    keep
        Share of the patterns of a group that may be kept, 0 to 1.
    rows
        The most channels that a group of a 1x1 kernel keeps.

    Returns
    -------
    ReuseMap or None
        Its mask is zero for dropped patterns. A shape has fewer than V positions only where
        rounding emptied some and no other shape of the group covers the rest.
    """
    outputs, inputs, height, width = codes.shape
    kernel = height * width
    limit = int(outputs * keep)
    flat = codes.reshape(outputs, inputs, kernel)
    groups = -(-inputs // channels)
    order = np.empty((groups, outputs), np.int32)
    kept_count = np.empty(groups, np.int32)
    target = np.empty((groups, outputs), np.int32)
    exponent = np.empty((groups, outputs), np.int8)
    mask = np.zeros(flat.shape, np.uint8)
    for group in range(groups):
        part = flat[:, group * channels : (group + 1) * channels].astype(np.int32)
        sources = _sources(part.reshape(outputs, -1))
        if sources is None or len(np.unique(sources[0][sources[0] >= 0])) > limit:
            return None
        target[group], exponent[group] = sources
        kept = target[group] == np.arange(outputs)
        if kernel == 1:
            shape = _channel_shape(part[kept], rows)
        else:
            shape = _position_shapes(part[kept], positions)
        if shape is None:
            return None
        # Users of a kept pattern have its shape; a dropped pattern has none.
        shape_of = np.zeros((outputs, *part.shape[1:]), np.uint8)
        shape_of[kept] = shape
        used = target[group] >= 0
        mask[used, group * channels : (group + 1) * channels] = shape_of[target[group, used]]
        norm = np.abs(part).sum(axis=(1, 2))
        order[group] = np.lexsort((-norm, ~kept))
        kept_count[group] = np.count_nonzero(kept)
    return ReuseMap(
        channels=channels,
        order=order,
        kept_count=kept_count,
        target=target,
        exponent=exponent,
        mask=mask.reshape(codes.shape),
    )


def _sources(pattern: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int8]] | None:
    """Target and exponent of each row of [out, rows]; None where a kept row is not 8-bit."""
    outputs = len(pattern)
    target = np.full(outputs, -1, np.int32)
    exponent = np.zeros(outputs, np.int8)
    used = np.flatnonzero(pattern.any(axis=1))
    if not used.size:
        return target, exponent
    # A pattern is an odd multiple of its power of two; equal odd parts belong together.
    common = np.gcd.reduce(pattern[used], axis=1)
    power = common & -common
    _, family = np.unique(pattern[used] // power[:, None], axis=0, return_inverse=True)
    family = family.reshape(-1)
    by_family = np.lexsort((used, -power, family))
    first = by_family[np.r_[True, np.diff(family[by_family]) > 0]]
    source = first[family]
    scale = np.rint(np.log2(power / power[source])).astype(np.int64)
    if (power[source] % FRACTION).any() or scale.min() < LEAST_EXPONENT:
        return None
    target[used] = used[source]
    exponent[used] = scale
    return target, exponent


def _channel_shape(pattern: NDArray[np.int32], rows: int) -> NDArray[np.uint8] | None:
    """Shape of a 1x1 group, the same for all its patterns [kept, channels, 1]."""
    shape = pattern.any(axis=0)
    if np.count_nonzero(shape) > rows:
        return None
    return np.broadcast_to(shape, pattern.shape).astype(np.uint8)


def _position_shapes(pattern: NDArray[np.int32], positions: int) -> NDArray[np.uint8] | None:
    """Shapes of the kept patterns [kept, channels, kernel]: the fullest that cover them."""
    support = np.asarray(pattern.any(axis=1))
    size = np.count_nonzero(support, axis=1)
    if size.size and size.max() > positions:
        return None
    shapes: list[NDArray[np.bool_]] = []
    taken = np.zeros(support.shape, np.uint8)
    for index in np.argsort(-size, kind="stable"):
        here = support[index]
        shape = next((shape for shape in shapes if not (here & ~shape).any()), None)
        if shape is None:
            shape = here
            shapes.append(shape)
        taken[index] = shape
    return np.broadcast_to(taken[:, None, :], pattern.shape)
