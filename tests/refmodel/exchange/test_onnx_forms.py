"""Forms in which exporters and quantisers write networks, against onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

import refmodel
from refmodel.errors import InputError
from refmodel.exchange import load
from refmodel.exchange.load import copy_as_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.exchange.onnx.qoperator import REWRITES
from refmodel.network.graph import Matrix
from tests.support.nets.node_cases import node_cases
from tests.support.nets.onnx_cases import CONV, SEED, ints, relative, runtime
from tests.support.nets.onnx_nets import f32, floats, network, node, reference, save, small_cnn

onnxruntime.set_default_logger_severity(3)


def compare(model: onnx.ModelProto, folder: Path, shape, *, batch: int = 1) -> None:
    """The imported network computes what onnxruntime does, also for other batches."""
    loaded = load_onnx(save(model, folder))
    x = floats(SEED, 2 * batch, *shape)
    expected = np.concatenate([runtime(model, each) for each in (x[:batch], x[batch:])])
    assert relative(loaded.forward(x), expected) <= 1e-5
    assert relative(loaded.forward(x[:1]), expected[:1]) <= 1e-5


# Channels last, as tf2onnx writes networks of Keras


def keras_like(batch: int | str = "N") -> onnx.ModelProto:
    """A MobileNet block in NHWC: Transposes around each operator, SAME padding, depthwise."""
    constants = {
        "w": floats(SEED, 8, 3, 3, 3) / 5,
        "b": floats(SEED + 1, 1, 8, 1, 1),
        "d_hwcm": floats(SEED + 2, 3, 3, 8, 1) / 3,
        "d_shape": ints(8, 1, 3, 3),
        "p": floats(SEED + 3, 8, 8, 1, 1) / 3,
        "six": f32(6),
        "zero": f32(0),
        "flat": ints(-1, 8 * 4 * 4),
        "v": floats(SEED + 4, 128, 5) / 9,
        "e": floats(SEED + 5, 5),
        "pads": ints(0, 1, 1, 0, 0, 1, 1, 0),
    }
    nodes = [
        node("Pad", "x pads", "padded"),
        node("Transpose", "padded", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first w", "c", strides=[2, 2], auto_pad="VALID"),
        node("Add", "c b", "biased"),
        node("Transpose", "biased", "last", perm=[0, 2, 3, 1]),
        node("Clip", "last zero six", "r"),
        node("Transpose", "r", "first2", perm=[0, 3, 1, 2]),
        # The weights of a depthwise convolution, (h, w, in, multiplier), by constants alone
        node("Transpose", "d_hwcm", "d_chw", perm=[2, 3, 0, 1]),
        node("Reshape", "d_chw d_shape", "d"),
        node("Conv", "first2 d", "dw", group=8, auto_pad="SAME_UPPER"),
        node("Relu", "dw", "dr"),
        node("Conv", "dr p", "pw"),
        node("Transpose", "pw", "last2", perm=[0, 2, 3, 1]),
        node("Add", "last2 r", "sum"),
        node("Relu", "sum", "sr"),
        node("Reshape", "sr flat", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m e", "y"),
    ]
    return network(nodes, constants, (batch, 8, 8, 3), opset=15)


def test_channels_last_as_tf2onnx_writes_them(tmp_path):
    compare(keras_like(), tmp_path, (8, 8, 3))


def test_a_mean_over_pixels_in_channels_last(tmp_path):
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w b", "c"),
        node("Transpose", "c", "l", perm=[0, 2, 3, 1]),
        node("ReduceMean", "l", "m", axes=[1, 2], keepdims=0),
        node("Gemm", "m v", "y"),
    ]
    model = network(nodes, CONV | {"v": floats(SEED, 4, 3)}, ("N", 6, 6, 2))
    compare(model, tmp_path, (6, 6, 2))


# Several images fixed in the batch


def test_a_batch_of_several_images_that_the_file_fixes(tmp_path):
    nodes = [
        node("Conv", "x w b", "c"),
        node("Reshape", "c s", "r"),
        node("Gemm", "r v", "y"),
    ]
    constants = CONV | {"s": ints(4, 64), "v": floats(SEED, 64, 3)}
    compare(network(nodes, constants, (4, 2, 6, 6)), tmp_path, (2, 6, 6), batch=4)
    compare(keras_like(3), tmp_path, (8, 8, 3), batch=3)


def test_a_reshape_that_mixes_images_of_a_fixed_batch_is_refused(tmp_path):
    nodes = [node("Conv", "x w b", "c"), node("Reshape", "c s", "r"), node("Gemm", "r v", "y")]
    constants = CONV | {"s": ints(2, 128), "v": floats(SEED, 128, 3)}
    with pytest.raises(InputError, match="keeps the batch first and the number of values"):
        load_onnx(save(network(nodes, constants, (4, 2, 6, 6)), tmp_path))


# Types, files, functions, branches, names


def converted(model: onnx.ModelProto, dtype: type) -> onnx.ModelProto:
    """The model with all constants in floating point, and the input, of another type."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for value in (*result.graph.input, *result.graph.output):
        value.type.tensor_type.elem_type = kind
    return result


