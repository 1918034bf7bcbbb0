"""Moments of mapped layers, and what is learnt about their inputs."""

from dataclasses import replace

import numpy as np
import pytest

import refmodel
from refmodel.compression.moments import Moments, input_statistics, match_moments, matched, moments
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import LayerSetting, map_layer
from refmodel.errors import InputError
from refmodel.network.augment import augment
from refmodel.network.graph import FloatNetwork, Matrix
from tests.support.nets.moment_nets import images, network


def test_moments_by_hand():
    # Channel 0: 1, 3, 1, 3; channel 1 does not vary.
    values = np.array([[[[1, 3]], [[5, 5]]], [[[1, 3]], [[5, 5]]]], np.float32)
    found = moments(values)
    assert found.mean.tolist() == [2, 5]
    assert found.deviation.tolist() == [1, 0]


def test_gain_and_bias_by_hand():
    # Output 0 = 2 * z + 1 has mean 5 and deviation 4, so z has 2 and 2. Wanted: mean 3, deviation
    # 1: gain 0.5, bias 3 - 0.5 * 2. Output 1 does not vary: only its mean is moved.
    found = Moments(mean=np.array([5.0, 4.0]), deviation=np.array([4.0, 0.0]))
    wanted = Moments(mean=np.array([3.0, 3.5]), deviation=np.array([1.0, 2.0]))
    gain, bias = matched(np.array([2.0, 1.0]), np.array([1.0, 0.5]), found, wanted)
    assert gain.tolist() == [0.5, 1]
    assert bias.tolist() == [2, 0]


def mapped(net: FloatNetwork, scheme: str = "dictionary"):
    layers = quantize(net, images(0, 1)).layers
    setting = LayerSetting(scheme=scheme, keep=0.6, patterns=3 if scheme == "dictionary" else 0)
    settings = [LayerSetting(), setting, setting]
    maps = [
        map_layer(layer.weight, 1, scheme, chosen, gain=layer.gain)
        for layer, chosen in zip(layers, settings, strict=True)
    ]
    return layers, maps


def differences(first: FloatNetwork, second: FloatNetwork, x: np.ndarray) -> float:
    """Largest difference of a moment of a layer's outputs."""
    one, two = first.trace(x), second.trace(x)
    result = 0.0
    for name in ("y0", "y1", "y2"):
        a, b = moments(one[name]), moments(two[name])
        result = max(
            result, *np.abs(a.mean - b.mean), *np.abs(a.deviation / b.deviation - 1).tolist()
        )
    return result


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scheme", ["dictionary", "similar", "orc"])
def test_mapped_layers_have_the_moments_of_the_network(scheme, fused):
    net, x = network(fused=fused), images(1)
    layers, maps = mapped(net, scheme)
    result = match_moments(net, layers, maps, x)
    assert differences(result, net, x) < 1e-4
    # A mutant that leaves gains and biases alone is found out.
    plain = [
        replace(node, gain=old.gain, bias=old.bias)
        if isinstance(node, Matrix) and isinstance(old, Matrix)
        else node
        for node, old in zip(result.nodes, net.nodes, strict=True)
    ]
    assert differences(replace(result, nodes=tuple(plain)), net, x) > 0.05


def test_dense_layers_stay_as_they_are():
    net = network()
    layers, maps = mapped(net)
    result = match_moments(net, layers, maps, images(1))
    assert result.nodes[0] is net.nodes[0]
    assert result.nodes[2] is not net.nodes[2]


def test_matched_programs_are_nearer_to_the_dense_one():
    net, x = network(), images(2)
    settings = {"conv*": LayerSetting(scheme="dictionary", patterns=4)}
    program = refmodel.compress(net, x, scheme="dictionary", settings=settings)
    plain = refmodel.compress(net, x, scheme="dictionary", settings=settings, moments=False)
    dense = refmodel.compress(net, x, scheme="dense").logits(x)

    def error(found: refmodel.Program) -> float:
        return float(np.square(found.logits(x) - dense).mean() / dense.var())

    assert error(program) < 0.9 * error(plain)


def test_a_dense_network_is_the_same_with_and_without_moments():
    net, x = network(), images(2)
    first, second = (
        refmodel.compress(net, x, scheme="dense", moments=chosen) for chosen in (True, False)
    )
    for a, b in zip(first.layers, second.layers, strict=True):
        assert np.array_equal(a.bias, b.bias)
        assert np.array_equal(a.multiplier, b.multiplier)


def test_statistics_are_covariances_of_the_patches():
    net, x = network(), images(3, 6)
    found = input_statistics(net, x, {"conv0": 1})["conv0"]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    (block,) = found.blocks
    assert np.allclose(block, np.cov(rows.T, bias=True), atol=1e-5)


def test_statistics_come_in_blocks_of_channels(monkeypatch):
    monkeypatch.setattr("refmodel.compression.moments.BLOCK_ROWS", 50)
    net, x = network(), images(3, 6)
    whole = input_statistics(net, x, {"conv1": 2})["conv1"]
    assert whole.channels == 4
    assert [len(block) for block in whole.blocks] == [36, 36, 36]


def test_crops_and_flips_are_of_the_padded_image():
    x = np.arange(1, 2 * 4 * 4 * 3 + 1, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = augment(x, "crop1,flip", seed=2)
    assert np.array_equal(found, augment(x, "crop1,flip", seed=2))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for old, new in zip(padded, found, strict=True):
        crops = [old[a : a + 4, b : b + 4] for a in range(3) for b in range(3)]
        assert any(np.array_equal(new, crop[:, ::step]) for crop in crops for step in (1, -1))
    channels_first = augment(x.transpose(0, 3, 1, 2), "crop1,flip", layout="nchw", seed=2)
    assert np.array_equal(channels_first, found.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("how", ["crop0", "crop65", "turn", ""])
def test_other_changes_are_refused(how):
    with pytest.raises(InputError, match="expected crop1 to crop64 or flip, found"):
        augment(np.zeros((1, 4, 4)), how)
