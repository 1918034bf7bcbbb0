"""Requantisation, which the steps ``add`` and ``concat`` share: its parameters and their checks.

Codes of several inputs, each with a multiplier M_k and a zero point z_k, become codes of one scale
and zero point; :class:`refmodel.program.steps.base.Pass` has the formula.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refmodel.program.steps.base import Source, UnsupportedError
from refmodel.program.values import check_limits, whole, wholes


def check_requantisation(params: Mapping[str, Any], count: int, where: str) -> None:
    """Check multipliers and zero points of ``count`` inputs, shift, zero point and limits."""
    for name, low, high in (("multipliers", -32767, 32767), ("zeros_in", 0, 255)):
        wholes(params.get(name), count, low, high, f"{where}, {name}")
    whole(params.get("shift"), 0, 47, f"{where}, shift")
    whole(params.get("zero_out"), 0, 255, f"{where}, zero_out")
    low, high = wholes(params.get("clip"), 2, 0, 255, f"{where}, clip")
    check_limits(low, high, where)


def same_zeros(params: Mapping[str, Any], inputs: Sequence[Source]) -> None:
    """Refuse zero points that are not those of the tensors."""
    zeros = [each.zero for each in inputs]
    if list(params["zeros_in"]) != zeros:
        raise UnsupportedError(f"zero points {params['zeros_in']} of tensors that have {zeros}")


def sums(params: Mapping[str, Any]) -> dict[str, Any]:
    """Requantisation of a sum, as fields of a pass."""
    low, high = params["clip"]
    return {"shift": params["shift"], "zero_out": params["zero_out"], "clip": (low, high)}