@pytest.mark.parametrize(("dtype", "bound"), [(np.float16, 5e-3), (np.float64, 1e-5)])
def test_weights_of_other_types(dtype, bound, tmp_path):
    model = converted(small_cnn(SEED), dtype)
    loaded = load_onnx(save(model, tmp_path))
    # Before the Softmax, in onnx's own evaluator: onnxruntime has no convolution in float64.
    before = converted(small_cnn(SEED), dtype)
    del before.graph.node[-1]
    before.graph.output[0].name = "logits"
    x = floats(SEED, 4, 2, 8, 8)
    assert relative(loaded.forward(x), reference(before, x.astype(dtype)).astype(float)) <= bound


def test_float16_between_casts(tmp_path):
    cast = {"to": TensorProto.FLOAT16}
    half = {name: values.astype(np.float16) for name, values in CONV.items()}
    nodes = [
        node("Cast", "x", "h", **cast),
        node("Conv", "h w b", "c"),
        node("Cast", "c", "y", to=TensorProto.FLOAT),
    ]
    model = network(nodes, half, ("N", 2, 6, 6))
    x = floats(SEED, 3, 2, 6, 6)
    found = load_onnx(save(model, tmp_path)).forward(x)
    assert relative(found, runtime(model, x)) <= 5e-3


class TooLarge:
    """What protobuf does with a network of more than 2 GB, which tests have no memory for."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        raise EncodeError("Failed to serialize proto")


def test_weights_in_a_file_beside_the_network(tmp_path, monkeypatch):
    model, path = small_cnn(SEED), tmp_path / "net.onnx"
    expected = load_onnx(save(model, tmp_path)).forward(floats(SEED, 2, 2, 8, 8))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.stat().st_size < (tmp_path / "weights.bin").stat().st_size
    np.testing.assert_array_equal(load_onnx(path).forward(floats(SEED, 2, 2, 8, 8)), expected)
    # A copy has them inside.
    copy_as_onnx(path, tmp_path / "copy.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(load, "parse", lambda *_: TooLarge())
        with pytest.raises(InputError, match="of less than 2 GB"):
            copy_as_onnx(path, tmp_path / "large.onnx")
    assert not (tmp_path / "large.onnx").exists()
    (tmp_path / "weights.bin").unlink()
    found = load_onnx(tmp_path / "copy.onnx")
    np.testing.assert_array_equal(found.forward(floats(SEED, 2, 2, 8, 8)), expected)


def test_a_network_with_its_weights_is_copied_as_it_is(tmp_path, monkeypatch):
    path = save(small_cnn(SEED), tmp_path)
    copy_as_onnx(path, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
    # The mark is found where it lies across two pieces of the file.
    monkeypatch.setattr(load, "_CHUNK", 16)
    path.write_bytes(b"x" * 9 + load.EXTERNAL)
    with pytest.raises(InputError, match="expected an ONNX file"):
        copy_as_onnx(path, tmp_path / "copy.onnx")


def with_functions(*, circle: bool = False) -> onnx.ModelProto:
    """A network of two calls of a function, which calls another one."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    limit = helper.make_function(
        "local", "Limit", ["a"], ["r"],
        [helper.make_node("Block" if circle else "Relu", ["a", "a"][: 1 + circle], ["r"],
                          domain="local" if circle else "")],
        opsets,
    )  # fmt: skip
    block = helper.make_function(
        "local", "Block", ["a", "w"], ["r"],
        [
            helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Limit", ["c"], ["r"], domain="local"),
        ],
        opsets,
    )  # fmt: skip
    nodes = [
        helper.make_node("Block", ["x", "w"], ["t"], name="one", domain="local"),
        helper.make_node("Block", ["t", "v"], ["y"], name="two", domain="local"),
    ]
    model = network(nodes, {"w": CONV["w"], "v": floats(SEED, 3, 4, 3, 3)}, ("N", 2, 6, 6))
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.functions.extend([limit, block])
    return model


