"""Resize and Upsample to the nearest value."""

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder, shape_text
from refmodel.exchange.onnx.registry import operator

ALIGNED = (
    "half_pixel",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
    "half_pixel_symmetric",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
ADVICE = "use mode nearest, or a ConvTranspose that interpolates"


@operator("Resize", "Upsample")
def import_resize(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import a resize to the nearest value; the values only move."""
    name, shape = net.activation(node.input[0], node)
    mode = attributes.get("mode", "nearest")
    if mode != "nearest":
        net.fail(f"of mode nearest ({ADVICE})", repr(mode), node)
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


def _places(old: int, new: int, scale: float, aligned: str, rounding: str) -> NDArray[np.int64]:
    """Place in the input of each place along an axis."""
    # In float32, as onnxruntime has it: exact halves are at stake.
    out, factor = np.arange(new, dtype=np.float32), np.float32(scale)
    match aligned:
        case "asymmetric":
            places = out / factor
        case "align_corners":
            places = out * np.float32((old - 1) / (new - 1)) if new > 1 else out * 0
        case "pytorch_half_pixel" if new == 1:
            places = out * 0
        case "half_pixel_symmetric":
            shift = old / 2 * (1 - new / (scale * old))
            places = np.float32(shift) + (out + np.float32(0.5)) / factor - np.float32(0.5)
        case _:
            places = (out + np.float32(0.5)) / factor - np.float32(0.5)
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
