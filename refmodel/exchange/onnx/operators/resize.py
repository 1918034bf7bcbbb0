"""Resize and Upsample: to the nearest value, or between values along one axis after the other."""

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import (
    MOST_VALUES,
    Attributes,
    NetworkBuilder,
    shape_text,
    value_numbers,
)
from refmodel.exchange.onnx.operators.einsum import contract
from refmodel.exchange.onnx.registry import operator
from refmodel.network.graph import AveragePool

MOST_SHARES = 32
"""Values of an average that interpolates between two."""

ALIGNED = (
    "half_pixel",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "half_pixel_symmetric",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
ADVICE = "antialias = 0, exclude_outside = 0"


@operator("Resize", "Upsample")
def import_resize(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a resize: values move (nearest), or are averages of neighbours (linear, cubic)."""
    name, shape = net.activation(node.input[0], node)
    mode = attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear", "cubic"):
        net.fail("of mode nearest, linear or cubic", repr(mode), node)
    if mode != "nearest" and any(
        attributes.get(key, 0) for key in ("antialias", "exclude_outside")
    ):
        net.fail(f"with {ADVICE}", "one that is set", node)
    aligned = attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample" or net.opset < 11:
        aligned, rounding = "asymmetric", "floor"
    if aligned not in ALIGNED or rounding not in ROUNDINGS:
        found = f"{aligned} and {rounding}"
        net.fail(f"aligned as {', '.join(ALIGNED)}, rounded as {', '.join(ROUNDINGS)}", found, node)
    scales, sizes = _scales_and_sizes(net, node, attributes, (1, *shape))
    for at, (old, new) in enumerate(zip((1, *shape), sizes, strict=True)):
        if new < 1 or (at == 0 and new != old):
            net.fail("to sizes of at least 1 behind the batch", f"{sizes}", node)
    if np.prod(np.array(sizes, np.float64)) > MOST_VALUES:
        net.fail(f"to at most {MOST_VALUES} values", shape_text(tuple(sizes[1:])), node)
    if mode != "nearest":
        if aligned == "align_corners":
            for old, new, scale in zip(shape, sizes[1:], scales[1:], strict=True):
                if abs(old * scale - new) > 1e-4:  # which runtimes take for different sizes
                    found = f"{old} to {old * scale:g}"
                    net.fail("to whole sizes, where corners are aligned", found, node)
        kernel = _linear
        if mode == "cubic":
            kernel = partial(_cubic, a=float(attributes.get("cubic_coeff_a", -0.75)))
        changed = [
            (axis, _weights(old, new, scales[axis + 1], aligned, kernel))
            for axis, (old, new) in enumerate(zip(shape, sizes[1:], strict=True))
            if old != new or scales[axis + 1] != 1
        ]
        if not changed:
            net.pass_on(node, name)
        for at, (axis, weights) in enumerate(changed):
            step = net.inner_node(node) if at + 1 < len(changed) else node
            interpolate(net, step, name, axis, weights)
            name = net.resolve(step.output[0])
        return
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    for axis, (old, new) in enumerate(zip(shape, sizes[1:], strict=True)):
        index = index.take(_places(old, new, scales[axis + 1], aligned, rounding), axis)
    net.rearrange(node, name, index)


def _scales_and_sizes(
    net: NetworkBuilder, node: NodeProto, attributes: Attributes, shape: tuple[int, ...]
) -> tuple[list[float], list[int]]:
    """Scale and size of every axis, the batch first."""
    at = 1 if node.op_type == "Upsample" or net.opset < 11 else 2
    axes = [axis + len(shape) * (axis < 0) for axis in attributes.get("axes", range(len(shape)))]
    if not set(axes) <= set(range(len(shape))) or len(set(axes)) != len(axes):
        net.fail("of axes of its input", f"{axes}", node)
    scales, sizes = [1.0] * len(shape), list(shape)
    wanted = net.integers(node, {}, "sizes", 3)
    if wanted:
        if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            found = repr(attributes["keep_aspect_ratio_policy"])
            net.fail("with keep_aspect_ratio_policy stretch", found, node)
        if len(wanted) != len(axes):
            net.fail(f"with sizes of {len(axes)} axes", f"{wanted}", node)
        for axis, size in zip(axes, wanted, strict=True):
            # The size of a batch that is free, or that the file fixes, is 1 here.
            size = 1 if axis == 0 and size in (0, net.batch) else size
            scales[axis], sizes[axis] = size / shape[axis], size
        return scales, sizes
    if "scales" in attributes:
        factors = [float(each) for each in attributes["scales"]]
    elif len(node.input) > at and node.input[at]:
        factors = net.numbers(node.input[at], node, "scales").astype(float).reshape(-1).tolist()
    else:
        net.fail("with scales or sizes", "neither", node)
    if len(factors) != len(axes) or min(factors) <= 0 or max(factors) > MOST_VALUES:
        net.fail(f"with a scale above 0 for each of {len(axes)} axes", f"{factors}", node)
    for axis, factor in zip(axes, factors, strict=True):
        scales[axis], sizes[axis] = factor, int(np.floor(shape[axis] * factor))
    return scales, sizes


def _positions(old: int, new: int, scale: float, aligned: str) -> NDArray[np.float32]:
    """Position in the input of each place along an axis."""
    # In float32, as onnxruntime has it: exact halves are at stake.
    out, factor = np.arange(new, dtype=np.float32), np.float32(scale)
    match aligned:
        case "asymmetric":
            return out / factor
        case "align_corners":
            return out * np.float32((old - 1) / (new - 1)) if new > 1 else out * 0
        case "pytorch_half_pixel" if new == 1:
            return out * 0
        case "half_pixel_symmetric":
            shift = old / 2 * (1 - new / (scale * old))
            return np.float32(shift) + (out + np.float32(0.5)) / factor - np.float32(0.5)
        case _:
            return (out + np.float32(0.5)) / factor - np.float32(0.5)


def _places(old: int, new: int, scale: float, aligned: str, rounding: str) -> NDArray[np.int64]:
    """Place in the input of each place along an axis, to the nearest."""
    places = _positions(old, new, scale, aligned)
    half = np.float32(0.5)
    match rounding:
        case "round_prefer_floor":
            places = np.ceil(places - half)
        case "round_prefer_ceil":
            places = np.floor(places + half)
        case "floor":
            places = np.floor(places)
        case _:
            places = np.ceil(places)
    return places.astype(np.int64).clip(0, old - 1)


def _linear(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of two neighbours, by how far a position is behind the first."""
    return np.stack([1 - share, share])


def _cubic(share: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Weights of four neighbours, by how far a position is behind the second."""
    far = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in (share + 1, 2 - share)]
    near = [((a + 2) * t - (a + 3)) * t * t + 1 for t in (share, 1 - share)]
    return np.stack([far[0], near[0], near[1], far[1]])


def _weights(
    old: int,
    new: int,
    scale: float,
    aligned: str,
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """What each place along an axis is made of: float64 [new, old], each row of sum 1."""
    places = _positions(old, new, scale, aligned).astype(np.float64)
    first = np.floor(places)
    taps = kernel(places - first)
    weights = np.zeros((new, old))
    rows = np.arange(new)
    for at, values in enumerate(taps):
        # Beyond the ends of the axis its first and last value are repeated.
        column = (first.astype(np.int64) + at - len(taps) // 2 + 1).clip(0, old - 1)
        np.add.at(weights, (rows, column), values)
    return weights


def interpolate(
    net: NetworkBuilder,
    node: NodeProto,
    name: str,
    axis: int,
    weights: NDArray[np.float64],
) -> None:
    """Let the output of ``node`` be ``name`` with weighted sums along an axis.

    Where weights are shares of a small whole, such as quarters, each place is the average of values
    that are laid side by side, some of them twice or more: exact in integers, but for one rounding.
    Elsewhere they are a layer with these weights.

    Parameters
    ----------
    net, node, name
        The network, the node, the tensor.
    axis
        The axis, not counting the batch.
    weights
        float64 [places, values along the axis].
    """
    shape = net.shapes[name]
    others = prod(shape) // shape[axis]
    whole = _whole(weights)
    if not whole or others * len(weights) * whole > MOST_VALUES:
        axes = [str(each) for each in range(1 + len(shape))]
        output = [*axes]
        output[axis + 1] = "made"
        labels = ["made", axes[axis + 1]]
        contract(net, node, name, weights.astype(np.float32), axes, labels, output)
        return
    parts = np.rint(weights * whole).astype(np.int64)
    taps = np.concatenate([np.repeat(np.arange(shape[axis]), row) for row in parts])
    final = (*shape[:axis], len(weights), *shape[axis + 1 :])
    index = value_numbers(shape).take(taps, axis)
    plain = len(shape) == 3 and axis > 0
    if not plain:  # the axis becomes a row
        index = np.moveaxis(index, axis, -1).reshape(others, 1, -1)
    kernel = (whole, 1) if plain and axis == 1 else (1, whole)
    rows = net.rearranged(node, name, index)
    channels, height, width = index.shape
    size = (channels, height // kernel[0], width // kernel[1])
    fields = (net.fields if plain else net.inner_fields)(node, (rows,), size)
    window = {"kernel": kernel, "stride": kernel, "pads": (0, 0, 0, 0)}
    net.append(AveragePool(**fields, **window, counts=np.full(size[1:], whole, np.int64)))
    if not plain:
        moved = (*shape[:axis], *shape[axis + 1 :], len(weights))
        back = np.moveaxis(value_numbers(moved), -1, axis)
        net.rearrange(node, fields["output"], back.reshape(final))


def _whole(weights: NDArray[np.float64]) -> int:
    """Return the least number of which all weights are whole shares, 0 where it is above 32."""
    if weights.min() < 0:
        return 0
    for whole in range(1, MOST_SHARES + 1):
        if np.abs(weights * whole - np.rint(weights * whole)).max() < 1e-4:
            parts = np.rint(weights * whole).sum(1)
            return whole if (parts == whole).all() else 0
    return 0
