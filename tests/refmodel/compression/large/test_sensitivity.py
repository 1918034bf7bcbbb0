"""Sensitivities of all layers in one pass, until they are certain; budgets that go on."""

from dataclasses import replace

import numpy as np
import pytest

from refmodel.compression.budget import Budget, choose, search, sensitivity
from refmodel.compression.budget.sensitivity import divergence, log_shares, measure
from refmodel.compression.moments import match_moments
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import LayerSetting, map_layer
from refmodel.compression.store import Work
from tests.support.nets.moment_nets import images, network


@pytest.fixture(scope="module")
def given():
    net, x = network(), images(3, 300)
    layers = quantize(net, x[:1]).layers
    setting = LayerSetting(scheme="prap", channels=2, positions=4, keep=0.3)
    maps = {
        layer.name: map_layer(layer.weight, 1, "prap", setting, 8, layer.gain)
        for layer in layers[1:]
    }
    return net, x, layers, maps


def one_by_one(net, x, layers, maps) -> dict[str, float]:
    """Map and match each layer alone, and compute the whole network."""
    dense = [map_layer(layer.weight, 1, "dense") for layer in layers]
    reference = log_shares(net.forward(x))
    found = {}
    for index, layer in enumerate(layers):
        if layer.name in maps:
            chosen = [*dense[:index], maps[layer.name], *dense[index + 1 :]]
            found[layer.name] = divergence(
                reference, match_moments(net, layers, chosen, x).forward(x)
            )
    return found


def test_one_pass_finds_what_the_layers_one_by_one_do(given, monkeypatch):
    net, x, layers, maps = given
    monkeypatch.setattr(sensitivity, "ERROR", 0.0)  # all images
    found, wanted = measure(net, x, layers, maps), one_by_one(*given)
    assert found.keys() == wanted.keys()
    assert list(found.values()) == pytest.approx(list(wanted.values()), rel=1e-4)
    # A mutant that does not match moments is found.
    monkeypatch.setattr(sensitivity, "matched", lambda gain, bias, *_: (gain, bias))
    mutant = measure(net, x, layers, maps)
    assert list(mutant.values()) != pytest.approx(list(wanted.values()), rel=0.05)


def test_images_are_taken_until_the_error_is_small(given, monkeypatch):
    net, x, layers, maps = given
    wanted, told = one_by_one(*given), []

    def run(error: float) -> dict[str, float]:
        monkeypatch.setattr(sensitivity, "ERROR", error)
        monkeypatch.setattr(sensitivity, "ROUND_IMAGES", 50)
        told.clear()
        return measure(net, x, layers, maps, progress=lambda done, total: told.append(done))

    # The first round ends with a chunk, and then the error is some hundredths here.
    coarse = run(0.2)
    assert list(coarse.values()) == pytest.approx(list(wanted.values()), rel=0.3)
    assert told[-2] < len(x) - 1
    run(0.0)
    assert told[-2] == len(x) - 1


def test_workers_and_a_folder_change_no_sensitivity(given, tmp_path):
    net, x, layers, maps = given
    work = Work(tmp_path / "work", "key")
    plain = measure(net, x, layers, maps)
    assert measure(net, x, layers, maps, workers=3, work=work) == plain
    assert measure(net, x, layers, maps, work=work) == plain


class StopError(Exception):
    """A run is ended."""


@pytest.mark.parametrize("stage", ["compare settings", "map a setting", "measure sensitivities"])
def test_a_budget_goes_on_where_it_was(stage, tmp_path, monkeypatch):
    net, x, budget = network(), images(1, 200), Budget(times=1.3)
    wanted = choose(net, x, budget, scheme="orc")
    work, calls = Work(tmp_path / "work", "key"), []
    real = search.map_layer

    def counted(*arguments, **options):
        calls.append(stage)
        return real(*arguments, **options)

    def stop(found: str, done: int, total: int) -> None:
        if found.startswith(stage) and done >= 1:
            raise StopError

    monkeypatch.setattr(search, "map_layer", counted)
    assert choose(net, x, budget, scheme="orc") == wanted
    whole = len(calls)
    with pytest.raises(StopError):
        choose(net, x, budget, scheme="orc", work=work, progress=stop)
    calls.clear()
    assert choose(net, x, budget, scheme="orc", work=work) == wanted
    assert len(calls) < whole


def test_an_allowed_loss_goes_on_where_it_was(tmp_path, monkeypatch):
    net, x = network(), images(1)
    labels = net.forward(x).reshape(len(x), -1).argmax(1)
    work = Work(tmp_path / "work", "key")
    options = {"labels": labels, "scheme": "orc", "work": work}
    first = choose(net, x, Budget(max_loss=30.0), **options)
    monkeypatch.setattr(search.Search, "accuracy", None)  # nothing is left to be measured
    assert choose(net, x, Budget(max_loss=30.0), **options) == first


def test_errors_of_candidates_without_covariances_are_near_those_with_them():
    net, x = network(), images(1, 200)

    def errors(learnt) -> list[list[float]]:
        found = search.Search(
            net, x, Budget(times=1.3), scheme="dictionary", settings={}, ou_rows=8, config=None,
            progress=lambda *_: None,
        )  # fmt: skip
        found.choices = replace(found.choices, learnt=learnt)
        return [[each.loss for each in layer] for layer in found.all_candidates()]

    exact, near = errors(None), errors(lambda settings: settings[1::3])
    for one, other in zip(exact, near, strict=True):
        assert len(one) > 3
        assert np.allclose(one, other, rtol=0.35)
    # A mutant without the factor is further away.
    plain = errors(lambda settings: [])
    assert not all(np.allclose(a, b, rtol=0.35) for a, b in zip(exact, plain, strict=True))
