"""Files that ask for more than they are worth: what fuzzing found, each with what is said now."""

import dataclasses
import io
import zipfile
import zlib

import numpy as np
import pytest
from onnx import TensorProto

from refmodel.archive import RATIO, UNPACKED, Archive, DamagedError, gunzip, limit
from refmodel.errors import InputError
from refmodel.exchange.onnx.importer import MOST_NODES
from refmodel.exchange.onnx.load import load_onnx
from refmodel.program.program import Program
from tests.fuzz.damage import archive, npy
from tests.support.layers.programs import make
from tests.support.nets.onnx_nets import network, node, save

# Networks

EIGHT = {"w": np.ones((8, 2), np.float32)}
PICTURE = {"c": np.ones((1, 2, 1, 1), np.float32)}


def after_constant(*nodes, **constants):
    last = [node("Add", "x k", "z"), node("MatMul", "z w", "y")]
    return network([*nodes, *last], EIGHT | constants, ("N", 8))


def picture(*nodes, **constants):
    return network(list(nodes), PICTURE | constants, ("N", 2, 5, 5))


def doubling():
    return after_constant(
        *[node("Concat", f"k{i} k{i}", f"k{i + 1}", axis=0) for i in range(30)],
        node("Identity", "k30", "k"),
        k0=np.ones(2, np.float32),
    )


def strange_type():
    model = network([node("MatMul", "x w", "y")], EIGHT, ("N", 8))
    model.graph.input[0].type.tensor_type.elem_type = 99
    return model


def chain(op: str, count: int, size: int = 8):
    nodes = [node(op, f"t{i}" if i else "x", f"t{i + 1}") for i in range(count)]
    weights = {"w": np.ones((size, 2), np.float32)}
    return network([*nodes, node("MatMul", f"t{count} w", "y")], weights, ("N", size))


HUGE = 1 << 40
SHAPE = np.array([HUGE])
LIMITS = {
    "elem type": (strange_type, "an input of floating point, found type 99"),
    "nodes": (lambda: chain("Identity", MOST_NODES), "a network of at most 10000 nodes"),
    "input": (
        lambda: network(
            [node("Flatten", "x", "f"), node("MatMul", "f w", "y")], EIGHT, ("N", HUGE)
        ),
        "an input of at most 16777216 values",
    ),
    "ConstantOfShape": (
        lambda: after_constant(node("ConstantOfShape", "s", "k"), s=SHAPE),
        "ConstantOfShape to constants of at most 160000000 values together, found 1099511627776",
    ),
    "Expand": (
        lambda: after_constant(node("Expand", "o s", "k"), s=SHAPE, o=np.ones(1, np.float32)),
        "Expand to constants of at most",
    ),
    "Range": (
        lambda: after_constant(
            node("Range", "a b d", "k"), a=np.int64(0), b=np.int64(HUGE), d=np.int64(1)
        ),
        "Range to constants of at most",
    ),
    "Gather": (
        lambda: after_constant(
            node("Gather", "i i", "j"), node("Gather", "j j", "k"), i=np.zeros((1, 3000), np.int64)
        ),
        "Gather to constants of at most",
    ),
    "MatMul": (
        lambda: after_constant(
            node("MatMul", "a b", "k"),
            a=np.ones((20_000, 1), np.float32),
            b=np.ones((1, 20_000), np.float32),
        ),
        "MatMul to constants of at most",
    ),
    "Mul": (
        lambda: after_constant(
            node("Mul", "a b", "k"),
            a=np.ones((20_000, 1), np.float32),
            b=np.ones((1, 20_000), np.float32),
        ),
        "Mul to constants of at most",
    ),
    "Concat": (doubling, "Concat to constants of at most"),
    "pads": (
        lambda: picture(node("Conv", "x c", "y", pads=[HUGE, 0, 0, 0])),
        "Conv of at most 16777216 values with its pads",
    ),
    "pool pads": (
        lambda: picture(
            node("Conv", "x c", "p"),
            node("AveragePool", "p", "y", kernel_shape=[HUGE, 2], pads=[HUGE - 1, 0, HUGE - 1, 0]),
        ),
        "AveragePool of at most 16777216 values with its pads",
    ),
    "Pad": (
        lambda: picture(
            node("Pad", "x p", "q"),
            node("Conv", "q c", "y"),
            p=np.array([0, 0, 60_000, 60_000, 0, 0, 0, 0]),
        ),
        "Pad to at most 16777216 values",
    ),
    "gathered": (
        lambda: picture(
            node("Gather", "x i", "g", axis=1),
            node("Flatten", "g", "y"),
            i=np.zeros((1000, 1000), np.int64),
        ),
        "Gather to at most 16777216 values, found (N, 1000, 1000, 5, 5)",
    ),
    "moved": (
        lambda: chain("Flatten", 2000, 1 << 16),
        "tensors of at most 16777216 values, and at most 67108864 moved",
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_network_that_asks_for_too_much_is_refused(case, tmp_path):
    make_model, message = LIMITS[case]
    path = save(make_model(), tmp_path)
    with pytest.raises(InputError) as caught:
        load_onnx(path)
    assert f"expected {message}" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("op", ["Identity", "Relu", "Dropout"])
def test_a_deep_network_is_read_in_time_that_grows_with_it(op, tmp_path):
    # Took minutes where each node was searched through all before it.
    found = load_onnx(save(chain(op, MOST_NODES - 1), tmp_path))
    assert found.output_shape == (2,)
    assert len({each.name for each in found.nodes}) == len(found.nodes)


def test_nodes_of_the_same_name_get_names_of_their_own(tmp_path):
    model = chain("Relu", 3)
    for each in model.graph.node:
        each.name = "same"
    names = [each.name for each in load_onnx(save(model, tmp_path)).nodes]
    assert names == ["same", "same_2", "same_3", "same_4"]


def test_types_that_onnx_knows_are_named(tmp_path):
    model = strange_type()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(InputError, match="found STRING"):
        load_onnx(save(model, tmp_path))


# Archives

ARRAY = np.arange(6, dtype=np.int32).reshape(2, 3)


def test_what_a_file_may_unpack_to_follows_its_size():
    assert limit(0) == limit(UNPACKED // RATIO) == UNPACKED
    assert limit(UNPACKED) == RATIO * UNPACKED


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<i2", ">i4", "<f4", ">f8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0, 3)], ids=str)
def test_arrays_are_read_as_numpy_wrote_them(kind, shape, order):
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
    values = np.asarray(values, order=order)  # pyright: ignore
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=values)
    found = Archive(buffer.getvalue()).array("x.npy")
    np.testing.assert_array_equal(found, values)
    assert found.shape == values.shape
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.dtype.isnative


