"""Fine-tuned networks compressed: with the mappings that came with them, or mapped anew."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refmodel
from prap_hw.app import workflow
from prap_hw.app.cli.program import run
from refmodel.compression.budget import Budget
from refmodel.compression.schemes import SCHEMES, LayerSetting
from refmodel.errors import InputError
from refmodel.exchange.onnx.export import write_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from refmodel.program.layer import LayerProgram
from tests.support.nets.tuned_nets import images, mapped, tuned_network

PREPROCESS = Preprocess(layout="nchw")
REUSING = [scheme for scheme in SCHEMES if scheme != "dense"]
LAYERS = ["c1_node", "c2_node", "c3_node", "c4_node", "f5_node", "y_node"]


def compress(network: FloatNetwork, **options) -> refmodel.Program:
    return refmodel.compress(network, images(), preprocess=PREPROCESS, **options)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Network in a file by scheme."""
    folder = tmp_path_factory.mktemp("tuned")
    paths = {}
    for scheme in SCHEMES:
        paths[scheme] = folder / f"{scheme}.onnx"
        write_onnx(tuned_network(folder, scheme), paths[scheme])
    return paths


def layers_of(network: FloatNetwork) -> dict[str, Matrix]:
    return {node.name: node for node in network.nodes if isinstance(node, Matrix)}


