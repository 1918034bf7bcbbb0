"""Settings by a budget or an allowed loss."""

import math
import re

import numpy as np
import pytest

import refmodel
from refmodel.compression.budget import (
    Budget,
    Candidate,
    Choice,
    choice,
    choosable,
    choose,
    choose_each,
    hull,
    path,
)
from refmodel.compression.budget.meter import EnergyMeter
from refmodel.compression.budget.sensitivity import divergence, log_shares
from refmodel.compression.compile import compile_network, map_network
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import LayerSetting
from refmodel.config import EngineConfig
from refmodel.cost import Technology, engine_for, network_events, price_events
from refmodel.errors import InputError
from refmodel.predict.accelerator import accelerator_config_for
from refmodel.program.sizes import engine_config_for, ou_count
from tests.support.nets.moment_nets import images, network


def candidates(*pairs: tuple[float, float]) -> list[Candidate]:
    return [Candidate(setting=LayerSetting(), cost=cost, loss=loss) for cost, loss in pairs]


def pairs(found: list[Candidate]) -> list[tuple[float, float]]:
    return [(each.cost, each.loss) for each in found]


def test_a_hull_by_hand():
    found = hull(candidates((3, 2), (1, 10), (4, 3), (2, 9), (6, 0)))
    assert pairs(found) == [(1, 10), (3, 2), (6, 0)]
    # Of equal costs the less loss, of equal losses the less cost.
    assert pairs(hull(candidates((1, 5), (1, 4), (2, 4), (3, 0)))) == [(1, 4), (3, 0)]


@pytest.mark.parametrize("seed", range(5))
def test_no_candidate_lies_below_its_hull(seed):
    rng = np.random.default_rng(seed)
    points = [(float(a), float(b)) for a, b in rng.integers(0, 30, (20, 2))]
    found = pairs(hull(candidates(*points)))
    costs, losses = np.array(found).T
    for cost, loss in points:
        assert loss >= np.interp(cost, costs, losses) - 1e-9
    # A mutant, the hull without one of its middle points, is found out.
    if len(found) > 2:
        less = np.delete(np.array(found), 1, axis=0).T
        assert any(loss < np.interp(cost, *less) - 1e-9 for cost, loss in points)


def test_a_path_by_hand():
    # Steps: layer 0 saves 4 for 1, then 1 for 2; layer 1 saves 6 for 2.
    layers = [candidates((1, 5), (2, 1), (4, 0)), candidates((1, 6), (3, 0))]
    assert path(layers) == [(0, 0), (1, 0), (1, 1), (2, 1)]


def test_divergence_by_hand():
    # Shares 1/2, 1/2 against 1/4, 3/4: (log 2 + log 2/3) / 2.
    reference = log_shares(np.zeros((1, 2), np.float32))
    found = divergence(reference, np.log(np.array([[1, 3]], np.float32)))
    assert np.isclose(found, 0.5 * np.log(4 / 3))


LANES = EngineConfig(merge_lanes=2)


def joules(times: float, technology: str = "modern-22nm") -> Budget:
    return Budget(times=times, of="energy", technology=technology)


def priced(scheme: str, settings: dict | None, technology: str) -> float:
    """The joules of the network as it is compiled with these settings: those of `prap price`."""
    program = refmodel.compress(network(), images(1), scheme=scheme, settings=settings)
    file = Technology.load(technology)
    config = accelerator_config_for(program, engine_for(LANES, file))
    return price_events(network_events(program, config), config, file).joules


def keeps_to(budget: Budget, scheme: str) -> Choice:
    """Check what is owed: the cost of a choice is its price, and is within the budget."""
    assert budget.times is not None
    assert budget.technology is not None
    found = choose(network(), images(1), budget, scheme=scheme, config=LANES)
    assert found.cost is not None
    assert math.isclose(found.cost, priced(scheme, found.settings, budget.technology))
    dense = priced("dense", None, budget.technology)
    assert found.cost * budget.times <= dense
    assert math.isclose(found.ratio, dense / found.cost)
    return found


@pytest.mark.parametrize("scheme", choosable())
def test_a_budget_of_energy_is_kept_to_the_joule(scheme):
    keeps_to(joules(1.15), scheme)


@pytest.mark.long
@pytest.mark.parametrize("technology", ["isaac-32nm", "published-2023"])
def test_a_budget_of_energy_is_kept_in_every_technology(technology):
    found = keeps_to(joules(1.3, technology), "dictionary")
    assert keeps_to(joules(1.15, technology), "dictionary").ratio <= found.ratio


def test_sums_of_estimates_are_not_taken_for_a_price(monkeypatch):
    # The mutant: what layers cost by themselves, added up, is not what the network costs.
    monkeypatch.setattr(EnergyMeter, "adds_up", True)
    with pytest.raises(AssertionError):
        keeps_to(joules(1.15), "orc")


def test_a_choice_above_its_budget_is_found_out(monkeypatch):
    # A first guess that is far off costs some measurements. The mutant takes it as it is.
    monkeypatch.setattr(choice, "_last", lambda costs, limit: len(costs) - 1)
    keeps_to(joules(1.3), "orc")
    monkeypatch.setattr(choice, "_within", lambda cost, limit: True)
    with pytest.raises(AssertionError):
        keeps_to(joules(1.3), "orc")