LIES = {
    "more": ({"shape": "(99999999999,)"}, "24 bytes for an array of"),
    "less": ({"shape": "(1,)"}, "24 bytes for an array of"),
    "axes": ({"shape": "(" + "1," * 40 + ")"}, "bytes for an array of"),
    "object": ({"descr": "'|O'"}, "Object arrays cannot be loaded"),
    "fields": ({"descr": "[('a', '<i4')]"}, "not of plain numbers"),
    "type": ({"descr": "'<f3'"}, "an array of an unknown type: <f3"),
    "negative": ({"shape": "(-6,)"}, "not of plain numbers"),
    # Found by fuzzing: a pattern with nested repetition took more than a lifetime over these.
    "digits": ({"shape": "(" + "1" * 3000 + "x)"}, "not of plain numbers"),
    "number": ({"shape": "(" + "1" * 3000 + ",)"}, "24 bytes for an array of"),
    "no number": ({"shape": "(" + "1" * 9000 + ",)"}, "digits"),
}


@pytest.mark.parametrize("case", LIES)
def test_an_array_whose_header_lies_is_refused(case):
    changes, message = LIES[case]
    content = archive({"x.npy": npy(ARRAY, **changes)})
    with pytest.raises(DamagedError, match=message):
        Archive(content).array("x.npy")


def test_members_that_cannot_be_read_safely_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as target:
        target.writestr("x.npy", npy(ARRAY))
    with pytest.raises(DamagedError, match=r"^an unknown compression of x.npy$"):
        Archive(buffer.getvalue()).array("x.npy")
    with pytest.raises(DamagedError, match="none"):
        Archive(archive({})).read("none")
    twice = archive({"a": b"1", "b": b"2"}).replace(b"b", b"a")
    with pytest.raises(DamagedError, match=r"^two members of the same name$"):
        Archive(twice)


def test_what_a_file_holds_is_not_quoted_at_length():
    content = bytearray(archive({"x.npy": npy(np.zeros(5000))}))
    # The length of the name in the member's own header reaches into its content.
    content[26:28] = (4000).to_bytes(2, "little")
    with pytest.raises(DamagedError) as caught:
        Archive(bytes(content)).array("x.npy")
    assert len(str(caught.value)) <= 120


def test_a_gzip_of_several_members_is_read_whole():
    pack = [zlib.compressobj(9, zlib.DEFLATED, 31) for _ in range(2)]
    parts = [each.compress(b"ab") + each.flush() for each in pack]
    assert gunzip(b"".join(parts)) == b"abab"
    with pytest.raises(DamagedError, match="something else behind"):
        gunzip(parts[0] + b"x")


# Programs: what stands around the layers


def step(number: int, **changes):
    """Change a step, or params of it where a name is known there."""

    def change(program: Program) -> Program:
        steps = list(program.steps)
        old = steps[number]
        params = {key: changes[key] for key in changes if key in old.params}
        rest = {key: value for key, value in changes.items() if key not in params}
        steps[number] = dataclasses.replace(old, **(rest | {"params": {**old.params, **params}}))
        return dataclasses.replace(program, steps=tuple(steps))

    return change


def tensor(name: str, **changes):
    def change(program: Program) -> Program:
        tensors = {key: dict(value) for key, value in program.tensors.items()}
        tensors[name] |= changes
        return dataclasses.replace(program, tensors=tensors)

    return change


def replaced(**changes):
    return lambda program: dataclasses.replace(program, **changes)


