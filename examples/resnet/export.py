"""Write published CIFAR-10 ResNets as ONNX networks: python examples/resnet/export.py FILE -o NET.

README.md says where the files come from. Two layouts are known, told apart by their names:

- akamaster's (``layer1.0.conv1.weight``, ``linear.weight``): where a stage narrows the image, the
  shortcut is every second pixel with zero channels on both sides (option A);
- CrossSim's (``res1.0.conv1.weight`` ... ``classifier.2.weight``): there it is a 1x1 convolution
  with BatchNormalization.

PyTorch is not needed. The same file and options give the same bytes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refmodel.errors import InputError
from refmodel.exchange.torch_files import state_dict

SIZE = 32
"""Pixels on a side of a CIFAR image."""

EPSILON = 1e-5
CROSSSIM_STEM_EPSILON = 1e-3

OPSET, IR_VERSION = 17, 8


class Builder:
    """Nodes and constants of a network while it grows."""

    def __init__(self, state: dict[str, np.ndarray], *, fuse: bool) -> None:
        self.state, self.fuse = state, fuse
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        """Add a node that computes the tensor ``name``."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant, once."""
        self.constants[name] = values
        return name

    def parameter(self, name: str) -> np.ndarray:
        """Give a parameter in the file by its name."""
        if name not in self.state:
            raise InputError(f"expected the parameter {name!r}, found none of that name")
        return self.state[name]

    def conv(self, x: str, conv: str, norm: str, *, stride: int = 1, epsilon: float) -> str:
        """Convolution that keeps the size, and BatchNormalization, folded or apart."""
        weight = self.parameter(f"{conv}.weight")
        scale, shift, mean, variance = (
            self.parameter(f"{norm}.{part}")
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        pad = weight.shape[2] // 2
        window = {"kernel_shape": weight.shape[2:], "pads": [pad] * 4, "strides": [stride] * 2}
        if self.fuse:
            gain = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
            bias = shift - mean * gain
            folded = weight * gain[:, None, None, None]
            names = [
                self.constant(f"{conv}.weight", folded.astype(np.float32)),
                self.constant(f"{conv}.bias", bias.astype(np.float32)),
            ]
            return self.node("Conv", [x, *names], conv, **window)
        y = self.node("Conv", [x, self.constant(f"{conv}.weight", weight)], conv, **window)
        names = [
            self.constant(f"{norm}.{name}", values)
            for name, values in zip(
                ("weight", "bias", "running_mean", "running_var"),
                (scale, shift, mean, variance),
                strict=True,
            )
        ]
        return self.node("BatchNormalization", [y, *names], norm, epsilon=epsilon)

    def narrow(self, x: str, name: str, channels: int) -> str:
        """Shortcut of option A: every second pixel, ``channels`` zero channels on each side."""
        limits = {"starts": [0, 0], "ends": [SIZE, SIZE], "axes": [2, 3], "steps": [2, 2]}
        names = [
            self.constant(f"shortcut.{key}", np.array(values, np.int64))
            for key, values in limits.items()
        ]
        x = self.node("Slice", [x, *names], f"{name}.slice")
        pads = np.array([0, channels, 0, 0, 0, channels, 0, 0], np.int64)
        return self.node("Pad", [x, self.constant(f"{name}.pads", pads)], f"{name}.pad")

    def block(self, x: str, name: str, stride: int) -> str:
        """Two convolutions and a shortcut."""
        y = self.conv(x, f"{name}.conv1", f"{name}.bn1", stride=stride, epsilon=EPSILON)
        y = self.node("Relu", [y], f"{name}.relu1")
        y = self.conv(y, f"{name}.conv2", f"{name}.bn2", epsilon=EPSILON)
        if f"{name}.downsample.0.weight" in self.state:
            down = f"{name}.downsample"
            x = self.conv(x, f"{down}.0", f"{down}.1", stride=stride, epsilon=EPSILON)
        elif stride != 1:
            outputs, inputs = self.parameter(f"{name}.conv1.weight").shape[:2]
            x = self.narrow(x, name, (outputs - inputs) // 2)
        y = self.node("Add", [y, x], f"{name}.add")
        return self.node("Relu", [y], f"{name}.relu2")


def build(state: dict[str, np.ndarray], *, fuse: bool = False) -> onnx.ModelProto:
    """Build the network of a state dict.

    Parameters
    ----------
    state
        Parameters by name, as :func:`refmodel.exchange.torch_files.state_dict` reads them.
    fuse
        Fold BatchNormalization into the convolutions.

    Returns
    -------
    Network from (N, 3, 32, 32), normalised images, to (N, 10).
    """
    crosssim = "classifier.2.weight" in state
    stage_name, last = ("res", "classifier.2") if crosssim else ("layer", "linear")
    builder = Builder(state, fuse=fuse)
    x = builder.conv(
        "image", "conv1", "bn1", epsilon=CROSSSIM_STEM_EPSILON if crosssim else EPSILON
    )
    x = builder.node("Relu", [x], "relu1")
    for stage in (1, 2, 3):
        blocks = 0
        while f"{stage_name}{stage}.{blocks}.conv1.weight" in state:
            stride = 2 if stage > 1 and blocks == 0 else 1
            x = builder.block(x, f"{stage_name}{stage}.{blocks}", stride)
            blocks += 1
        if not blocks:
            raise InputError(f"expected blocks {stage_name}{stage}.*, found none")
    x = builder.node("GlobalAveragePool", [x], "pool")
    x = builder.node("Flatten", [x], "flat")
    names = [
        builder.constant(f"{last}.{part}", builder.parameter(f"{last}.{part}"))
        for part in ("weight", "bias")
    ]
    builder.node("Gemm", [x, *names], "logits", transB=1)

    graph = helper.make_graph(
        builder.nodes,
        "resnet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("N", 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("N", 10))],
        [
            numpy_helper.from_array(np.ascontiguousarray(values), name)
            for name, values in builder.constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="prap-pim"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when the network is written, 2 on bad input."""
    parser = argparse.ArgumentParser(description="Write a published CIFAR-10 ResNet as ONNX.")
    parser.add_argument("file", type=Path, help="resnetNN-*.th or crosssim_resnetNN_cifar10.pth")
    parser.add_argument("-o", "--out", type=Path, required=True, help="network to write")
    parser.add_argument("--fuse", action="store_true", help="fold BatchNormalization")
    options = parser.parse_args(arguments)
    try:
        model = build(state_dict(options.file), fuse=options.fuse)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(model.SerializeToString(deterministic=True))
    except (InputError, OSError) as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
