"""Read a trained network from an ONNX file.

The operators are those of feed-forward image classifiers:

- Conv, ConvTranspose, Gemm, MatMul and Einsum with constant weights, on either side; of images
  (N, C, H, W) or lines (N, C, L);
- BatchNormalization, and Add, Sub, Mul, Div and Neg between a tensor and constants;
- Add, Sub, Mul and Div of two tensors, and Sum, Mean, Max and Min of any number;
- Relu, Clip, HardSigmoid, and Max and Min with constants;
- functions of each value alone, which become tables: Abs, Ceil, Celu, Cos, Elu, Erf, Exp, Floor,
  Gelu, HardSwish, LeakyRelu, Log, Mish, PRelu, Pow with a constant exponent, Reciprocal, Round,
  Selu, Shrink, Sigmoid, Sign, Sin, Softplus, Softsign, Sqrt, Swish, Tanh and ThresholdedRelu, and
  whatever several nodes make of one tensor, with Where, Greater, GreaterOrEqual, Less, LessOrEqual,
  And, Or and Not among them;
- LRN, InstanceNormalization, GroupNormalization, LayerNormalization, RMSNormalization, and Softmax
  and LogSoftmax before other nodes: averages, products and tables;
- MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, ReduceMax, ReduceMean, ReduceMin,
  ReduceSum, ReduceL1, ReduceL2 and ReduceSumSquare;
- operators that only move values: Flatten, Reshape, Transpose, Squeeze, Unsqueeze, Slice, Split,
  Pad, Concat, DepthToSpace, Expand, Tile, Gather with constant indices, and Resize and Upsample to
  the nearest value;
- Resize and Upsample between values, linear or cubic, along one axis after the other;
- QuantizeLinear and DequantizeLinear;
- Identity, Dropout and Cast, which do nothing here, and Softmax, LogSoftmax or ArgMax as the
  last step, which is left out, since it does not change which class is largest;
- If where constants and sizes decide it.

:func:`refmodel.exchange.onnx.registry.supported` lists them. Nodes that compute only with constants
are worked out while reading, so the chains that exporters write around Reshape are no obstacle.

Normalisation and arithmetic with constants go into the gain and bias of the convolution or matrix
product before them. Where there is none, or something else reads its output too, they become a
convolution of their own: depthwise, 1x1, every weight 1.

In quantised networks, QuantizeLinear becomes a :class:`~refmodel.network.graph.FakeQuant`, whose
scale and zero point the integer network then has; weights behind a DequantizeLinear stay the
integers that they are, as long as they less their zero point fit signed 8 bits and have one scale,
or one to an output. Other weights are taken as the real numbers that they stand for.

The first axis of the network's input is the batch and stays free, also where the file fixes it.
"""

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.inliner

from refmodel.compression import tuned, tuned_file
from refmodel.errors import InputError
from refmodel.exchange.onnx.advice import export_advice
from refmodel.exchange.onnx.branches import with_branches
from refmodel.exchange.onnx.builder import one_line
from refmodel.exchange.onnx.importer import Importer
from refmodel.exchange.onnx.inputs import real_input
from refmodel.exchange.onnx.qoperator import as_qdq
from refmodel.network.graph import FloatNetwork, Matrix


def load_onnx(path: str | Path) -> FloatNetwork:
    """Read the network in an ONNX file.

    Parameters
    ----------
    path
        The file; weights kept in files beside it are read too.

    Returns
    -------
    FloatNetwork
        Weights as float32; BatchNormalization apart from them, as gain and bias of its layer. The
        mappings of a fine-tuned network, if the file has them (:mod:`refmodel.compression.tuned`).

    Raises
    ------
    InputError
        The file cannot be read, is not ONNX, or holds an operator, a shape or a weight that is
        not supported, or mappings that are damaged or do not give its weights. The message names
        the node or initialiser.
    """
    source = str(path)
    return import_model(parse(path, source), source)


def import_model(written: onnx.ModelProto, source: str) -> FloatNetwork:
    """Import the network in the content of an ONNX file: see :func:`load_onnx`.

    Parameters
    ----------
    written
        The content, weights included.
    source
        The file, for messages.
    """
    for output in written.graph.output:  # whose shape nothing here asks for, but the checker does
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    model = _decided(real_input(as_qdq(_inlined(written, source), source)), source)
    importer = Importer(model, source)
    importer.refuse_unknown_operators()
    _check(written, source)
    network = importer.network()
    if not any(isinstance(node, Matrix) for node in network.nodes):
        raise InputError(
            f"expected a network with a convolution or fully connected layer, found none, "
            f"in {source}"
        )
    carried = [each.value for each in written.metadata_props if each.key == tuned.KEY]
    if not carried:
        return network
    return replace(network, tuned=tuned_file.decode(carried[0], network))


def parse(path: str | Path, source: str) -> onnx.ModelProto:
    """Read the content of an ONNX file, as far as it is one.

    Parameters
    ----------
    path
        The file.
    source
        Its name, for messages.

    Raises
    ------
    InputError
        The file cannot be read or is no ONNX file, or weights are missing.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(f"expected a readable ONNX file, found: {found}, in {source}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # the class of protobuf's error depends on its implementation
        raise InputError(
            f"expected an ONNX file, found {len(content)} bytes that are none, in {source}"
            + export_advice(source)
        ) from error
    if not model.graph.node:
        raise InputError(
            f"expected an ONNX file, found {len(content)} bytes without a network, in {source}"
            + export_advice(source)
        )
    try:
        onnx.load_external_data_for_model(model, str(Path(path).resolve().parent))
    except Exception as error:  # a missing file, one too short, or a path that leaves the folder
        raise InputError(
            f"expected the network's external data, found: {one_line(error)}, in {source}"
        ) from error
    return model


def _inlined(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Put the nodes of the functions that a file defines in the place of their calls."""
    if not model.functions:
        return model
    _check(model, source)  # functions that call each other in a circle, among others
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # whatever the C++ side throws
        raise InputError(
            f"expected functions that can be written out, found: {one_line(error)}, in {source}"
        ) from error


def _decided(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Put the branch that is taken in the place of each If."""
    importer = Importer(model, source, deciding=True)
    if not importer.has_branches():
        return model
    importer.refuse_unknown_operators()
    _check(model, source)
    importer.network()
    return with_branches(model, importer.decided)


def _check(model: onnx.ModelProto, source: str) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, but also whatever the C++ side throws
        raise InputError(
            f"expected a valid ONNX network, found: {one_line(error)}, in {source}"
        ) from error
