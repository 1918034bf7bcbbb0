"""Normalisation across channels: LRN."""

import numpy as np
from onnx import NodeProto

from refmodel.exchange.onnx.builder import MOST_VALUES, Attributes, NetworkBuilder, value_numbers
from refmodel.exchange.onnx.registry import operator
from refmodel.network.expression import X, term
from refmodel.network.graph import AveragePool, Function, Product


@operator("LRN")
def import_lrn(net: NetworkBuilder, node: NodeProto, attributes: Attributes) -> None:
    """Import ``x / (bias + alpha * mean of x^2 over neighbouring channels) ^ beta``.

    It is the product of x and a function of an average: squares, laid side by side channel by
    channel, are pooled.
    """
    name, (channels, height, width) = net.image(node)
    size = whole = int(attributes.get("size", 0))
    alpha, beta, bias = (
        float(attributes.get(key, default))
        for key, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    if size < 1 or size % 2 == 0:
        net.fail("over an odd number of channels", f"size {size}", node)
    # Windows beyond all channels have zeros alone there, which are counted all the same.
    size = min(size, 2 * channels - 1)
    if channels * height * width * size > MOST_VALUES:
        net.fail(f"of at most {MOST_VALUES} values and neighbours", f"size {size}", node)
    if not np.isfinite([alpha, beta, bias]).all() or bias <= 0 or alpha < 0:
        found = f"{alpha:g}, {beta:g} and {bias:g}"
        net.fail("with alpha of at least 0, a finite beta and bias above 0", found, node)
    shape = (channels, height, width)
    squares = net.inner_fields(node, (name,), shape)
    net.append(Function(**squares, term=term("Mul", X, X)))
    # Neighbours of each value: a row of windows, of 0 beyond the first and the last channel.
    around = np.arange(channels)[:, None] + np.arange(size) - (size - 1) // 2
    inside = (around >= 0) & (around < channels)
    index = value_numbers(shape)[around.clip(0, channels - 1)]
    index = np.where(inside[:, :, None, None], index, -1)
    index = np.moveaxis(index, 1, -1).reshape(channels, height, width * size)
    windows = net.rearranged(node, squares["output"], index)
    mean = net.inner_fields(node, (windows,), shape)
    counts = np.full((height, width), size, np.int64)
    pool = {"kernel": (1, size), "stride": (1, size), "pads": (0, 0, 0, 0)}
    net.append(AveragePool(**mean, **pool, counts=counts))
    factor = net.inner_fields(node, (mean["output"],), shape)
    base = term("Add", term("Mul", X, alpha * size / whole), bias)
    net.append(Function(**factor, term=term("Pow", base, -beta)))
    net.append(Product(**net.fields(node, (name, factor["output"]), shape)))
