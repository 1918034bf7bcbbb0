"""Rows of a sweep: points and prices side by side, as a table, CSV, Parquet and a page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.app import pricing, stages, workflow
from prap_hw.app.console import Report, silent
from prap_hw.app.sweep import points
from prap_hw.app.sweep.run import STORE
from prap_hw.app.sweep.spec import ENGINE_KEYS, IDEAL, Spec
from prap_hw.app.sweep.store import Store
from prap_hw.app.tables import csv_text
from refmodel import files
from refmodel.cost import Technology, crossbar_latency
from refmodel.errors import InputError
from refmodel.table import Table

CSV_FILE, PARQUET_FILE, PAGE_FILE = "sweep.csv", "sweep.parquet", "sweep.html"

POINT = ("network", "scheme", "budget", *ENGINE_KEYS, "engines", "device", "technology")
"""Columns that say which point a row is."""

FIGURES = (
    "float_accuracy", "accuracy", "accuracy_spread", "kept", "ou_activations", "index_bits",
    "conversions", "merges", "crossbars", "cycles", "seconds", "energy", "area",
)  # fmt: skip
"""Columns of figures; ``accuracy`` is the mean over the chips where there is a device."""


def rows_of(spec: Spec, folder: Path | str, *, report: Report = silent) -> list[dict[str, Any]]:
    """Price all points of a specification that are in a folder; nothing is compiled.

    Returns
    -------
    list of dict
        :data:`POINT`, :data:`FIGURES`, ``energy_<part>`` in J, ``area_<part>`` in mm², and
        ``failed``, the reason where there are no figures.
    """
    store = Store(Path(folder) / STORE)
    technologies = {name: pricing.load(name) for name in spec.technologies}
    found, size = [], spec.size()
    counted: dict[str, Mapping[str, Any]] = {}
    for number, (point, keys) in enumerate(_points(spec, technologies)):
        if number % 50 == 0:
            report("price", number, size)
        try:
            figures = _figures(store, keys, technologies[point["technology"]], counted)
            found.append(point | figures | {"failed": None})
        except InputError as problem:
            found.append(point | {"failed": str(problem)})
    report("price", size, size)
    for row in found:
        row["technology"] = technologies[row["technology"]].name
        if row["device"] != IDEAL:
            row["device"] = Path(row["device"]).stem
    names = [*POINT, *FIGURES]
    names += sorted({name for row in found for name in row} - set(names) - {"failed"})
    return [{name: row.get(name) for name in (*names, "failed")} for row in found]


def _points(
    spec: Spec, technologies: Mapping[str, Technology]
) -> Iterator[tuple[dict[str, Any], dict[str, str | None]]]:
    """Each row's point, and the keys of the records that it is made of."""
    latency = {name: crossbar_latency(each) for name, each in technologies.items()}
    for name, subject in spec.networks:
        floats = points.float_key(subject) if subject.images else None
        for scheme in spec.schemes:
            for budget in spec.budgets_of(scheme):
                for config, engines in spec.engines:
                    program = points.compile_key(subject, scheme, budget, spec.of, config)
                    for device in spec.devices:
                        chip = None
                        if device != IDEAL:
                            chip = points.device_key(program, config, device, spec.trials)
                        for technology in spec.technologies:
                            point: dict[str, Any] = {
                                "network": name,
                                "scheme": scheme,
                                "budget": budget,
                                **{key: getattr(config, key) for key in ENGINE_KEYS},
                                "engines": engines,
                                "device": device,
                                "technology": technology,
                            }
                            events = points.events_key(
                                program, config, engines, latency[technology]
                            )
                            yield (
                                point,
                                {
                                    points.COMPILE: program,
                                    points.EVENTS: events,
                                    points.DEVICE: chip,
                                    points.FLOAT: floats,
                                },
                            )


def _figures(
    store: Store,
    keys: Mapping[str, str | None],
    technology: Technology,
    counted: dict[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Figures of a row; InputError where a record failed."""

    def result(kind: str) -> Mapping[str, Any] | None:
        key = keys[kind]
        if key is None:
            return None
        if key not in counted:
            counted[key] = points.record(store, kind, key)
        if "failed" in counted[key]:
            raise InputError(str(counted[key]["failed"]))
        return counted[key]["result"]

    program, events = result(points.COMPILE), result(points.EVENTS)
    chips, floats = result(points.DEVICE), result(points.FLOAT)
    assert program is not None
    assert events is not None
    costs = pricing.price(events, technology)
    whole = stages.restored(events)
    accuracy, spread = program["accuracy"], None
    if chips is not None:
        shares = chips["accuracy"]
        accuracy = float(np.mean(shares))
        spread = float(np.std(shares, ddof=1)) if len(shares) > 1 else None
    counts = whole.counts
    return {
        "float_accuracy": floats["accuracy"] if floats else None,
        "accuracy": accuracy,
        "accuracy_spread": spread,
        "kept": events["counts"]["kept"],
        "ou_activations": events["counts"]["ou_activations"],
        "index_bits": events["counts"]["index_bits"],
        "conversions": counts["conversions"],
        "merges": counts["merged"],
        "crossbars": whole.crossbars,
        "cycles": whole.cycles,
        "seconds": costs["seconds"],
        "energy": costs["total_energy"],
        "area": costs["total_area"],
        **{f"energy_{part.replace(' ', '_')}": value for part, value in costs["energy"].items()},
        **{f"area_{part.replace(' ', '_')}": value for part, value in costs["area"].items()},
    }


def write_results(
    rows: Sequence[Mapping[str, Any]], folder: Path | str, *, title: str
) -> list[Path]:
    """Write the rows as CSV, as Parquet where pyarrow is installed, and as a page.

    Returns
    -------
    list of Path
        The files written.
    """
    from prap_hw.app.sweep.page import render_page

    folder = Path(folder)
    table = Table(rows)
    written = [folder / CSV_FILE]
    with files.new_file(written[0]) as draft:
        draft.write_text(csv_text(table), encoding="utf-8")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        pass
    else:
        arrow = pyarrow.table({name: [row[name] for row in rows] for name in table.columns})
        written.append(folder / PARQUET_FILE)
        with files.new_file(written[-1]) as draft:
            pyarrow.parquet.write_table(arrow, draft)
    written.append(folder / PAGE_FILE)
    with files.new_file(written[-1]) as draft:
        draft.write_text(render_page(rows, title=title), encoding="utf-8")
    return written


def sweep(
    spec: Spec | workflow.Paths,
    folder: workflow.Paths,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    report: Report = silent,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run a specification and price it: rows, and what :func:`run_points` says of the run."""
    from prap_hw.app.sweep.run import run_points
    from prap_hw.app.sweep.spec import read_spec

    chosen = spec if isinstance(spec, Spec) else read_spec(spec)
    done = run_points(chosen, Path(folder), workers=workers, scheduler=scheduler, report=report)
    return rows_of(chosen, Path(folder), report=report), done
