"""What a budget counts: of a mapped layer by itself, to compare settings, and of whole programs.

OU activations and weighted conversions add up over the layers. Cycles and energy are those of one
engine that is sized to the whole network: how long a merge waits for slots, what a bit of an index
costs to read, and what leaks for how long, depends on the other layers, too. So a layer's figure is
an estimate there, and what a choice costs is measured on the programs of all layers: the cycles
that ``prap inspect`` has, the joules that ``prap price`` has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refmodel.compression.budget.candidates import Budget
from refmodel.compression.quantize import QuantNetwork
from refmodel.config import EngineConfig
from refmodel.cost import (
    LayerEvents,
    NetworkEvents,
    Technology,
    engine_for,
    network_events,
    price_events,
)
from refmodel.predict import cycles
from refmodel.predict.accelerator import accelerator_config_for
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted of a layer: its cost, and the events from which energy is priced again."""

    cost: float
    events: LayerEvents | None = None


class Meter:
    """Costs that are sums over the layers.

    Parameters
    ----------
    budget
        The budget; :attr:`Budget.of` says what is counted.
    config
        The engine that was asked for.
    """

    adds_up = True
    """Whether a network's cost is the sum of what was counted of its layers."""

    def __init__(self, budget: Budget, config: EngineConfig) -> None:
        self.budget, self.config = budget, config

    def layer(self, program: LayerProgram) -> Counted:
        """Count one image of a layer."""
        config = self.config
        widths = program.gather_patterns.astype(np.int64) * config.columns_per_weight
        if self.budget.of == "ous":
            return Counted(cost=float((-(-widths // config.ou_cols)).sum() * program.positions))
        conversions = int(widths.sum()) * config.digits
        merges = int(program.group_outputs.sum(dtype=np.int64)) * program.terms
        cost = conversions + self.budget.merge_weight * merges
        return Counted(cost=cost * program.positions)

    def network(self, programs: Sequence[LayerProgram]) -> float:
        """Cost of one image of a network with these programs of its layers."""
        return sum(self.layer(program).cost for program in programs)

    def refer(self, programs: Sequence[LayerProgram]) -> None:
        """Count layers from now on as on the engine of a network with these programs."""

    def recounted(self, found: Sequence[Counted]) -> list[float]:
        """Costs of layers that were counted before, on the engine of today."""
        return [each.cost for each in found]


class CycleMeter(Meter):
    """Predicted cycles: those of a layer on an engine sized to it alone are the estimate."""

    adds_up = False

    def layer(self, program: LayerProgram) -> Counted:
        """Predict the cycles of one image of a layer."""
        config = engine_config_for([program], self.config)
        return Counted(cost=float(cycles.predict(program, config).cycles))

    def network(self, programs: Sequence[LayerProgram]) -> float:
        """Predict the cycles of all layers on the engine that is sized to them."""
        config = engine_config_for(programs, self.config)
        return float(sum(cycles.predict(program, config).cycles for program in programs))


class EnergyMeter(Meter):
    """Joules on an accelerator, in a technology.

    A layer's estimate has the prices and the leakage of a reference: the accelerator of
    :meth:`refer`.

    Parameters
    ----------
    budget, config
        As for :class:`Meter`.
    quant
        The network: its steps and tensors.
    """

    adds_up = False

    def __init__(self, budget: Budget, config: EngineConfig, quant: QuantNetwork) -> None:
        assert budget.technology is not None
        self.technology = Technology.load(budget.technology)
        super().__init__(budget, engine_for(config, self.technology))
        self.quant = quant
        self.reference = self.config

    def _program(self, layers: Sequence[LayerProgram]) -> Program:
        quant = self.quant
        return Program(
            layers=tuple(layers),
            steps=quant.steps,
            tensors={
                name: {"shape": list(each.shape), "scale": float(each.scale), "zero": each.zero}
                for name, each in quant.tensors.items()
            },
            input=quant.input,
            output=quant.output,
            preprocess={},
        )

    def layer(self, program: LayerProgram) -> Counted:
        """Count and price one image of a layer."""
        config = engine_config_for([program], self.config)
        (events,) = network_events(self._program([program]), config).layers
        (cost,) = self._price([events])
        return Counted(cost=cost, events=events)

    def network(self, programs: Sequence[LayerProgram]) -> float:
        """Price one image of a network: the joules of ``prap price``."""
        program = self._program(programs)
        config = accelerator_config_for(program, self.config)
        return price_events(network_events(program, config), config, self.technology).joules

    def refer(self, programs: Sequence[LayerProgram]) -> None:
        """Price layers from now on as on the accelerator of a network with these programs."""
        self.reference = accelerator_config_for(self._program(programs), self.config)

    def recounted(self, found: Sequence[Counted]) -> list[float]:
        """Prices of layers whose events were counted before, on the accelerator of today."""
        events = [each.events for each in found if each.events is not None]
        return self._price(events)

    def _price(self, layers: Sequence[LayerEvents]) -> list[float]:
        events = NetworkEvents(
            name="", scheme="", config=self.reference, engines=1, layers=tuple(layers)
        )
        found = price_events(events, None, self.technology)
        return [each.joules for each in found.layers]


def meter_of(budget: Budget, config: EngineConfig, quant: QuantNetwork) -> Meter:
    """Make the meter of a budget."""
    if budget.of == "energy":
        return EnergyMeter(budget, config, quant)
    return CycleMeter(budget, config) if budget.of == "cycles" else Meter(budget, config)
