"""Choose the setting of each layer by a budget, or by a loss that is allowed.

Each scheme's file says which settings can be chosen: K and T for scheme ``dictionary``, the share
that a layer keeps for ``prap``, ``similar``, ``identical``, ``orc`` and ``structured``, and for
``prap`` the size of its groups, too.

How much a layer's error matters is measured on the network, not guessed:

- The **error** of a layer for each candidate is what is wrong with its output: the variance
  of the difference over that of the output, from the covariances of its inputs.
- The **sensitivity** of a layer is how far the network's answers move (Kullback-Leibler divergence
  of the classes' probabilities) when this layer alone is mapped, over its error then:
  :mod:`refmodel.compression.budget.sensitivity`.
- The loss of a choice is taken to be the sum over the layers of sensitivity times error. From the
  cheapest candidates on, the step that lessens the loss most for what it costs is taken, again and
  again: along the lower convex hull of each layer's candidates, up to running dense.

A budget stops this path at the last choice that it allows. An allowed loss of accuracy is looked
for on it by halving: each choice tried is mapped, its moments are matched, and its accuracy on the
calibration images is compared with that of the network.
"""

from refmodel.compression.budget.candidates import (
    BUDGET_OF,
    COUNTED_OF,
    Budget,
    BudgetOf,
    Candidate,
    Choice,
    choosable,
    hull,
    path,
    variants,
)
from refmodel.compression.budget.choice import choose, choose_each

__all__ = [
    "BUDGET_OF",
    "COUNTED_OF",
    "Budget",
    "BudgetOf",
    "Candidate",
    "Choice",
    "choosable",
    "choose",
    "choose_each",
    "hull",
    "path",
    "variants",
]
