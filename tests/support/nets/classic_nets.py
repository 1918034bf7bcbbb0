"""Small networks in the form of the files of ONNX's model zoo, in old opsets.

Each has the topology of a network of the zoo, a few channels wide, and what the converter of that
file wrote: initialisers that are inputs as well (before IR version 4), Reshape, Pad and Clip with
attributes, Dropout with a mask, scales of Caffe2 that are unsqueezed, channels last of TensorFlow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


class Classic:
    """Nodes and initialisers of a network while it grows."""

    def __init__(self, opset: int, seed: int = 4) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, values: ArrayLike) -> str:
        """Add an initialiser; returns its name."""
        name = f"weight_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def floats(self, *shape: int, scale: float = 1.0) -> str:
        """Add a drawn initialiser."""
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def op(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; returns its first output."""
        names = [f"{op.lower()}_{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0]

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int, *, bias: bool = True, **more: Any
    ) -> str:
        """Add a convolution, which keeps the size of the image where nothing else is said."""
        wide = inputs // int(more.get("group", 1))
        scale = (2 / (wide * kernel**2)) ** 0.5
        names = [x, self.floats(outputs, wide, kernel, kernel, scale=scale)]
        names += [self.floats(outputs, scale=0.2)] * bias
        more = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4} | more
        if "auto_pad" in more:
            del more["pads"]
        return self.op("Conv", *names, **more)

    def norm(self, x: str, channels: int, **attributes: Any) -> str:
        """Add a BatchNormalization."""
        rng = self.rng
        values = (rng.uniform(0.7, 1.3, channels), rng.normal(0, 0.2, channels),
                  rng.normal(0, 0.2, channels), rng.uniform(0.6, 1.4, channels))  # fmt: skip
        names = [self.constant(each.astype(np.float32)) for each in values]
        return self.op("BatchNormalization", x, *names, **attributes)

    def dense(self, x: str, inputs: int, outputs: int, **attributes: Any) -> str:
        """Add a fully connected layer."""
        weight = self.floats(outputs, inputs, scale=(2 / inputs) ** 0.5)
        if self.opset < 7:
            attributes["broadcast"] = 1
        return self.op("Gemm", x, weight, self.floats(outputs, scale=0.2), transB=1, **attributes)

    def reshape(self, x: str, *shape: int) -> str:
        """Add a Reshape: by an attribute before opset 5."""
        if self.opset < 5:
            return self.op("Reshape", x, shape=list(shape))
        return self.op("Reshape", x, self.constant(np.array(shape, np.int64)))

    def pool(
        self, op: str, x: str, kernel: int, stride: int, pads: Sequence[int] = (0,) * 4
    ) -> str:
        """Add a pooling."""
        return self.op(op, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=list(pads))

    def dropout(self, x: str) -> str:
        """Add a Dropout with its mask, which nothing reads."""
        if self.opset >= 12:
            return self.op("Dropout", x, self.constant(np.float32(0.5)), outputs=2)
        test = {"is_test": 1} if self.opset < 7 else {}
        return self.op("Dropout", x, outputs=2, ratio=0.5, **test)

    def model(self, output: str, shape: Sequence[int]) -> onnx.ModelProto:
        """Make the model: IR version 3, initialisers among the inputs."""
        inputs = [helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [1, *shape])]
        for each in self.tensors:
            inputs.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "classic", inputs, [result], self.tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=3)