def test_functions_of_the_file(tmp_path):
    compare(with_functions(), tmp_path, (2, 6, 6))


def test_functions_that_call_each_other_are_refused(tmp_path):
    with pytest.raises(InputError, match="found"):
        load_onnx(save(with_functions(circle=True), tmp_path))


def test_branches_that_nothing_reads_may_have_any_operator(tmp_path):
    model = small_cnn(SEED)
    model.graph.node.insert(1, node("Sin", "c1", "dead"))
    model.graph.node.insert(2, helper.make_node("NoSuch", ["dead"], ["dead2"], domain="some.where"))
    model.opset_import.append(helper.make_opsetid("some.where", 1))
    loaded = load_onnx(save(model, tmp_path))
    expected = load_onnx(save(small_cnn(SEED), tmp_path))
    x = floats(SEED, 2, 2, 8, 8)
    np.testing.assert_array_equal(loaded.forward(x), expected.forward(x))


NAMES = {
    "unicode": "层/卷积 é\u0301 🙂 {0}",
    "blanks and quotes": "a 'b' \"c\" \\ / : * ? {0}",
    "very long": "block/" * 200 + "{0}",
    "only numbers": "{0}",
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_any_kind_through_compression_and_evaluation(kind, tmp_path):
    model = small_cnn(SEED)
    names = {name for each in model.graph.node for name in (*each.input, *each.output)} - {"x", "y"}
    new = {name: NAMES[kind].format(at) for at, name in enumerate(sorted(names))}
    for each in model.graph.node:
        each.name = f"{NAMES[kind].format(each.name)}"
        each.input[:] = [new.get(name, name) for name in each.input]
        each.output[:] = [new.get(name, name) for name in each.output]
    for tensor in model.graph.initializer:
        tensor.name = new[tensor.name]
    x = floats(SEED, 8, 2, 8, 8)
    program = refmodel.load(save(model, tmp_path)).compress(x)
    program.save(tmp_path / "net.prap")
    again = refmodel.Program.load(tmp_path / "net.prap")
    expected = refmodel.load(save(small_cnn(SEED), tmp_path)).compress(x)
    np.testing.assert_array_equal(again.logits(x), expected.logits(x))
    assert len({layer.name for layer in again.layers}) == 3


# Quantised


def qlinear_case(case) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """ONNX's case of an operator on codes, with its first input quantised in the network."""
    names, codes = list(case.node.input), dict(zip(case.node.input, case.inputs, strict=True))
    first, scale, zero = names[:3]
    x = (codes[first].astype(np.float64) - codes[zero]) * codes[scale]
    y_scale, y_zero = names[6:8]
    nodes = [
        helper.make_node("QuantizeLinear", ["x_", scale, zero], [first]),
        case.node,
        helper.make_node("DequantizeLinear", [case.node.output[0], y_scale, y_zero], ["y_"]),
    ]
    expected = (case.outputs[0].astype(np.float64) - codes[y_zero]) * codes[y_scale]
    graph = helper.make_graph(
        nodes,
        case.name,
        [helper.make_tensor_value_info("x_", TensorProto.FLOAT, ("N", *x.shape[1:]))],
        [helper.make_tensor_value_info("y_", TensorProto.FLOAT, expected.shape)],
        [numpy_helper.from_array(np.asarray(codes[name]), name) for name in names[1:]],
    )
    opsets = [helper.make_opsetid("", max(case.opset, 13))]
    return helper.make_model(graph, opset_imports=opsets), x.astype(np.float32), expected


@pytest.mark.parametrize(("operator", "refused"), [("QLinearConv", 0), ("QLinearMatMul", 4)])
def test_cases_of_onnx_of_operators_on_codes(operator, refused, tmp_path):
    right = 0
    for case in node_cases(operator):
        model, x, expected = qlinear_case(case)
        try:
            found = load_onnx(save(model, tmp_path)).forward(x)
        except InputError:  # matrices of more than two axes
            continue
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=case.name)
        right += 1
    assert right == len(node_cases(operator)) - refused > 0