def expected_weights(weight_q8: np.ndarray, groups: int) -> np.ndarray:
    """As LayerProgram.effective_weights has them: [out, positions, all channels]."""
    outputs, inputs, *kernel = weight_q8.shape
    result = np.zeros((outputs, inputs * groups, int(np.prod(kernel))), np.int64)
    for group in range(groups):
        part = slice(group * outputs // groups, (group + 1) * outputs // groups)
        rows = slice(group * inputs, (group + 1) * inputs)
        result[part, rows] = weight_q8[part].reshape(outputs // groups, inputs, -1)
    return result.transpose(0, 2, 1)


def real_scale(program: refmodel.Program, layer: LayerProgram) -> np.ndarray:
    """What an effective weight of 1 is worth, gain included: from multipliers and tensor scales."""
    number = [each.name for each in program.layers].index(layer.name)
    step = next(
        each for each in program.steps if each.op == "layer" and each.params["index"] == number
    )
    before, after = (program.tensors[name]["scale"] for name in (step.inputs[0], step.output))
    return layer.multiplier / 2.0**layer.shift * after / before * 256


@pytest.mark.parametrize("weights", ["layer", "channel"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_program_decodes_to_the_mappings_that_came(scheme, weights, tuned, tmp_path):
    network = load_onnx(tuned[scheme])
    assert network.tuned is not None
    program = compress(network, weights=weights)
    assert program.about["scheme"] == scheme
    names = list(network.tuned.mappings)
    assert program.about.get("carried", []) == names
    assert set(program.about["settings"]) == set(LAYERS) - set(names)
    # What the scheme made of the weights before they were tuned.
    _, quant, mappings = mapped(tmp_path, scheme)
    original = {layer.name: layer for layer in quant.layers}
    assert list(mappings) == names
    for name, mapping in mappings.items():
        layer, node = program.layer(name), layers_of(network)[name]
        assert layer.scheme == mapping.scheme
        found = layer.effective_weights()
        np.testing.assert_array_equal(found, expected_weights(mapping.weight_q8, node.groups))
        units = mapping.scales(original[name].weight) * node.gain
        np.testing.assert_allclose(real_scale(program, layer), units, rtol=2**-14)
        assert (layer.kept, layer.reused, layer.dropped) == (
            mapping.kept,
            mapping.reused,
            mapping.dropped,
        )
    for name in set(LAYERS) - set(names):
        assert program.layer(name).scheme == "dense"
    assert ("mappings came with the network" in repr(program)) == bool(names)


@pytest.mark.parametrize("scheme", ["prap", "dictionary"])
def test_gains_and_biases_are_those_that_were_trained(scheme, tuned):
    # Moments are matched by default, but not of these layers: nothing of them changes by it.
    network = load_onnx(tuned[scheme])
    with_moments, without = (compress(network, moments=each) for each in (True, False))
    for first, second in zip(with_moments.layers, without.layers, strict=True):
        for name in ("weights", "bias", "multiplier", "shift"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert with_moments.tensors == without.tensors


@pytest.mark.parametrize("scheme", REUSING)
def test_the_integer_network_answers_as_the_tuned_one(scheme, tuned):
    network = load_onnx(tuned[scheme])
    x = images()  # those of the calibration: no code saturates
    expected = network.forward(x)
    found = compress(network).logits(x)
    assert np.abs(found - expected).max() <= 0.04 * np.abs(expected).max()


def test_a_setting_maps_its_layer_anew_and_the_others_are_carried(tuned):
    network = load_onnx(tuned["prap"])
    setting = LayerSetting(scheme="prap", channels=2, positions=3, keep=0.25)
    program = compress(network, settings={"c[2]_node": setting})
    plain = compress(network)
    assert program.about["carried"] == ["c3_node", "c4_node", "f5_node"]
    assert program.about["settings"]["c2_node"]["keep"] == 0.25
    for name in LAYERS:
        first, second = (each.layer(name).effective_weights() for each in (program, plain))
        assert np.array_equal(first, second) == (name != "c2_node")
    assert program.layer("c2_node").kept == 6 * 8
    # Its moments are matched: gain and bias are not those of the network.
    unmatched = compress(network, settings={"c2_node": setting}, moments=False)
    first, second = (real_scale(each, each.layer("c2_node")) for each in (program, unmatched))
    assert not np.allclose(first, second, rtol=1e-3)
    # Those of the carried layers behind it are not, though their inputs are others now.
    for name in ("c3_node", "c4_node"):
        first, second = (real_scale(each, each.layer(name)) for each in (program, unmatched))
        np.testing.assert_allclose(first, second, rtol=2**-13)
    dense = compress(network, settings={"c*": LayerSetting(scheme="dense")})
    assert dense.about["carried"] == ["f5_node"]
    assert dense.layer("c3_node").scheme == "dense"


def test_another_scheme_maps_everything_anew(tuned):
    network = load_onnx(tuned["prap"])
    plain = replace(network, tuned=None)
    for scheme in ("orc", "dense"):
        found, expected = (compress(each, scheme=scheme) for each in (network, plain))
        assert "carried" not in found.about
        assert found.about == expected.about
        for first, second in zip(found.layers, expected.layers, strict=True):
            np.testing.assert_array_equal(first.weights, second.weights)
            np.testing.assert_array_equal(first.multiplier, second.multiplier)


def test_the_scheme_may_be_left_out(tuned):
    for scheme in ("orc", "dictionary"):
        network = load_onnx(tuned[scheme])
        assert compress(network).about == compress(network, scheme=scheme).about
    assert compress(replace(network, tuned=None)).about["scheme"] == "prap"


def test_mappings_for_another_operation_unit_are_refused(tuned):
    network = load_onnx(tuned["prap"])
    with pytest.raises(InputError) as caught:
        compress(network, ou_rows=16)
    assert str(caught.value) == (
        f"expected ou_rows of 8, which the mappings were made for, found 16, for {tuned['prap']}"
    )
    # Nothing is carried then, and nothing is refused.
    everything = {"*": LayerSetting(scheme="prap", keep=0.5)}
    assert compress(network, ou_rows=16, settings=everything).layers[0].ou_rows == 16
    assert compress(network, ou_rows=16, scheme="orc").layers[0].ou_rows == 16


# The command


@pytest.fixture(scope="module")
def calibration(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x=images().transpose(0, 2, 3, 1))
    return path


def test_the_summary_says_which_mappings_came(tuned, calibration, tmp_path):
    summary = workflow.compress(tuned["similar"], calibration, tmp_path / "out")
    assert summary["scheme"] == "similar"
    assert summary["carried"] == ["c2_node", "c3_node", "c4_node", "f5_node"]
    stored = json.loads((tmp_path / "out" / workflow.SUMMARY_FILE).read_text())
    assert stored["carried"] == summary["carried"]
    other = workflow.compress(tuned["similar"], calibration, tmp_path / "o", scheme="prap")
    assert (other["scheme"], other["carried"]) == ("prap", [])


def test_a_budget_chooses_anew(calibration, tmp_path):
    # The first layer, too, has a mapping, of which a budget chooses nothing: it runs dense.
    own = {"c1_node": LayerSetting(scheme="dictionary", patterns=3)}
    network = tmp_path / "tuned.onnx"
    write_onnx(tuned_network(tmp_path, "dictionary", own), network)
    summary = workflow.compress(network, calibration, tmp_path / "out", budget=Budget(times=1.5))
    assert summary["scheme"] == "dictionary"
    assert summary["carried"] == []
    assert summary["layers"][0]["patterns_reused"] == 0
    assert summary["budget"]["ratio"] >= 1.5


def test_the_verb_takes_the_mappings_unless_it_is_told_otherwise(
    tuned, calibration, tmp_path, capsys
):
    def call(*arguments: object) -> str:
        out = ["-o", str(tmp_path / str(len(list(tmp_path.iterdir()))))]
        command = ["compress", str(tuned["orc"]), "--calibration", str(calibration), *out]
        assert run([*command, *map(str, arguments)]) == 0
        return capsys.readouterr().out

    line = "mappings of {} of 6 layers came with orc.onnx, fine-tuned for orc"
    assert line.format(4) in call()
    assert line.format(3) in call("--set", "c2_node=keep=0.5")
    assert "came with" not in call("--scheme", "prap")
    stored = json.loads((tmp_path / "1" / workflow.SUMMARY_FILE).read_text())
    assert stored["scheme"] == "orc"
    program = workflow.load_program(tmp_path / "1")
    assert program.about["settings"]["c2_node"]["scheme"] == "orc"