def alexnet(opset: int) -> onnx.ModelProto:
    """bvlc_alexnet: LRN behind ReLU, groups, uneven borders, Dropout behind ReLU."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 3, 8, 7, pads=[0] * 4, strides=[2, 2]))
    x = net.op("LRN", x, size=5, alpha=1e-4 * 500, beta=0.75, bias=1.0)
    x = net.pool("MaxPool", x, 3, 2, (0, 0, 1, 1))
    x = net.op("Relu", net.conv(x, 8, 12, 5, group=2))
    x = net.op("LRN", x, size=5, alpha=1e-4 * 500, beta=0.75, bias=1.0)
    x = net.pool("MaxPool", x, 3, 2)
    x = net.op("Relu", net.conv(x, 12, 12, 3, group=2))
    x = net.reshape(x, 1, 12) if opset < 5 else net.reshape(x, 1, -1)
    x = net.dropout(net.op("Relu", net.dense(x, 12, 32)))
    x = net.dense(x, 32, CLASSES)
    return net.model(net.op("Softmax", x, axis=1), (3, 24, 24))


def zfnet(opset: int) -> onnx.ModelProto:
    """zfnet512: LRN behind the pooling, and large fully connected layers."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 3, 8, 7, pads=[1] * 4, strides=[2, 2]))
    x = net.op("LRN", net.pool("MaxPool", x, 3, 2), size=3, alpha=5e-5 * 1000, beta=0.75, bias=1.0)
    x = net.op("Relu", net.conv(x, 8, 12, 5, pads=[0] * 4, strides=[2, 2]))
    x = net.op("LRN", x, size=3, alpha=5e-5 * 1000, beta=0.75, bias=1.0)
    x = net.pool("MaxPool", net.op("Relu", net.conv(x, 12, 16, 3)), 3, 2, (0, 0, 1, 1))
    x = net.reshape(x, 1, 16)
    x = net.dropout(net.op("Relu", net.dense(x, 16, 512)))
    x = net.dropout(net.op("Relu", net.dense(x, 512, 64)))
    return net.model(net.op("Softmax", net.dense(x, 64, CLASSES), axis=1), (3, 48, 48))


def squeezenet(opset: int) -> onnx.ModelProto:
    """squeezenet1.0: concatenated expansions, and a Softmax of images of one pixel."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 3, 8, 3, pads=[0] * 4, strides=[2, 2]))
    x = net.pool("MaxPool", x, 3, 2, (0, 0, 1, 1))
    squeezed = net.op("Relu", net.conv(x, 8, 4, 1))
    wide = [net.op("Relu", net.conv(squeezed, 4, 6, kernel)) for kernel in (1, 3)]
    x = net.dropout(net.op("Concat", *wide, axis=1))
    x = net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 12, CLASSES, 1, pads=[1] * 4)))
    return net.model(net.op("Softmax", x, axis=1), (3, 24, 24))


def googlenet(opset: int) -> onnx.ModelProto:
    """googlenet: four branches, LRN, an average of 7 x 7 that is the whole image."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 3, 8, 7, strides=[2, 2]))
    x = net.op("LRN", net.pool("MaxPool", x, 3, 2, (0, 0, 1, 1)), size=5, alpha=0.05)
    branches = [
        net.op("Relu", net.conv(x, 8, 4, 1)),
        net.op("Relu", net.conv(net.op("Relu", net.conv(x, 8, 3, 1)), 3, 4, 3)),
        net.op("Relu", net.conv(net.op("Relu", net.conv(x, 8, 3, 1)), 3, 4, 5)),
        net.op("Relu", net.conv(net.pool("MaxPool", x, 3, 1, (1,) * 4), 8, 4, 1)),
    ]
    x = net.op("AveragePool", net.op("Concat", *branches, axis=1), kernel_shape=[7, 7])
    x = net.dense(net.reshape(net.dropout(x), 1, 16), 16, CLASSES)
    return net.model(net.op("Softmax", x, axis=1), (3, 28, 28))


def inception(opset: int) -> onnx.ModelProto:
    """inception_v2 of Caffe2: scale and bias of a normalisation apart, unsqueezed constants."""
    net = Classic(opset)

    def scaled(x: str, channels: int) -> str:
        x = net.norm(x, channels, epsilon=1e-5)
        axes: dict[str, Any] = {"axes": [1, 2]}
        x = net.op("Mul", x, net.op("Unsqueeze", net.floats(channels), **axes))
        return net.op("Relu", net.op("Add", x, net.op("Unsqueeze", net.floats(channels), **axes)))

    x = scaled(net.conv("data_0", 3, 8, 3, strides=[2, 2], bias=False), 8)
    average = net.pool("AveragePool", x, 3, 1, (1,) * 4)
    x = net.op("Concat", scaled(net.conv(x, 8, 6, 3), 6), scaled(net.conv(average, 8, 6, 1), 6),
               axis=1)  # fmt: skip
    x = net.op("AveragePool", x, kernel_shape=[6, 6])
    return net.model(net.op("Softmax", net.dense(net.reshape(x, 1, 12), 12, CLASSES)), (3, 12, 12))


