"""A network of :mod:`refmodel.network.graph` as a PyTorch module.

Every node that ONNX import makes has its counterpart: Matrix (Conv, Gemm, MatMul), Add, Clip (Relu,
Relu6, Clip), MaxPool, AveragePool (GlobalAveragePool too), Rearrange (Flatten, Reshape, Transpose,
Slice, Pad, ...), Concat, functions of single values (Sigmoid, Gelu, ...) and Mul. Networks that are
quantised already are refused: they have no weights that could be trained.

In training, the output of every Matrix but the last is normalised to the statistics of its batch
and brought to a learnt mean and deviation: BatchNormalization, whether the file has one, has it
folded into the weights, or has none. Where training starts, these are the mean and deviation that
the trained network has, so that a layer whose weights were mapped begins with matched moments. In
the end the statistics are estimated once more, and all becomes gain and bias again, which cost
nothing in hardware.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from refmodel.errors import InputError
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FakeQuant,
    FloatNetwork,
    Function,
    Matrix,
    MaxPool,
    Node,
    Product,
    Rearrange,
)
from refmodel.train.functions import evaluate

EPSILON = 1e-5
"""Added to a variance, in shares of the mean variance of the layer's outputs."""


class TorchNetwork(nn.Module):
    """A float network that can be trained.

    Parameters
    ----------
    network
        The network.
    weights
        For some layers, by name, a module without inputs that gives the weights
        [out, in / groups, kh, kw]; the others have a parameter.

    Attributes
    ----------
    layers
        One :class:`MatrixModule` to a Matrix, by number.
    """

    def __init__(
        self, network: FloatNetwork, weights: Mapping[str, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = nn.ModuleList()
        self.number: dict[str, int] = {}
        self.constant: dict[str, str] = {}
        last = _last(network)
        for node in network.nodes:
            if isinstance(node, FakeQuant) or (isinstance(node, Matrix) and node.exact):
                raise InputError(
                    f"expected a network in floating point, found quantised values at "
                    f"{node.name!r} of {network.source}"
                )
            if isinstance(node, Matrix):
                self.number[node.name] = len(self.layers)
                own = None if weights is None else weights.get(node.name)
                self.layers.append(MatrixModule(node, own, normalised=node.name not in last))
            elif isinstance(node, Rearrange):
                self._constant(node, node.index.astype(np.int64))
            elif isinstance(node, AveragePool):
                self._constant(node, node.counts.astype(np.float32))
        self.left = network.consumers()

    def _constant(self, node: Node, values: NDArray) -> None:
        self.constant[node.name] = f"constant{len(self.constant)}"
        self.register_buffer(self.constant[node.name], torch.from_numpy(values), persistent=False)

    def layer(self, name: str) -> "MatrixModule":
        """Find the module of a Matrix."""
        found = self.layers[self.number[name]]
        assert isinstance(found, MatrixModule)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output for a batch, (N, *input_shape) to (N, F)."""
        left = dict(self.left)
        tensors = {self.network.input: x}
        for node in self.network.nodes:
            inputs = [tensors[name] for name in node.inputs]
            tensors[node.output] = self._compute(node, inputs)
            for name in node.inputs:
                left[name] -= 1
                if not left[name]:
                    tensors.pop(name, None)
        return tensors[self.network.output].flatten(1)

    def _compute(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        match node:
            case Matrix():
                return self.layer(node.name)(x)
            case Add():
                return x + inputs[1]
            case Clip():
                relu = (node.lo, node.hi) == (0.0, np.inf)
                return functional.relu(x) if relu else x.clamp(node.lo, node.hi)
            case MaxPool():
                padded = _padded(x, node.pads, -float("inf"))
                return functional.max_pool2d(padded, node.kernel, node.stride)
            case AveragePool():
                padded = _padded(x, node.pads, 0.0)
                total = functional.avg_pool2d(padded, node.kernel, node.stride, divisor_override=1)
                return total / self.get_buffer(self.constant[node.name])
            case Function():
                return evaluate(node.term, x)
            case Product():
                return x * inputs[1]
            case Concat():
                return torch.cat(inputs, node.axis + 1)
            case Rearrange():
                return self._rearrange(node, x)
            case _:
                raise TypeError(f"no module for {node!r}")

    def _rearrange(self, node: Rearrange, x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1)
        index = self.get_buffer(self.constant[node.name])
        if len(node.index) == flat.shape[1] and (node.index == np.arange(len(node.index))).all():
            return flat.reshape(len(x), *node.shape)
        if node.index.min() < 0:
            flat = functional.pad(flat, (0, 1))  # -1, the last one, is 0
            index = index % flat.shape[1]
        return flat.index_select(1, index).reshape(len(x), *node.shape)

    @torch.no_grad()
    def normalise_as(self, other: "TorchNetwork", batches: list[Tensor]) -> None:
        """Begin to normalise: every output gets the mean and deviation that it has in ``other``.

        Parameters
        ----------
        other
            A network of the same layers that is not normalised.
        batches
            Network inputs, some batches (N, *input_shape).
        """
        other._estimate(batches, normalise=False)
        for mine, its in zip(self.layers, other.layers, strict=True):
            assert isinstance(mine, MatrixModule)
            assert isinstance(its, MatrixModule)
            mine.normalise_as(its)
        self.estimate_statistics(batches)
        for layer in self.layers:
            assert isinstance(layer, MatrixModule)
            layer.settle_epsilon()

    @torch.no_grad()
    def estimate_statistics(self, batches: list[Tensor]) -> None:
        """Estimate the statistics of every normalised layer anew, with today's weights.

        Layer after layer sees its inputs normalised by the statistics of the batch.
        """
        self._estimate(batches, normalise=True)

    def _estimate(self, batches: list[Tensor], *, normalise: bool) -> None:
        mode = self.training
        self.train(normalise)
        for layer in self.layers:
            assert isinstance(layer, MatrixModule)
            layer.begin_statistics()
        for batch in batches:
            self(batch)
        for layer in self.layers:
            assert isinstance(layer, MatrixModule)
            layer.end_statistics()
        self.train(mode)


class MatrixModule(nn.Module):
    """One layer: weights, and gain and bias or a normalisation.

    Until :meth:`normalise_as`, and for a last layer throughout, the output is
    ``gain * (weight . x) + bias`` as the node has it; later ``gain * (y - mean(y)) / sd(y) + bias``
    of y = weight . x, with the moments of the batch in training and estimated ones otherwise.
    """

    def __init__(self, node: Matrix, weight: nn.Module | None, *, normalised: bool) -> None:
        super().__init__()
        self.node = node
        self.normalised = normalised
        self.started = False
        self.made = weight
        outputs = len(node.weight)
        if weight is None:
            self.weight = nn.Parameter(torch.from_numpy(node.weight.copy()))
        zeros = torch.zeros(outputs)
        self.gain = nn.Parameter(_floats(node.gain))
        self.bias = nn.Parameter(_floats(node.bias))
        self.register_buffer("mean", zeros.clone())
        self.register_buffer("variance", zeros + 1)
        self.register_buffer("epsilon", torch.tensor(EPSILON))
        self.sums: tuple[Tensor, Tensor] | None = None
        self.count = 0

    def weights(self) -> Tensor:
        """Weights [out, in / groups, kh, kw] of today."""
        return self.weight if self.made is None else self.made()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output of a batch in ONNX order."""
        weight = self.weights()
        if self.sums is None and not (self.normalised and self.started):
            return self._product(x, weight * self.gain.reshape(-1, 1, 1, 1), self.bias)
        y = self._product(x, weight, None)
        if self.sums is not None:
            axes = (0, *range(2, y.ndim))
            wide = y.double()
            total, square = self.sums
            self.sums = total + wide.sum(axes), square + wide.square().sum(axes)
            self.count += y.numel() // y.shape[1]
        if not (self.normalised and self.started):
            shape = (-1, *(1,) * (y.ndim - 2))
            return y * self.gain.reshape(shape) + self.bias.reshape(shape)
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        if self.training:  # the batch's own
            mean, variance = None, None
        return functional.batch_norm(
            y,
            mean,
            variance,
            self.gain,
            self.bias,
            training=self.training,
            eps=self.epsilon_value,
        )

    @property
    def epsilon_value(self) -> float:
        """The constant that is added to the variance."""
        return float(self.get_buffer("epsilon"))

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        node = self.node
        if x.ndim == 2 and node.groups == 1:
            return functional.linear(x, weight.flatten(1), bias)
        if x.ndim < 4:
            x = x[:, :, None, None] if x.ndim == 2 else x[:, None]
        top, left, bottom, right = node.pads
        pads = (top, left)
        if (top, left) != (bottom, right):
            x, pads = _padded(x, node.pads, 0.0), (0, 0)
        y = functional.conv2d(x, weight, bias, node.stride, pads, node.dilation, node.groups)
        return y.reshape(len(x), *node.shape)

    def begin_statistics(self) -> None:
        """Add up means and squares from now on."""
        zeros = torch.zeros_like(self.get_buffer("mean"), dtype=torch.float64)
        self.sums, self.count = (zeros, zeros.clone()), 0

    def end_statistics(self) -> None:
        """Take mean and variance of what was added up."""
        assert self.sums is not None
        mean, square = (total / max(self.count, 1) for total in self.sums)
        variance = (square - mean.square()).clamp_min(0)
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("variance").copy_(variance)
        self.sums = None

    def normalise_as(self, other: "MatrixModule") -> None:
        """Begin to normalise, to the mean and deviation of what ``other`` puts out."""
        if not self.normalised:
            return
        mean, variance = other.get_buffer("mean"), other.get_buffer("variance")
        self.get_buffer("epsilon").copy_(EPSILON * variance.mean().clamp_min(1e-30))
        deviation = (variance + self.epsilon_value).sqrt()
        self.bias.data.copy_(other.bias + other.gain * mean)
        # The weights may be in other units; the sign of the gain is theirs.
        self.gain.data.copy_(other.gain * deviation)
        self.started = True

    def settle_epsilon(self) -> None:
        """Take the share of the variance that is added to it of today's variance."""
        variance = self.get_buffer("variance")
        self.get_buffer("epsilon").copy_(EPSILON * variance.mean().clamp_min(1e-30))

    def folded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gain and bias [out] of today, for ``gain * (weight . x) + bias``."""
        gain, bias = (each.detach().double().cpu().numpy() for each in (self.gain, self.bias))
        if not (self.normalised and self.started):
            return gain, bias
        mean, variance = (
            self.get_buffer(name).double().cpu().numpy() for name in ("mean", "variance")
        )
        gain = gain / np.sqrt(variance + self.epsilon_value)
        return gain, bias - gain * mean


def folded_network(module: TorchNetwork) -> FloatNetwork:
    """Turn a module back into a network, its normalisations into gain and bias."""
    nodes = []
    for node in module.network.nodes:
        if isinstance(node, Matrix):
            layer = module.layer(node.name)
            gain, bias = layer.folded()
            weight = layer.weights().detach().float().cpu().numpy()
            node = replace(node, weight=np.ascontiguousarray(weight), gain=gain, bias=bias)
        nodes.append(node)
    return replace(module.network, nodes=tuple(nodes))


def _last(network: FloatNetwork) -> set[str]:
    """Names of the matrices whose outputs are the network's, but for their order."""
    producers = {node.output: node for node in network.nodes}
    node = producers.get(network.output)
    while isinstance(node, Rearrange):
        node = producers.get(node.inputs[0])
    return {node.name} if isinstance(node, Matrix) else set()


def _padded(x: Tensor, pads: tuple[int, int, int, int], value: float) -> Tensor:
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _floats(values: NDArray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32).copy())