class _Images(quantization.CalibrationDataReader):
    """Images that onnxruntime's quantiser calibrates with."""

    def __init__(self) -> None:
        self.images = iter([{"x": each[None]} for each in floats(SEED, 4, 2, 8, 8)])

    def get_next(self) -> Any:
        return next(self.images, None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A network in floating point without names that its quantised form loses."""
    return save(small_cnn(SEED), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("scales", ["layer", "channel"])
@pytest.mark.parametrize("zero", ["symmetric", "asymmetric"])
def test_networks_as_onnxruntime_quantises_them(form, activations, scales, zero, plain, tmp_path):
    path = tmp_path / "quantised.onnx"
    quantization.quantize_static(
        plain,
        path,
        _Images(),
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
        per_channel=scales == "channel",
        extra_options={"ActivationSymmetric": zero == "symmetric"},
    )
    model = onnx.load(path)
    assert any(each.op_type.startswith("QLinear") for each in model.graph.node) == (form != "QDQ")
    loaded = refmodel.load(path)
    assert all(each.exact for each in loaded.nodes if isinstance(each, Matrix) and each.groups == 1)
    x = floats(SEED + 1, 16, 2, 8, 8)
    expected = np.log(np.maximum(runtime(model, x), 1e-9))
    found = loaded.forward(x)
    # Codes of the Softmax have 8 bits: what is before it is compared by the largest value.
    clear = np.sort(expected)[:, -1] - np.sort(expected)[:, -2] > 0.05
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])
    assert clear.sum() >= 8
    program = loaded.compress(x, scheme="dense", moments=False)
    apart = np.abs(program.logits(x) - found)
    assert apart.max() <= 3.001 * program.tensors[program.output]["scale"]


def test_operators_on_codes_are_refused_with_a_line(tmp_path):
    for domain, operator in REWRITES:
        model = network([helper.make_node(operator, ["x"], ["y"], domain=domain)], {})
        with pytest.raises(InputError, match=f"expected {operator} with . inputs"):
            load_onnx(save(model, tmp_path))


@pytest.mark.parametrize("attribute", [{"alpha": "half"}, {"alpha": [0.5]}])
def test_operators_on_codes_with_attributes_of_another_type(attribute, tmp_path):
    constants = {"s": f32(0.5), "z": np.array(3, np.uint8), "w": np.ones((5, 4), np.uint8)}
    constants |= {"b": np.ones(4, np.int32)}
    inputs = ["x", "s", "z", "w", "s", "z", "b", "s", "z"]
    nodes = [helper.make_node("QGemm", inputs, ["y"], domain="com.microsoft", **attribute)]
    path = save(network(nodes, constants, ("N", 5)), tmp_path)
    with pytest.raises(
        InputError, match=r"expected a well-formed QGemm, found: .*, in node 'y' of"
    ):
        load_onnx(path)