def test_cycles_are_those_of_the_engine_for_the_whole_network():
    net, x = network(), images(1)
    found = choose(net, x, Budget(times=1.2, of="cycles"), config=LANES)
    program = refmodel.compress(net, x, scheme="dictionary", settings=found.settings)
    assert found.cost is not None
    assert found.cost == program.metrics(LANES).total.cycles
    dense = refmodel.compress(net, x, scheme="dense").metrics(LANES).total.cycles
    assert found.ratio == dense / found.cost >= 1.2


@pytest.mark.parametrize("of", ["ous", "cycles", "weighted"])
def test_a_budget_is_kept_and_used(of):
    net, x = network(), images(1)
    settings = {"conv2": LayerSetting(scheme="dictionary", patterns=2, terms=1)}
    found = choose(net, x, Budget(times=1.5, of=of), settings=settings)
    assert list(found.settings) == ["conv1"]
    assert found.ratio >= 1.5
    more = choose(net, x, Budget(times=1.2, of=of), settings=settings)
    assert 1.2 <= more.ratio <= found.ratio


def test_the_ratio_is_that_of_the_mapped_network():
    net, x = network(), images(1)
    found = choose(net, x, Budget(times=1.3))
    quant = quantize(net, x)
    maps = map_network(quant, scheme="dictionary", settings=found.settings)
    dense = sum(each.ous_dense for each in maps)
    assert np.isclose(found.ratio, dense / sum(each.kept for each in maps), rtol=0.05)


def test_an_allowed_loss_is_kept():
    net, x = network(), images(1)
    labels = net.forward(x).reshape(len(x), -1).argmax(1)
    none = choose(net, x, Budget(max_loss=0.0), labels=labels)
    some = choose(net, x, Budget(max_loss=60.0), labels=labels)
    assert none.loss == 0
    assert some.loss is not None
    assert some.loss <= 60
    assert some.ratio >= none.ratio


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of times and max_loss must be given, not both or neither"),
        ({"times": 2.0, "max_loss": 1.0}, "not both or neither"),
        ({"times": 1.0}, "times must be above 1, not 1.0"),
        ({"max_loss": -1.0}, "max_loss must be 0 to 100 points, not -1.0"),
        ({"times": 2.0, "of": "joules"}, "of must be one of ous, cycles, weighted, energy, not"),
        ({"times": 2.0, "merge_weight": -1.0}, "merge_weight must be at least 0, not -1.0"),
        ({"times": 2.0, "of": "energy"}, "technology must be given for energy, and for nothing"),
        ({"times": 2.0, "technology": "isaac-32nm"}, "not 'isaac-32nm' for ous"),
    ],
)
def test_budgets_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Budget(**options)


def test_what_cannot_be_chosen_is_refused():
    net, x = network(), images(1)
    with pytest.raises(InputError, match="expected a budget of at most"):
        choose(net, x, Budget(times=50.0))
    with pytest.raises(InputError, match="labels for a loss, found none"):
        choose(net, x, Budget(max_loss=1.0))
    with pytest.raises(
        InputError, match=r"expected one of the schemes .* with a budget, found shape"
    ):
        choose(net, x, Budget(times=2.0), scheme="shape")
    with pytest.raises(ValueError, match="budgets must be of the same"):
        choose_each(net, x, [Budget(times=2.0), Budget(times=2.0, of="cycles")])


@pytest.mark.parametrize("scheme", sorted(set(choosable()) - {"dictionary"}))
def test_every_scheme_that_keeps_a_share_keeps_to_a_budget(scheme):
    net, x = network(), images(1)
    found = choose(net, x, Budget(times=1.3), scheme=scheme)
    maps = map_network(quantize(net, x), scheme=scheme, settings=found.settings)
    program = compile_network(quantize(net, x), scheme=scheme, mappings=maps)
    dense = compile_network(quantize(net, x), scheme="dense")
    config = engine_config_for([*program.layers, *dense.layers], EngineConfig())
    counts = [
        sum(ou_count(layer, config) * layer.positions for layer in each.layers)
        for each in (dense, program)
    ]
    assert np.isclose(found.ratio, counts[0] / counts[1])
    assert found.ratio >= 1.3


def test_settings_by_hand_that_lose_too_much_are_refused():
    net, x = network(), images(1)
    labels = net.forward(x).reshape(len(x), -1).argmax(1)
    hand = {name: LayerSetting(scheme="orc", keep=0.03) for name in ("conv1", "conv2")}
    with pytest.raises(InputError, match="expected settings by hand that lose at most 1 points"):
        choose(net, x, Budget(max_loss=1.0), labels=labels, scheme="orc", settings=hand)


def test_nothing_is_kept_by_no_choice():
    net, x = network(), images(1)
    for scheme in ("prap", "similar", "orc"):
        found = choose(net, x, Budget(times=1.6), scheme=scheme)
        maps = map_network(quantize(net, x), scheme=scheme, settings=found.settings)
        assert all(each.kept for each in maps)


def test_several_budgets_are_chosen_as_one_by_one():
    net, x = network(), images(1)
    budgets = [Budget(times=1.2), Budget(times=1.5)]
    together = choose_each(net, x, budgets)
    assert together == [choose(net, x, budget) for budget in budgets]


def test_budgets_beyond_reach_are_left_out_where_asked():
    net, x = network(), images(1)
    budgets = [Budget(times=1.5), Budget(times=50.0)]
    found = choose_each(net, x, budgets, reachable_only=True)
    assert found == [choose(net, x, budgets[0]), None]
    with pytest.raises(InputError, match="expected a budget of at most"):
        choose_each(net, x, budgets)