def densenet(opset: int) -> onnx.ModelProto:
    """densenet121 of Caffe2: a normalisation before each convolution, its scale apart."""
    net = Classic(opset)

    def layer(x: str, inputs: int, outputs: int) -> str:
        x = net.norm(x, inputs)
        x = net.op("Mul", x, net.op("Unsqueeze", net.floats(inputs), axes=[1, 2]))
        x = net.op("Add", x, net.op("Unsqueeze", net.floats(inputs), axes=[1, 2]))
        return net.conv(net.op("Relu", x), inputs, outputs, 3, bias=False)

    x = net.conv("data_0", 3, 6, 3, bias=False)
    for at in range(3):
        x = net.op("Concat", x, layer(x, 6 + 4 * at, 4), axis=1)
    x = net.op("Relu", net.norm(x, 18))
    return net.model(net.conv(net.op("GlobalAveragePool", x), 18, CLASSES, 1), (3, 12, 12))


def shufflenet(opset: int) -> onnx.ModelProto:
    """Caffe2's shufflenet: groups, channels shuffled by Reshape and Transpose, Sum and Concat."""
    net = Classic(opset)
    x = net.op("Relu", net.norm(net.conv("data_0", 3, 8, 3, strides=[2, 2]), 8))
    y = net.op("Relu", net.norm(net.conv(x, 8, 8, 1, group=2), 8))
    y = net.op("Transpose", net.reshape(y, 1, 2, 4, 6, 6), perm=[0, 2, 1, 3, 4])
    y = net.norm(net.conv(net.reshape(y, 1, 8, 6, 6), 8, 8, 3, group=8), 8)
    x = net.op("Relu", net.op("Sum", x, net.norm(net.conv(y, 8, 8, 1, group=2), 8)))
    y = net.norm(net.conv(x, 8, 8, 3, group=8, strides=[2, 2]), 8)
    x = net.op("Relu", net.op("Concat", net.pool("AveragePool", x, 3, 2, (1,) * 4), y, axis=1))
    x = net.op("AveragePool", x, kernel_shape=[3, 3])
    return net.model(net.op("Softmax", net.dense(net.reshape(x, 1, 16), 16, CLASSES)), (3, 12, 12))


def resnet(opset: int) -> onnx.ModelProto:
    """resnet50 v1 of Caffe2: Sum of the branches, an average, Gemm."""
    net = Classic(opset)
    x = net.op("Relu", net.norm(net.conv("data_0", 3, 8, 7, strides=[2, 2]), 8))
    x = net.pool("MaxPool", x, 3, 2, (1,) * 4)
    y = net.op("Relu", net.norm(net.conv(x, 8, 4, 1, bias=False), 4))
    y = net.op("Relu", net.norm(net.conv(y, 4, 4, 3, bias=False), 4))
    y = net.norm(net.conv(y, 4, 16, 1, bias=False), 16)
    x = net.op("Relu", net.op("Sum", y, net.norm(net.conv(x, 8, 16, 1, bias=False), 16)))
    x = net.reshape(net.op("AveragePool", x, kernel_shape=[6, 6]), 1, 16)
    return net.model(net.op("Softmax", net.dense(x, 16, CLASSES)), (3, 24, 24))


