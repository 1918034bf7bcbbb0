"""Networks of ImageNet's size with drawn weights, as ONNX, and images for them.

    python benchmarks/imagenet.py resnet50 vgg16      # build/imagenet/resnet50.onnx, ...

writes the topologies of ResNet-18, ResNet-50, MobileNetV2 and VGG16 as torchvision has them, at
224 x 224 and 1000 classes unless ``--size`` and ``--classes`` say otherwise, with weights of
Kaiming's deviation and BatchNormalization that keeps the variance, and ``images.npz`` with smooth
drawn images (uint8, NHWC) and labels. Their answers mean nothing; their size, and what it takes to
compress, predict and simulate them, is that of the real ones. Everything is drawn from fixed seeds.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "imagenet"

SEED = 15


class Builder:
    """Nodes and parameters of a network while it grows; names of tensors go from call to call."""

    def __init__(self, seed: int = SEED) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.parameters: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray) -> str:
        """Add a parameter."""
        self.parameters.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, operator: str, name: str, inputs: list[str], **attributes: object) -> str:
        """Add a node, whose output has its name."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1,
        groups: int = 1, *, norm: float | None = 1.0,
    ) -> str:  # fmt: skip
        """Add a convolution, with a bias or else with BatchNormalization of a mean scale."""
        fan = kernel * kernel * inputs // groups
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = self.rng.standard_normal(shape, np.float32) * np.float32((2 / fan) ** 0.5)
        names = [x, self.constant(f"{name}.weight", weight)]
        if norm is None:
            names.append(self.constant(f"{name}.bias", self.rng.normal(0, 0.05, outputs)))
        pad = kernel // 2
        result = self.node(
            "Conv", name, names, kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups,
            pads=[pad] * 4,
        )  # fmt: skip
        if norm is None:
            return result
        rng, bn = self.rng, f"{name}.bn"
        constants = {
            "scale": norm * rng.uniform(0.7, 1.3, outputs),
            "shift": rng.normal(0, 0.2, outputs),
            "mean": rng.normal(0, 0.1, outputs),
            "variance": rng.uniform(0.7, 1.3, outputs),
        }
        made = [self.constant(f"{bn}.{key}", values) for key, values in constants.items()]
        return self.node("BatchNormalization", bn, [result, *made])

    def relu(self, x: str) -> str:
        """Add a ReLU."""
        return self.node("Relu", f"{x}.relu", [x])

    def dense(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """Add a fully connected layer."""
        weight = self.rng.standard_normal((outputs, inputs), np.float32)
        weight *= np.float32((2 / inputs) ** 0.5)
        bias = self.rng.normal(0, 0.05, outputs)
        names = [self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("Gemm", name, [x, *names], transB=1)

    def head(self, x: str, inputs: int, classes: int) -> str:
        """Add the mean over positions and the last layer."""
        x = self.node("GlobalAveragePool", "mean", [x])
        return self.dense(self.node("Flatten", "flat", [x], axis=1), "fc", inputs, classes)

    def model(self, output: str, size: int, classes: int) -> onnx.ModelProto:
        """Make the model of what was added, from ``image`` to ``output``."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, "drawn", [image], [result], self.parameters)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _stem(net: Builder, width: int) -> str:
    """Add the first layers of a ResNet."""
    x = net.relu(net.conv("image", "conv1", 3, width, 7, 2))
    return net.node("MaxPool", "pool1", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def resnet18(size: int, classes: int, width: int = 64) -> onnx.ModelProto:
    """ResNet-18: basic blocks of two 3x3 convolutions; ``width`` is that of the first stage."""
    net, inputs = Builder(), width
    x = _stem(net, width)
    for stage in range(4):
        outputs = width << stage
        for block in range(2):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = net.relu(net.conv(x, f"{name}.conv1", inputs, outputs, 3, stride))
            y = net.conv(y, f"{name}.conv2", outputs, outputs, 3, norm=0.3)
            if stride > 1 or inputs != outputs:
                x = net.conv(x, f"{name}.down", inputs, outputs, 1, stride, norm=0.7)
            x = net.relu(net.node("Add", f"{name}.add", [y, x]))
            inputs = outputs
    return net.model(net.head(x, inputs, classes), size, classes)


def resnet50(size: int, classes: int, width: int = 64) -> onnx.ModelProto:
    """ResNet-50: bottlenecks of 1x1, 3x3 and 1x1; ``width`` is that of the first stage's 3x3."""
    net, inputs = Builder(), width
    x = _stem(net, width)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, outputs = width << stage, 4 * width << stage
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            y = net.relu(net.conv(x, f"{name}.conv1", inputs, inner, 1))
            y = net.relu(net.conv(y, f"{name}.conv2", inner, inner, 3, stride))
            y = net.conv(y, f"{name}.conv3", inner, outputs, 1, norm=0.3)
            if not block:
                x = net.conv(x, f"{name}.down", inputs, outputs, 1, stride, norm=0.7)
            x = net.relu(net.node("Add", f"{name}.add", [y, x]))
            inputs = outputs
    return net.model(net.head(x, inputs, classes), size, classes)


MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
          (6, 320, 1, 1))  # fmt: skip
"""Expansion, outputs, blocks and stride of each stage of MobileNetV2."""


def mobilenetv2(size: int, classes: int, width: int = 32) -> onnx.ModelProto:
    """MobileNetV2: inverted residuals of 1x1, depthwise 3x3 and 1x1, with ReLU6."""
    net, inputs = Builder(), width
    limits = [net.constant("zero", np.array(0.0)), net.constant("six", np.array(6.0))]

    def relu6(x: str) -> str:
        return net.node("Clip", f"{x}.relu6", [x, *limits])

    x = relu6(net.conv("image", "conv1", 3, inputs, 3, 2))
    for stage, (expand, wide, blocks, first) in enumerate(MOBILE):
        outputs = wide * width // 32
        for block in range(blocks):
            name, stride = f"features{stage + 1}.{block}", 1 if block else first
            inner, y = inputs * expand, x
            if expand > 1:
                y = relu6(net.conv(y, f"{name}.expand", inputs, inner, 1))
            y = relu6(net.conv(y, f"{name}.depthwise", inner, inner, 3, stride, inner))
            y = net.conv(y, f"{name}.project", inner, outputs, 1, norm=0.7)
            if stride == 1 and inputs == outputs:
                y = net.node("Add", f"{name}.add", [x, y])
            x, inputs = y, outputs
    last = 1280 * width // 32
    x = relu6(net.conv(x, "last", inputs, last, 1))
    return net.model(net.head(x, last, classes), size, classes)


VGG = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width over the first one, and convolutions, of each stage of VGG16."""


def vgg16(size: int, classes: int, width: int = 64) -> onnx.ModelProto:
    """VGG16: thirteen 3x3 convolutions, and three fully connected layers without a mean before."""
    net, x, inputs = Builder(), "image", 3
    for stage, (times, count) in enumerate(VGG):
        for place in range(count):
            name, outputs = f"conv{stage + 1}_{place + 1}", times * width
            x = net.relu(net.conv(x, name, inputs, outputs, 3, norm=None))
            inputs = outputs
        x = net.node("MaxPool", f"pool{stage + 1}", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Flatten", "flat", [x], axis=1)
    inputs, hidden = inputs * (size // 32) ** 2, 64 * width
    for name in ("fc1", "fc2"):
        x, inputs = net.relu(net.dense(x, name, inputs, hidden)), hidden
    return net.model(net.dense(x, "fc3", inputs, classes), size, classes)


NETWORKS: dict[str, Callable[..., onnx.ModelProto]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "vgg16": vgg16,
}


def images(count: int, size: int, classes: int) -> dict[str, NDArray]:
    """Draw smooth images, uint8 (count, size, size, 3), and labels."""
    rng = np.random.default_rng(SEED)
    coarse = rng.normal(0, 1, (count, 8, 8, 3))
    place = np.linspace(0, 7, size)
    low = np.minimum(place.astype(int), 6)
    part = place - low
    for axis in (1, 2):
        shape = [1] * 4
        shape[axis] = size
        share = part.reshape(shape)
        coarse = np.take(coarse, low, axis) * (1 - share) + np.take(coarse, low + 1, axis) * share
    noise = rng.normal(0, 0.2, coarse.shape)
    pixels = np.clip(128 + 60 * (coarse + noise), 0, 255).astype(np.uint8)
    return {"x": pixels, "y": rng.integers(0, classes, count)}


def main(arguments: list[str] | None = None) -> int:
    """Write the networks that are named, all by default, and images."""
    parser = argparse.ArgumentParser(description="write networks of ImageNet's size, drawn")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--width", type=int, help="channels of the first stage")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(NETWORKS))
    if unknown:
        parser.error(f"expected names of {', '.join(NETWORKS)}, found {', '.join(unknown)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    width = {} if chosen.width is None else {"width": chosen.width}
    for name in chosen.names or NETWORKS:
        model = NETWORKS[name](chosen.size, chosen.classes, **width)
        onnx.save(model, chosen.out / f"{name}.onnx")
        print(chosen.out / f"{name}.onnx")
    drawn = images(chosen.images, chosen.size, chosen.classes)
    np.savez_compressed(chosen.out / "images.npz", **drawn)
    print(chosen.out / "images.npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