INDEX = np.arange(32)
CHECKS = [
    (tensor("a", shape=[4, 4]), "tensor 'a', shape: expected 3 numbers"),
    (tensor("a", shape=[1 << 13, 1 << 13, 1]), "tensor 'a' has more than 16777216 codes"),
    (tensor("a", scale=float("nan")), "tensor 'a': scale nan"),
    (tensor("a", scale=0), "tensor 'a': scale 0"),
    (tensor("a", zero=256), "tensor 'a', zero: expected 0 to 255, found 256"),
    (tensor("a", zero=True), "tensor 'a', zero: expected 0 to 255, found True"),
    (replaced(input="none"), "expected a tensor, found 'none'"),
    (replaced(output="none"), "expected a tensor, found 'none'"),
    (replaced(tensors=[]), r"expected tensors, found \[\]"),
    (step(8, output="h"), r"step 8 \('layer'\) computes 'h' again"),
    (step(0, inputs=("none",)), r"step 0 \('layer'\): no tensor 'none'"),
    (step(0, inputs=("c",)), r"step 0 \('layer'\) reads what is not computed before it"),
    (step(0, inputs=("in", "in")), r"step 0 \('layer'\): expected 1 inputs, found 2"),
    (step(0, index=3), r"step 0 \('layer'\), index: expected 0 to 2, found 3"),
    (step(8, inputs=("g",)), r"step 8 \('layer'\): layer layer 2 is"),
    (step(0, op="sort"), r"step 0 \('sort'\): expected a known operation"),
    (step(1, index=INDEX[:-1]), r"step 1 \('rearrange'\): expected an index of 32 places"),
    (step(1, index=INDEX + 1), r"step 1 \('rearrange'\): an index outside the input"),
    (step(1, index=INDEX - 1), r"step 1 \('rearrange'\): an index outside the input"),
    (step(1, shape=[32, 1, 1]), r"step 1 \('rearrange'\): expected the shape"),
    (step(2, multipliers=[1]), r"step 2 \('add'\), multipliers: expected 2 numbers"),
    (step(2, multipliers=[1, 1 << 15]), "multipliers: expected -32767 to 32767, found 32768"),
    (step(2, shift=48), r"step 2 \('add'\), shift: expected 0 to 47"),
    (step(2, clip=[9, 0]), r"step 2 \('add'\): limits 9 to 0"),
    (step(4, lo=201), r"step 4 \('clip'\): limits 201 to 200"),
    (step(4, hi=1.5), r"step 4 \('clip'\), hi: expected 0 to 255, found 1.5"),
    (step(5, axis=1), r"step 5 \('concat'\): unlike shapes"),
    (step(5, axis=3), r"step 5 \('concat'\), axis: expected 0 to 2"),
    (step(6, kernel=[5, 2]), r"step 6 \('max_pool'\): a kernel larger than the input"),
    (step(6, stride=[1, 2]), r"step 6 \('max_pool'\): expected the shape"),
    (step(6, pads=[1 << 23, 0, 0, 0]), r"step 6 \('max_pool'\): a border of too many codes"),
    (step(7, multiplier=np.full((2, 3), 9)), "expected a multiplier 0 to 32767 for each of"),
    (step(7, multiplier=-1), r"multiplier: expected 0 to 32767, found -1"),
]


def test_the_program_that_is_changed_here_is_fine(tmp_path):
    make().save(tmp_path / "net.prap")
    Program.load(tmp_path / "net.prap")


@pytest.mark.parametrize(
    ("change", "message"),
    [pytest.param(*check, id=f"{i}-{check[1][:30]}") for i, check in enumerate(CHECKS)],
)
def test_a_program_that_would_fail_while_it_runs_is_refused(change, message, tmp_path):
    path = tmp_path / "net.prap"
    change(make()).save(path)
    with pytest.raises(InputError, match=f"^expected a well-formed program, found .*{message}"):
        Program.load(path)


def test_numbers_near_the_limits_of_int32_do_not_wrap():
    layer = make().layers[0]
    base = layer.gather_base.astype(np.int64)
    base[0] = (1 << 31) - 1
    with pytest.raises(InputError, match="reads channels that the input does not have"):
        dataclasses.replace(layer, gather_base=base)
    first = layer.group_first_output.astype(np.int64)
    first[0] = (1 << 31) - 1
    with pytest.raises(InputError, match="outputs that the layer does not have"):
        dataclasses.replace(layer, group_first_output=first)


def test_a_layer_larger_than_any_engine_is_refused():
    layer = make().layers[0]
    with pytest.raises(InputError, match="a tensor has more than 16777216 codes"):
        dataclasses.replace(layer, in_shape=(1 << 12, 1 << 12, 2), out_shape=(1 << 12, 1 << 12, 2))


@pytest.mark.parametrize("entry", [[], "x", None, {"name": "a"}])
def test_a_layer_without_its_fields_is_refused(entry):
    from refmodel.program.check import layer_fields
    from refmodel.program.layer import LayerProgram

    with pytest.raises(InputError, match=r"^layer 0: expected the fields of a layer, found"):
        layer_fields(LayerProgram, entry, "layer 0")