def resnet_v2(opset: int) -> onnx.ModelProto:
    """resnet18v2 of MXNet: a normalisation of the input with scales fixed to 1, preactivation."""
    net = Classic(opset)
    spatial: dict[str, Any] = {"spatial": 1} if opset < 9 else {}
    x = net.conv(net.norm("data_0", 3, **spatial), 3, 8, 3, bias=False)
    y = net.op("Relu", net.norm(x, 8, epsilon=1e-5, momentum=0.9, **spatial))
    short = net.conv(y, 8, 12, 1, bias=False, strides=[2, 2])
    y = net.norm(net.conv(y, 8, 12, 3, bias=False, strides=[2, 2]), 12, **spatial)
    x = net.op("Add", net.conv(net.op("Relu", y), 12, 12, 3, bias=False), short)
    x = net.op("GlobalAveragePool", net.op("Relu", net.norm(x, 12, **spatial)))
    x = net.op("Flatten", x) if opset < 5 else net.reshape(x, 0, -1)
    return net.model(net.dense(x, 12, CLASSES, alpha=1.0, beta=1.0), (3, 12, 12))


def mobilenet(opset: int) -> onnx.ModelProto:
    """mobilenetv2: Clip with attributes, or Relu, and a head that asks for its own shape."""
    net = Classic(opset)

    def six(x: str) -> str:
        if opset >= 11:
            limits = [net.constant(np.float32(each)) for each in (0, 6)]
            return net.op("Clip", x, *limits)
        return net.op("Clip", x, min=0.0, max=6.0)

    x = six(net.norm(net.conv("data_0", 3, 8, 3, bias=False, strides=[2, 2]), 8))
    y = six(net.norm(net.conv(x, 8, 24, 1, bias=False), 24))
    y = six(net.norm(net.conv(y, 24, 24, 3, bias=False, group=24), 24))
    x = net.op("Add", x, net.norm(net.conv(y, 24, 8, 1, bias=False), 8))
    x = net.op("GlobalAveragePool", x)
    batch = net.op("Gather", net.op("Shape", x), net.constant(np.array(0)), axis=0)
    parts = [batch, net.constant(np.array(-1))]
    axes: dict[str, Any] = {"axes": [0]} if opset < 13 else {}
    more = [net.constant(np.array([0]))] if opset >= 13 else []
    parts = [net.op("Unsqueeze", each, *more, **axes) for each in parts]
    x = net.op("Reshape", x, net.op("Concat", *parts, axis=0))
    return net.model(net.dense(x, 8, CLASSES), (3, 16, 16))


