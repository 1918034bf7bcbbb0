"""The Python interface: load, compress, inspect, evaluate, save, load again; arrays in and out."""

import inspect
import re
import subprocess
import sys

import numpy as np
import pytest

import refmodel
from refmodel import digits
from refmodel.compression.schemes import SCHEMES
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.program.program import Program as Stored
from refmodel.table import Table

PIXELS = refmodel.Preprocess(scale=digits.PIXEL_SCALE)


@pytest.fixture(scope="module")
def images() -> digits.DigitsImages:
    return digits.digits_images()


@pytest.fixture(scope="module")
def network() -> refmodel.Network:
    return refmodel.load(digits.network_path("prap"))


@pytest.fixture(scope="module")
def program(network, images) -> refmodel.Program:
    return refmodel.compress(
        network, images.calibration_x, settings=digits.SETTINGS, preprocess=PIXELS
    )


def test_importing_the_package_imports_nothing_else():
    code = "import sys, refmodel; print('numpy' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_name_of_the_package_is_there():
    assert set(refmodel.__all__) == set(refmodel._HOME) <= set(dir(refmodel))
    for name in refmodel.__all__:
        assert getattr(refmodel, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'refmodel' has no attribute 'lod'$"):
        _ = refmodel.lod


def test_what_compress_says_of_itself_is_so(root):
    # Every scheme by its name, the rules in their order; moments, as the signature has them.
    text = " ".join((refmodel.compress.__doc__ or "").split("Notes\n")[1].split())
    places = [text.index(f"``{name}``") for name in SCHEMES]
    assert len(set(places)) == len(SCHEMES) == 9
    for name, rule in (("structured", "rule 1"), ("orc", "2"), ("shape", "3"), ("identical", "4"),
                       ("structured+identical", "5"), ("similar", "6")):  # fmt: skip
        assert f"``{name}`` ({rule})" in text
    page = (root / "docs" / "schemes.md").read_text(encoding="utf-8")
    by_default = inspect.signature(refmodel.compress).parameters["moments"].default
    assert by_default
    assert "Moments are matched by default" in text
    assert "Then, by default and under every scheme" in page
    # Options that the page names are the command's.
    files = sorted((root / "prap_hw" / "app" / "cli").rglob("*.py"))
    cli = "\n".join(file.read_text(encoding="utf-8") for file in files)
    options = set(re.findall(r"`(--[a-z-]+)`", page))
    assert options == {
        *("--no-moments", "--budget", "--budget-of", "--max-loss"),
        *("--scheme", "--set"),
    }
    assert all(f'"{option}"' in cli for option in options)


def test_a_network_evaluates_images_as_its_float_network_does(network, images):
    x, y = images.x[:50], images.y[:50]
    assert issubclass(refmodel.Network, FloatNetwork)
    values = network.forward((x[:, None] / 16).astype(np.float32))
    assert np.array_equal(network.logits(x, PIXELS), values)
    assert network.evaluate(x, y, PIXELS) == float(np.mean(values.argmax(1) == y))
    assert network.inputs(x).max() == pytest.approx(16 / 255)


def test_a_program_is_evaluated_by_the_golden_model(program, images):
    from refmodel import golden

    x, y = images.x[:50], images.y[:50]
    codes = golden.quantise_input(program, (x[:, None] / 16).astype(np.float32))
    assert np.array_equal(program.codes(x), codes)
    assert program.codes(x).dtype == np.uint8
    assert np.array_equal(program.logits(x), golden.logits(program, codes))
    assert program.evaluate(x, y) == float(np.mean(program.logits(x).argmax(1) == y))
    # Not all right, or else a mean of nothing would pass.
    assert program.evaluate(x, (y + 1) % 10) < 0.1


def test_outputs_that_are_images_have_the_order_of_the_float_network():
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    layer = Matrix(
        name="c", inputs=("x",), output="y", shape=(4, 2, 5), weight=weight, gain=np.ones(4),
        bias=np.zeros(4),
    )  # fmt: skip
    network = refmodel.Network(nodes=(layer,), input="x", output="y", input_shape=(3, 2, 5))
    x = rng.normal(0, 1, (6, 3, 2, 5)).astype(np.float32)
    program = network.compress(x, scheme="dense")
    values = network.logits(x)
    assert values.shape == (6, 40)
    assert np.abs(program.logits(x) - values).max() < 0.03 * np.abs(values).max()


def test_what_is_saved_loads_with_the_same_answers(program, images, tmp_path):
    program.save(tmp_path / "net.prap")
    loaded = refmodel.Program.load(tmp_path / "net.prap")
    assert type(loaded) is refmodel.Program
    assert np.array_equal(loaded.logits(images.x[:20]), program.logits(images.x[:20]))
    assert str(loaded.table()) == str(program.table())
    plain = Stored.load(tmp_path / "net.prap")
    assert type(plain) is Stored
    assert type(refmodel.Program.of(plain)) is refmodel.Program
    assert refmodel.Program.of(loaded) is loaded


def test_compress_is_the_same_from_a_path_a_network_and_a_method(program, network, images):
    options = {"settings": digits.SETTINGS, "preprocess": PIXELS}
    x = images.calibration_x
    for other in (
        refmodel.compress(digits.network_path("prap"), x, **options),
        network.compress(x, **options),
    ):
        for a, b in zip(program.layers, other.layers, strict=True):
            assert np.array_equal(a.effective_weights(), b.effective_weights())
    assert [layer.name for layer in network.quantize(x, PIXELS).layers] == list(
        program.table()["name"]
    )


def test_quantisation_options_are_passed_on(network, images):
    calibration = images.calibration_x[:20]
    wide = network.quantize(calibration, PIXELS)
    narrow = network.quantize(calibration, PIXELS, activations="percentile", percentile=95)
    assert narrow.layers[0].out_scale < wide.layers[0].out_scale


def test_a_program_for_other_rows_is_priced_on_an_engine_that_has_them(network, images):
    program = refmodel.compress(
        network, images.calibration_x[:8], scheme="dense", preprocess=PIXELS, ou_rows=9
    )
    assert program.engine().ou_rows == 9
    assert len(program.predict_cycles()) == len(program.layers)


def test_tables_hold_the_figures_of_the_program(program):
    table = program.table()
    kept = [layer.kept for layer in program.layers]
    assert table["kept"].tolist() == kept
    assert table["kept"].dtype.kind == "i"
    assert table[1]["name"] == program.layers[1].name == program.layer("conv2").name
    cycles = program.predict_cycles(refmodel.EngineConfig(adcs=4))
    assert (cycles["cycles"] >= cycles["bound"]).all()
    assert (cycles["cycles"] <= cycles["limit"]).all()
    assert cycles["cycles"].sum() > program.predict_cycles()["cycles"].sum()


def test_metrics_go_with_the_tables(program):
    found, table, cycles = program.metrics(), program.table(), program.predict_cycles()
    assert [each.name for each in found.layers] == list(table["name"])
    for name in ("kept", "reused", "dropped", "ous", "ous_dense", "index_bits"):
        assert [getattr(each, name) for each in found.layers] == table[name].tolist()
    assert found.total.cycles == cycles["cycles"].sum()
    assert 0 < found.total.sparsity < 1
    assert program.metrics(refmodel.EngineConfig(dac_bits=4)).total.cycles < found.total.cycles


def test_what_a_notebook_shows(program, network):
    assert repr(network) == "Network digits_prap.onnx: 1x8x8 to 10, 4 layers"
    assert repr(program).startswith("Program, scheme prap: 4 layers, 640 of 1,632 weight patterns")
    for shown in (program, network, program.predict_cycles()):
        html = shown._repr_html_()
        assert html.startswith("<table>")
        assert html.count("<tr>") == html.count("</tr>") > 4


def test_the_user_is_told_what_is_wrong(program, network, images):
    with pytest.raises(InputError, match=r"^expected a layer out of conv1, .*, found 'conv9'$"):
        program.layer("conv9")
    message = r"^expected images with a label each, found 3 and 2$"
    for each in (program, network):
        with pytest.raises(InputError, match=message):
            each.evaluate(images.x[:3], images.y[:2])
    with pytest.raises(InputError, match=r"^expected images with a label each, found 0 and 0$"):
        program.evaluate(images.x[:0], images.y[:0])
    with pytest.raises(InputError, match=r"^expected images for a network input of shape"):
        program.logits(np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(InputError, match=r"in the calibration images$"):
        refmodel.compress(network, np.zeros((2, 9, 9), np.uint8))


def test_a_table_prints_and_escapes():
    table = Table(
        [
            {"name": "a<b", "n": 1234, "share": 0.5, "shape": (2, 3), "none": None, "yes": True},
            {"name": "c", "n": 5, "share": 1.0, "shape": (4,), "none": None, "yes": False},
        ],
        "T & U",
    )
    assert str(table) == (
        "T & U\n"
        "name      n  share  shape  none  yes\n"
        "a<b   1,234  0.500  2x3    -     yes\n"
        "c         5  1.000  4      -     no"
    )
    assert "a&lt;b" in table._repr_html_()
    assert "<caption>T &amp; U</caption>" in table._repr_html_()
    assert table["shape"].tolist() == [(2, 3), (4,)]
    assert len(table) == 2
    assert [row["n"] for row in table] == [1234, 5]
    assert len(table[1:]) == 1
    with pytest.raises(KeyError, match="expected one of name, n, share"):
        table["m"]
    with pytest.raises(ValueError, match="records must have the columns"):
        Table([{"a": 1}, {"b": 1}])
    assert len(Table([])) == 0
    assert str(Table([])) == ""
