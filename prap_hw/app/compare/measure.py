"""One network under several schemes: figures and costs of each, as rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from prap_hw.app import pricing, stages, workflow
from prap_hw.app.console import Report, silent
from prap_hw.app.stages import BUDGETED, Subject, compiled, events_of
from refmodel.compression.budget import BudgetOf
from refmodel.compression.schemes import SCHEMES
from refmodel.config import EngineConfig
from refmodel.cost import Technology, crossbar_latency
from refmodel.errors import InputError
from refmodel.program.program import Program

COLUMNS = (
    "scheme", "budget", "accuracy", "ou_activations", "conversions", "index_bits", "cycles",
    "seconds", "energy", "area", "failed",
)  # fmt: skip
"""Columns of a row of :func:`compare`, in order; energies and areas by part come beside them."""


def compare(
    subject: Subject,
    schemes: Sequence[str] = tuple(SCHEMES),
    *,
    budgets: Sequence[float] = (),
    of: BudgetOf = "ous",
    technology: workflow.Paths = pricing.DEFAULT_TECHNOLOGY,
    config: workflow.EngineOptions | EngineConfig | None = None,
    engines: int = 1,
    report: Report = silent,
) -> dict[str, Any]:
    """Do what :func:`compare_each` does with one technology, and give its figures."""
    (found,) = compare_each(
        subject,
        schemes,
        budgets=budgets,
        of=of,
        technologies=(technology,),
        config=config,
        engines=engines,
        report=report,
    )
    return found


def compare_each(
    subject: Subject,
    schemes: Sequence[str] = tuple(SCHEMES),
    *,
    budgets: Sequence[float] = (),
    of: BudgetOf = "ous",
    technologies: Sequence[workflow.Paths] = (pricing.DEFAULT_TECHNOLOGY,),
    config: workflow.EngineOptions | EngineConfig | None = None,
    engines: int = 1,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Compile and evaluate a network under several schemes, and price it in each technology.

    Parameters
    ----------
    subject
        The network and its images; without labelled ones no accuracy is measured.
    schemes
        Names in ``SCHEMES``.
    budgets
        Times less than dense that each scheme shall cost, besides its default settings; a scheme
        that has nothing to choose has its default alone.
    of
        The cost that the budgets count.
    technologies
        Technology files, or names of packaged ones, each of another name.
    config
        The engine; it is sized to the network under each scheme.
    engines
        Engines of a tile that each layer is dealt out to.
    report
        Is told of progress.

    Returns
    -------
    list of dict
        To each technology: ``rows``, one to a scheme and budget (:data:`COLUMNS`,
        ``energy_by_part``, ``area_by_part``, ``layers``: of each ``name``, ``cycles``, ``energy``
        by part, ``area`` by part where it is known); ``float``, the accuracy of the float network;
        ``images``; ``technology``, ``assumptions``, ``network``, ``engine`` (options), ``engines``.
    """
    unknown = [scheme for scheme in schemes if scheme not in SCHEMES]
    if unknown or not schemes:
        raise InputError(
            f"expected schemes of {', '.join(SCHEMES)}, found {', '.join(unknown) or 'none'}"
        )
    bad = [each for each in budgets if not each > 1]
    if bad:
        raise InputError(f"expected budgets above 1, found {bad[0]:g}")
    base = workflow.engine(config)
    found_prices = [pricing.load(each) for each in technologies]
    names = [prices.name for prices in found_prices]
    if len(set(names)) < len(names):
        raise InputError(f"expected technologies of different names, found {', '.join(names)}")
    # Files that cannot be read are no fault of a scheme.
    network, _, labelled = subject.floats, subject.preprocess, subject.labelled
    floats = None
    if labelled is not None:
        floats = workflow.float_accuracy(network, *labelled, report=report)
    rows: list[list[dict[str, Any]]] = [[] for _ in found_prices]
    for number, scheme in enumerate(schemes):
        report("compare schemes", number, len(schemes))
        wanted: list[float | None] = [None, *(budgets if scheme in BUDGETED else ())]
        found = compiled(subject, scheme, wanted, of=of, config=base)
        for budget, program in found.items():
            row: dict[str, Any] = {"scheme": scheme, "budget": budget}
            if isinstance(program, InputError):
                priced: list[dict[str, Any]] = [{"failed": str(program)} for _ in rows]
            else:
                priced = _priced(program, base, found_prices, engines)
                if labelled is not None and any("failed" not in each for each in priced):
                    row["accuracy"] = workflow.program_accuracy(
                        program, *labelled, stage=f"evaluate {scheme}"
                    )
            for own, each in zip(rows, priced, strict=True):
                kept = {k: v for k, v in row.items() if k != "accuracy" or "failed" not in each}
                own.append(kept | each)
    report("compare schemes", len(schemes), len(schemes))
    for own in rows:
        if all("failed" in row for row in own):
            raise InputError(
                f"expected a scheme that the network can have, found none: {own[0]['failed']}"
            )
    return [
        {
            "network": workflow.names_of(subject.network),
            "images": 0 if labelled is None else len(labelled[1]),
            "float": floats,
            "of": of,
            "technology": prices.name,
            "assumptions": list(prices.assumptions()),
            "clock_hz": prices.number("clock"),
            "latency": crossbar_latency(prices),
            "engine": {name: getattr(base, name) for name in pricing.ENGINE_FIELDS},
            "engines": engines,
            "rows": own,
            "versions": workflow.versions(),
        }
        for prices, own in zip(found_prices, rows, strict=True)
    ]


def _priced(
    program: Program, base: EngineConfig, prices: Sequence[Technology], engines: int
) -> list[dict[str, Any]]:
    """Figures of a program in each technology, or why there are none."""
    events: dict[int, dict[str, Any]] = {}
    result = []
    for each in prices:
        latency = crossbar_latency(each)
        try:
            if latency not in events:
                events[latency] = events_of(program, base, latency=latency, engines=engines)
            result.append(_figures(events[latency], pricing.price(events[latency], each)))
        except InputError as problem:
            result.append({"failed": str(problem)})
    return result


def _figures(events: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, Any]:
    counts, whole = events["counts"], stages.restored(events)
    of_image = whole.counts
    crossbars = {layer.name: layer.crossbars for layer in whole.layers}
    return {
        "ou_activations": counts["ou_activations"],
        "conversions": of_image["conversions"],
        "merges": of_image["merged"],
        "index_bits": counts["index_bits"],
        "index_bits_read": of_image["index_bits"],
        "crossbars": whole.crossbars,
        "cycles": whole.cycles,
        "seconds": costs["seconds"],
        "energy": costs["total_energy"],
        "area": costs["total_area"],
        "energy_by_part": costs["energy"],
        "area_by_part": costs["area"],
        "notes": costs["notes"],
        "layers": [
            {
                "name": layer["name"],
                "cycles": layer["cycles"],
                "crossbars": crossbars[layer["name"]],
                "energy": layer["energy"],
            }
            for layer in costs["layers"]
        ],
    }


def label(row: Mapping[str, Any]) -> str:
    """Name a row: the scheme, and its budget where it has one."""
    return row["scheme"] if row["budget"] is None else f"{row['scheme']} ÷{row['budget']:g}"
