"""Small networks that go through every operation of the accelerator."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto

from prap_hw.app import workflow
from refmodel import digits, golden
from refmodel.compression.compile import compile_network
from refmodel.compression.quantize import quantize
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork
from refmodel.network.images import Preprocess
from refmodel.program.program import Program
from tests.support.nets.onnx_nets import floats, network, node, save

Net = tuple[list[NodeProto], dict[str, np.ndarray], tuple[int, int, int]]


def residual_net() -> Net:
    """Two blocks, the second with a stride and the parameter-free shortcut; pool and classifier."""
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1 b0", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b0", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 r0", "a2"),
        node("Relu", "a2", "r2"),
        node("Conv", "r2 w3 b3", "c3", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c3", "r3"),
        node("Conv", "r3 w4 b3", "c4", pads=[1, 1, 1, 1]),
        node("Slice", "r2 starts ends axes steps", "half"),
        node("Pad", "half wider", "short"),
        node("Add", "c4 short", "a4"),
        node("Relu", "a4", "r4"),
        node("GlobalAveragePool", "r4", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w5 b5", "y"),
    ]
    constants = {
        "w0": floats(1, 4, 2, 3, 3) / 3,
        "w1": floats(2, 4, 4, 3, 3) / 4,
        "w2": floats(3, 4, 4, 3, 3) / 4,
        "w3": floats(4, 8, 4, 3, 3) / 4,
        "w4": floats(5, 8, 8, 3, 3) / 6,
        "w5": floats(6, 8, 5),
        "b0": floats(7, 4) / 3,
        "b3": floats(8, 8) / 3,
        "b5": floats(9, 5),
        "starts": np.array([0, 0]),
        "ends": np.array([100, 100]),
        "axes": np.array([2, 3]),
        "steps": np.array([2, 2]),
        "wider": np.array([0, 2, 0, 0, 0, 2, 0, 0]),
    }
    return nodes, constants, (2, 4, 4)


def pools_net() -> Net:
    """Max pools of both sizes and strides, with a border, average pools, and an image flattened."""
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[0, 1, 2, 0]),
        node("Relu", "c0", "r0"),
        node("MaxPool", "r0", "m0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("MaxPool", "m0", "m1", kernel_shape=[2, 2], strides=[1, 1]),
        node("AveragePool", "m1", "v0", kernel_shape=[2, 2], strides=[1, 1]),
        node("Conv", "v0 w1 b0", "c1", pads=[1, 1, 1, 1]),
        node("MaxPool", "c1", "m2", kernel_shape=[3, 3], strides=[1, 1]),
        node("Flatten", "m2", "f"),
        node("Gemm", "f w2", "y"),
    ]
    constants = {
        "w0": floats(11, 3, 2, 3, 3) / 3,
        "w1": floats(12, 3, 3, 3, 3) / 3,
        "w2": floats(13, 12, 4),
        "b0": floats(14, 3) / 3,
    }
    return nodes, constants, (2, 12, 12)


def branches_net() -> Net:
    """Branches that are concatenated and added, limits as a step, an average with a border."""
    nodes = [
        node("Conv", "x w0", "a", pads=[1, 1, 1, 1]),
        node("Conv", "x w1", "b"),
        node("Clip", "b low high", "limited"),
        node("Add", "b limited", "sum"),
        node("Concat", "a limited sum", "joined", axis=1),
        node(
            "AveragePool",
            "joined",
            "v",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            count_include_pad=1,
        ),
        node("Transpose", "v", "t", perm=[0, 1, 3, 2]),
        node("Concat", "t v", "y", axis=2),
    ]
    constants = {
        "w0": floats(21, 3, 2, 3, 3) / 3,
        "w1": floats(22, 2, 2, 1, 1),
        "low": np.array(-0.5, np.float32),
        "high": np.array(0.75, np.float32),
    }
    return nodes, constants, (2, 5, 5)


def chain_net() -> Net:
    """Three layers, one behind the other."""
    nodes = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1", "c1"),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "y", strides=[2, 1]),
    ]
    constants = {
        "w0": floats(31, 3, 2, 3, 3) / 3,
        "w1": floats(32, 4, 3, 2, 2) / 3,
        "w2": floats(33, 2, 4, 1, 3) / 3,
    }
    return nodes, constants, (2, 4, 5)


def waist_net() -> Net:
    """Layers of one output, which one engine has alone, between layers of several."""
    nodes = [
        node("Conv", "x w0", "c0"),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", strides=[2, 2]),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "c3"),
        node("Conv", "c3 w4", "y"),
    ]
    constants = {
        "w0": floats(41, 1, 2, 1, 1),
        "w1": floats(42, 4, 1, 3, 3) / 3,
        "w2": floats(43, 1, 4, 1, 1),
        "w3": floats(44, 4, 1, 1, 1),
        "w4": floats(45, 1, 4, 1, 1),
    }
    return nodes, constants, (2, 4, 6)


def functions_net() -> Net:
    """Tables of layers, of a product and to the channels; a border of max pooling; a resize."""
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1]),
        node("Sigmoid", "c0", "s0"),
        node("Mul", "c0 s0", "a0"),
        node("GlobalAveragePool", "a0", "g"),
        node("Conv", "g w1", "e"),
        node("HardSigmoid", "e", "h"),
        node("Mul", "a0 h", "p"),
        node("Tanh", "p", "t"),
        node("MaxPool", "t", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "m w2", "c1"),
        node("PRelu", "c1 slopes", "q"),
        node("Resize", "q - twice", "u"),
        node("Conv", "u w3", "z"),
        node("LeakyRelu", "z", "y", alpha=0.2),
    ]
    constants = {
        "w0": floats(41, 3, 2, 3, 3) / 3,
        "b0": floats(42, 3) / 3,
        "w1": floats(43, 3, 3, 1, 1),
        "w2": floats(44, 2, 3, 1, 1),
        "w3": floats(45, 3, 2, 4, 4) / 4,
        "slopes": np.array([0.3, -0.5], np.float32).reshape(2, 1, 1),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    return nodes, constants, (2, 4, 4)


NETS = {
    "functions": functions_net,
    "residual": residual_net,
    "pools": pools_net,
    "branches": branches_net,
    "chain": chain_net,
    "waist": waist_net,
}


def floating(name: str, folder: Path) -> FloatNetwork:
    """One of the networks, as it is imported."""
    nodes, constants, shape = NETS[name]()
    return load_onnx(save(network(nodes, constants, ("N", *shape)), folder))


def program(name: str, folder: Path, *, scheme: str = "prap", **options: Any) -> Program:
    """One of the networks, quantised and compiled; options are those of quantisation."""
    net = floating(name, folder)
    images = floats(99, 8, *net.input_shape)
    return compile_network(quantize(net, images, **options), scheme=scheme)


def codes(compiled: Program, count: int, seed: int = 0) -> np.ndarray:
    """Draw input codes, with some at the limits."""
    rng = np.random.default_rng(seed)
    shape = compiled.tensors[compiled.input]["shape"]
    images = rng.normal(0, 1, (count, shape[2], *shape[:2]))
    return golden.quantise_input(compiled, images)


def demo_network(count: int) -> tuple[Program, np.ndarray]:
    """The packaged network as `prap demo` compiles it, and the codes of its first images."""
    images = digits.digits_images()
    preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
    net = load_onnx(digits.network_path("prap"))
    compiled = workflow.compile_floats(
        net, images.calibration_x, preprocess, scheme="prap", settings=digits.SETTINGS
    )
    inputs = preprocess.apply(images.x[:count], net.input_shape)
    return compiled, golden.quantise_input(compiled, inputs)
