"""Networks written as ONNX files: read back they are the same, and onnxruntime agrees."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike

from refmodel.compression.quantize import quantize
from refmodel.errors import InputError
from refmodel.exchange.onnx.export import to_onnx, write_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import (
    Add,
    AveragePool,
    Clip,
    Concat,
    FakeQuant,
    FloatNetwork,
    Matrix,
    MaxPool,
    Node,
    Rearrange,
)
from refmodel.network.images import Preprocess, load_images
from tests.support import ROOT
from tests.support.nets import graph_cases, onnx_cases
from tests.support.nets.onnx_cases import relative, runtime
from tests.support.nets.onnx_nets import floats, network, node, save, small_cnn

SEED = 83

CASES = {
    **{name: network(*case) for name, case in graph_cases.CASES.items()},
    **{
        name: network(nodes, constants, shape, opset=opset)
        for name, (nodes, constants, shape, opset) in onnx_cases.CASES.items()
    },
    "small-cnn": small_cnn(SEED),
    "average-ceil-counted": network(
        *graph_cases.after(
            node(
                "AveragePool",
                "c",
                "y",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 0, 0],
                ceil_mode=1,
                count_include_pad=1,
            )
        )
    ),
    "average-ceil-one-axis": network(
        *graph_cases.after(
            node(
                "AveragePool",
                "c",
                "y",
                kernel_shape=[3, 2],
                ceil_mode=1,
                count_include_pad=1,
                strides=[1, 2],
            )
        )
    ),
}


def matrices(network: FloatNetwork) -> dict[str, Matrix]:
    return {each.name: each for each in network.nodes if isinstance(each, Matrix)}


def check_same(loaded: FloatNetwork, back: FloatNetwork, x: np.ndarray) -> None:
    """The same layers, to the bit, under the same names, and the same outputs to the bit."""
    old, new = matrices(loaded), matrices(back)
    assert list(old) == list(new)
    for name, layer in old.items():
        other = new[name]
        assert layer.weight.dtype == other.weight.dtype == np.float32
        np.testing.assert_array_equal(layer.weight, other.weight)
        np.testing.assert_array_equal(layer.gain.astype(np.float32), other.gain)
        np.testing.assert_array_equal(layer.bias.astype(np.float32), other.bias)
        for key in ("stride", "pads", "dilation", "groups", "exact"):
            assert getattr(layer, key) == getattr(other, key)
    assert loaded.input_shape == back.input_shape
    assert loaded.output_shape == back.output_shape
    np.testing.assert_array_equal(loaded.forward(x), back.forward(x))


@pytest.mark.parametrize("case", CASES)
def test_every_network_reads_back_as_it_was(case, tmp_path):
    loaded = load_onnx(save(CASES[case], tmp_path))
    path = tmp_path / "written.onnx"
    write_onnx(loaded, path)
    back = load_onnx(path)
    x = floats(SEED, 3, *loaded.input_shape)
    check_same(loaded, back, x)
    expected = loaded.forward(x)
    assert relative(runtime(onnx.load(path), x), expected) <= 1e-5
    # Written again, nothing changes any more.
    assert to_onnx(back) == to_onnx(load_onnx(save(to_onnx(back), tmp_path)))


@pytest.mark.parametrize("case", ["small-cnn", "option-a", "norm-of-a-shared-tensor"])
def test_nodes_keep_their_names_and_kinds(case, tmp_path):
    loaded = load_onnx(save(CASES[case], tmp_path))
    back = load_onnx(save(to_onnx(loaded), tmp_path))
    assert [(each.name, type(each)) for each in loaded.nodes] == [
        (each.name, type(each)) for each in back.nodes
    ]


def test_the_same_network_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        write_onnx(load_onnx(save(small_cnn(SEED), tmp_path)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


# Networks put together from nodes


WEIGHT = floats(SEED, 3, 2, 1, 1)


def net(*nodes: Node, shape=(2, 4, 4)) -> FloatNetwork:
    return FloatNetwork(
        nodes=tuple(nodes), input="x", output=nodes[-1].output, input_shape=shape, source="parts"
    )


def conv(
    output="y",
    *,
    shape=(3, 4, 4),
    weight=WEIGHT,
    gain: ArrayLike = 1.0,
    bias: ArrayLike = 0.0,
    **changes,
) -> Matrix:
    """A layer on x: 1x1 with three outputs, unless told otherwise."""
    return Matrix(
        name=f"{output}_node",
        inputs=("x",),
        output=output,
        shape=shape,
        weight=weight,
        gain=np.full(len(weight), gain, np.float64),
        bias=np.full(len(weight), bias, np.float64),
        **changes,
    )


def window(kind: type, inputs: str, output: str, shape, *, stride=(2, 2), pads=(0,) * 4, **changes):
    """A pooling with a kernel of 2x2."""
    return kind(
        name=f"{output}_node",
        inputs=(inputs,),
        output=output,
        shape=shape,
        kernel=(2, 2),
        stride=stride,
        pads=pads,
        **changes,
    )


def test_a_gain_is_normalisation_and_a_bias_alone_is_not():
    layers = conv(), conv(bias=0.5), conv(gain=-2.0, bias=0.5)
    kinds = [[each.op_type for each in to_onnx(net(layer)).graph.node] for layer in layers]
    assert kinds == [["Conv"], ["Conv"], ["Conv", "BatchNormalization"]]
    assert len(to_onnx(net(conv())).graph.node[0].input) == 2
    assert len(to_onnx(net(conv(bias=0.5))).graph.node[0].input) == 3


def test_layers_on_vectors_and_on_images_without_channels(tmp_path):
    weight = floats(SEED, 4, 2, 1, 1)
    grouped = conv(weight=weight, groups=2, bias=floats(SEED, 4), shape=(4,))
    flat = net(grouped, shape=(4,))
    image = net(
        conv(weight=floats(SEED, 3, 1, 3, 3), pads=(1, 1, 1, 1), gain=floats(SEED, 3)),
        shape=(4, 4),
    )
    for each in (flat, image):
        x = floats(SEED, 5, *each.input_shape)
        model = to_onnx(each)
        back = load_onnx(save(model, tmp_path))
        assert back.output_shape == each.output_shape
        assert list(matrices(back)) == ["y_node"]
        assert relative(back.forward(x), each.forward(x)) <= 1e-6
        assert relative(runtime(model, x), each.forward(x)) <= 1e-6


def test_every_kind_of_node_put_together(tmp_path):
    index = np.concatenate([[-1, 3, 3], np.arange(44, -1, -1)])
    nodes = [
        conv(output="a", gain=0.5, bias=0.25),
        FakeQuant(name="q", inputs=("a",), output="b", shape=(3, 4, 4), scale=0.05, zero=7),
        Clip(name="c", inputs=("b",), output="c", shape=(3, 4, 4), lo=-0.25, hi=1.5),
        Rearrange(name="r", inputs=("c",), output="d", shape=(3, 4, 4), index=index),
        Add(name="s", inputs=("d", "c"), output="e", shape=(3, 4, 4)),
        Concat(name="k", inputs=("e", "a"), output="f", shape=(3, 8, 4), axis=1),
        window(MaxPool, "f", "g", (3, 4, 4), stride=(2, 1), pads=(0, 1, 0, 0)),
        window(AveragePool, "g", "h", (3, 2, 2), counts=np.full((2, 2), 4)),
    ]
    each = net(*nodes)
    x = floats(SEED, 5, 2, 4, 4)
    model = to_onnx(each)
    back = load_onnx(save(model, tmp_path))
    assert [kept.name for kept in back.nodes] == [kept.name for kept in nodes]
    np.testing.assert_array_equal(back.forward(x), each.forward(x))
    assert relative(runtime(model, x), each.forward(x)) <= 1e-6


def test_names_that_the_writer_would_choose_are_not_taken_twice(tmp_path):
    # The second layer has the names that the parts of the first would have.
    first = conv(output="a", gain=2.0, bias=1.0)
    weight = floats(SEED + 1, 3, 3, 1, 1)
    for name, output in (("a_node.gain", "a.product"), ("a_node.bias", "a_node.gain")):
        second = Matrix(
            name=name,
            inputs=("a",),
            output=output,
            shape=(3, 4, 4),
            weight=weight,
            gain=np.ones(3),
            bias=np.ones(3),
        )
        each = net(first, second)
        back = load_onnx(save(to_onnx(each), tmp_path))
        check_same(each, back, floats(SEED, 2, 2, 4, 4))


REFUSED = {
    "exact": (
        conv(weight=np.ones((3, 2, 1, 1), np.float32), exact=True),
        "expected weights in floating point, found 8-bit integers, in node 'y_node' of parts",
    ),
    "weight": (
        conv(weight=np.full((3, 2, 1, 1), np.nan, np.float32)),
        "expected a finite weight in float32, found 6 of 6 values that are not, in node 'y_node'",
    ),
    "gain": (
        conv(gain=1e39),
        "expected a finite gain in float32, found 3 of 3 values that are not, in node 'y_node'",
    ),
    "counts": (
        window(AveragePool, "x", "y", (2, 2, 2), counts=np.array([[4, 4], [4, 3]])),
        "expected an average over the kernel, or over what of it is not padding, found other",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_file_can_hold_is_refused(case, tmp_path):
    node, message = REFUSED[case]
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match="expected ") as caught:
        write_onnx(net(node), path)
    assert message in str(caught.value)
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(InputError, match="expected a file that can be written, found: Is a dir"):
        write_onnx(net(conv()), tmp_path)


def test_the_batch_is_free_and_the_opset_is_17():
    model = to_onnx(net(conv()))
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    assert [each.version for each in model.opset_import] == [17]


# Given networks


@pytest.fixture(scope="module")
def export():
    path = ROOT / "examples/resnet/export.py"
    spec = importlib.util.spec_from_file_location("export_resnet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "crosssim_resnet14_cifar10.pth"])
def test_trained_resnets_read_back(name, fuse, export, shared, tmp_path):
    path = tmp_path / "net.onnx"
    options = ["--fuse"] if fuse else []
    assert export.main([str(shared / "data/models" / name), "-o", str(path), *options]) == 0
    images, _ = load_images(shared / "data/images/cifar10_test_A_5000.npz")
    pre = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
    check_given(path, pre, images[:20], tmp_path)


GIVEN = {
    "mnist_conv_maxpool.onnx": "t10k-images-idx3-ubyte.gz",
    "mnist/model.onnx": "t10k-images-idx3-ubyte.gz",
    "cifar_base_kw.onnx": "cifar10_test_A_5000.npz",
}


@pytest.mark.parametrize("name", GIVEN)
def test_given_networks_read_back(name, shared, tmp_path):
    images, _ = load_images(shared / "data/images" / GIVEN[name])
    check_given(shared / "data/onnx" / name, Preprocess(scale=1 / 255), images[:20], tmp_path)


def check_given(path: Path, preprocess: Preprocess, images: np.ndarray, folder: Path) -> None:
    loaded = load_onnx(path)
    x = preprocess.apply(images, loaded.input_shape)
    written = folder / "written.onnx"
    write_onnx(loaded, written)
    back = load_onnx(written)
    assert [each.name for each in back.nodes] == [each.name for each in loaded.nodes]
    check_same(loaded, back, x)
    original, copy = onnx.load(path), onnx.load(written)
    # The files may fix the batch at one image.
    expected = np.concatenate([runtime(original, image[None]) for image in x])
    assert relative(runtime(copy, x), expected) <= 1e-5
    assert relative(back.forward(x), expected) <= 1e-5
    # Nor is there a difference in integers.
    first, second = (quantize(each, x) for each in (loaded, back))
    assert [step.op for step in first.steps] == [step.op for step in second.steps]
    scales = [[info.scale for info in each.tensors.values()] for each in (first, second)]
    np.testing.assert_allclose(*scales, rtol=1e-6)
