"""Energy, latency and area: of a program on the engine, and as published.

from refmodel.cost import Technology, price

found = price(program, None, Technology.load("isaac-32nm"))
print(found.joules, found.seconds, found.mm2)
"""

from refmodel.cost.energy import (
    AREAS,
    PARTS,
    LayerCost,
    NetworkCost,
    crossbar_latency,
    engine_for,
    price,
    price_events,
)
from refmodel.cost.events import LayerEvents, NetworkEvents, network_events
from refmodel.cost.technology import Constant, Technology, technology_names

__all__ = [
    "AREAS",
    "PARTS",
    "Constant",
    "LayerCost",
    "LayerEvents",
    "NetworkCost",
    "NetworkEvents",
    "Technology",
    "crossbar_latency",
    "engine_for",
    "network_events",
    "price",
    "price_events",
    "technology_names",
]
