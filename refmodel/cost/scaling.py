"""Energy and area of logic and SRAM from one process node to another, by Stillmaker and Baas.

A. Stillmaker, B. Baas: Scaling equations for the accurate prediction of CMOS device performance
from 180 nm to 7 nm, Integration 58, 2017, pages 74 to 81, doi:10.1016/j.vlsi.2017.02.002. The
energy of a node at supply V is proportional to ``a V^2 + b V + c``; relative areas are tabulated.
Both are as the program hwcomponents 1.0.114 (MIT) quotes them. Between two nodes of the tables
values are linear in the node, as there; nodes outside of them are refused.

    from refmodel.cost.scaling import area_factor, energy_factor

    energy_factor(45, 22, supply=0.8)  # 0.294
"""

ENERGY = {
    130: (7.171, -6.709, 2.904),
    90: (4.762, -4.781, 2.092),
    65: (3.755, -4.398, 1.975),
    45: (1.103, -0.362, 0.2767),
    32: (0.9559, -0.7823, 0.471),
    20: (0.373, -0.1582, 0.04104),
    16: (0.2958, -0.1241, 0.03024),
    14: (0.2363, -0.09675, 0.02239),
    10: (0.2068, -0.09311, 0.02375),
    7: (0.1776, -0.09097, 0.02447),
}
"""Coefficients a, b, c of each node in nm."""

AREA = {130: 110, 90: 48, 65: 25, 45: 17, 32: 7.8, 20: 3.6, 16: 3.2, 14: 2.9, 10: 1.7, 7: 1.0}
"""Area of the same logic at each node in nm, in areas at 7 nm."""

FINEST, COARSEST = min(ENERGY), max(ENERGY)
"""The least and the greatest node in nm that can be scaled from and to."""


def energy_factor(source: float, target: float, *, supply: float) -> float:
    """Energy of logic at node ``target`` over that at node ``source``, both at ``supply`` volts."""
    levels = {node: (a * supply + b) * supply + c for node, (a, b, c) in ENERGY.items()}
    return _at(levels, target) / _at(levels, source)


def area_factor(source: float, target: float) -> float:
    """Area of logic at node ``target`` over that at node ``source``."""
    return _at(AREA, target) / _at(AREA, source)


def _at(table: dict[int, float], node: float) -> float:
    """Value at a node, on the line between the two of the table that enclose it."""
    if not FINEST <= node <= COARSEST:
        raise ValueError(f"node must be {FINEST} to {COARSEST} nm, not {node!r}")
    low = max(each for each in table if each <= node)
    high = min(each for each in table if each >= node)
    if low == high:
        return table[low]
    share = (node - low) / (high - low)
    return table[low] * (1 - share) + table[high] * share