def vgg(opset: int) -> onnx.ModelProto:
    """vgg16 of MXNet: Flatten and Dropout between fully connected layers."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 3, 6, 3))
    x = net.pool("MaxPool", net.op("Relu", net.conv(x, 6, 6, 3)), 2, 2)
    x = net.pool("MaxPool", net.op("Relu", net.conv(x, 6, 8, 3)), 2, 2)
    x = net.dropout(net.op("Relu", net.dense(net.op("Flatten", x), 72, 20)))
    x = net.dropout(net.op("Relu", net.dense(net.op("Flatten", x), 20, 16)))
    return net.model(net.dense(net.op("Flatten", x), 16, CLASSES), (3, 12, 12))


def emotion(opset: int) -> onnx.ModelProto:
    """emotion_ferplus of CNTK: its preprocessing in it, SAME borders, MatMul and Add."""
    net = Classic(opset)
    x = net.op("Div", net.op("Sub", "data_0", net.constant(np.float32(0.4))),
               net.constant(np.float32(0.5)))  # fmt: skip
    for inputs, outputs in ((1, 6), (6, 8)):
        x = net.conv(x, inputs, outputs, 3, bias=False, auto_pad="SAME_UPPER", dilations=[1, 1])
        x = net.op("Relu", net.op("Add", x, net.floats(outputs, 1, 1)))
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    x = net.reshape(net.dropout(x), 1, 72)
    x = net.op("MatMul", x, net.reshape(net.floats(8, 3, 3, CLASSES, scale=0.2), 72, CLASSES))
    return net.model(net.op("Add", x, net.floats(CLASSES)), (1, 12, 12))


def yolo(opset: int) -> onnx.ModelProto:
    """tinyyolov2: pixels scaled in it, LeakyRelu, borders of one side, a map as output."""
    net = Classic(opset)
    x = net.op("Mul", "data_0", net.constant(np.float32(1 / 2).reshape(1)))
    x = net.op("Add", x, net.floats(3, 1, 1, scale=0.1))
    for inputs, outputs, stride in ((3, 6, 2), (6, 8, 2), (8, 8, 1)):
        x = net.conv(x, inputs, outputs, 3, bias=False, auto_pad="SAME_UPPER")
        x = net.op("LeakyRelu", net.norm(x, outputs, epsilon=0.001), alpha=0.1)
        same: dict[str, Any] = {"strides": [stride] * 2, "auto_pad": "SAME_UPPER"}
        x = net.op("MaxPool", x, kernel_shape=[2, 2], **same)
    return net.model(net.conv(x, 8, 10, 1), (3, 16, 16))


def channels_last(opset: int) -> onnx.ModelProto:
    """efficientnet-lite4 of tf2onnx: an input (N, H, W, C), Pad, Clip, Squeeze and MatMul."""
    net = Classic(opset)

    def six(x: str) -> str:
        limits = [net.constant(np.float32(each)) for each in (0, 6)]
        return net.op("Clip", x, *limits)

    x = net.op("Transpose", "data_0", perm=[0, 3, 1, 2])
    x = net.op("Pad", x, net.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1])))
    x = six(net.conv(x, 3, 8, 3, pads=[0] * 4, strides=[2, 2]))
    x = six(net.conv(x, 8, 8, 3, auto_pad="SAME_UPPER", group=8))
    y = net.norm(net.conv(x, 8, 8, 1, bias=False), 8)
    x = net.op("Transpose", net.op("Add", x, y), perm=[0, 2, 3, 1])
    x = net.op("ReduceMean", x, axes=[1, 2], keepdims=1)
    axes: dict[str, Any] = {"axes": [1, 2]} if opset < 13 else {}
    more = [net.constant(np.array([1, 2]))] if opset >= 13 else []
    x = net.op("Squeeze", x, *more, **axes)
    x = net.op("Add", net.op("MatMul", x, net.floats(8, CLASSES)), net.floats(CLASSES))
    return net.model(net.op("Softmax", x), (12, 12, 3))


def super_resolution(opset: int) -> onnx.ModelProto:
    """super_resolution of PyTorch: a pixel shuffle of Reshape and Transpose; and an Upsample."""
    net = Classic(opset)
    x = net.op("Relu", net.conv("data_0", 1, 8, 5))
    x = net.conv(x, 8, 4, 3)
    x = net.op("Transpose", net.reshape(x, 1, 1, 2, 2, 8, 8), perm=[0, 1, 4, 2, 5, 3])
    x = net.reshape(x, 1, 1, 16, 16)
    if opset < 9:
        return net.model(net.op("Upsample", x, mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
                         (1, 8, 8))  # fmt: skip
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    kind = "Upsample" if opset < 10 else "Resize"
    return net.model(net.op(kind, x, scales, mode="linear"), (1, 8, 8))


NETWORKS: dict[str, tuple[Callable[[int], onnx.ModelProto], tuple[int, ...]]] = {
    "alexnet": (alexnet, (3, 6, 7, 8, 9, 12)),
    "zfnet": (zfnet, (7, 8, 9, 12)),
    "squeezenet": (squeezenet, (3, 6, 7, 8, 9, 12)),
    "googlenet": (googlenet, (7, 8, 9, 12)),
    "inception": (inception, (7, 8, 9)),
    "densenet": (densenet, (7, 8, 9)),
    "shufflenet": (shufflenet, (7, 8, 9)),
    "resnet": (resnet, (7, 8, 9, 12)),
    "resnet v2": (resnet_v2, (7, 8, 9, 12)),
    "mobilenet v2": (mobilenet, (7, 10, 12, 13)),
    "vgg": (vgg, (7, 8, 12)),
    "emotion": (emotion, (7, 8)),
    "tiny yolo v2": (yolo, (7, 8)),
    "efficientnet lite": (channels_last, (11, 12, 13)),
    "super-resolution": (super_resolution, (7, 8, 9, 10)),
}
"""What makes each network, and the opsets that it is tried in."""
