"""Running a sweep, in this process or on Dask; what is there already is not worked out again."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prap_hw.app import pricing
from prap_hw.app.console import Report, silent
from prap_hw.app.sweep import points
from prap_hw.app.sweep.spec import IDEAL, Spec
from prap_hw.app.sweep.store import Store
from refmodel.config import EngineConfig
from refmodel.cost import crossbar_latency
from refmodel.errors import InputError, require_extra

STORE = "points"
"""Folder of the records, in the folder of a sweep."""

RETRIES = 5
"""Deaths of a worker that a task survives."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to work out in a worker.

    Attributes
    ----------
    name
        A phrase for a row that failed.
    function, arguments
        A function of :mod:`prap_hw.app.sweep.points` and what it is called with; plain values.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


Executor = Callable[[str, Sequence[Task], Report], dict[str, str]]
"""Runs tasks of a stage; gives reasons of those that failed, by name."""


def run_points(
    spec: Spec,
    folder: Path | str,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Work out all points of a specification that the folder does not hold yet.

    Parameters
    ----------
    spec
        The specification.
    folder
        The folder of the sweep; points go to ``points`` in it.
    workers
        Processes of a Dask cluster of this machine; 0: none, all runs in this process.
    scheduler
        Address of a Dask scheduler whose workers see the same files, instead.
    report
        Is told of progress.

    Returns
    -------
    dict
        ``worked_out``, records written by this run, by kind; ``problems``, reasons of tasks that
        failed otherwise than by their input, by name: these are tried again by the next run.
    """
    where = str((Path(folder) / STORE).resolve())
    store = Store(where)
    before = _records(store)
    with _executor(workers, scheduler) as execute:
        problems = execute("compile", _compile_tasks(spec, where), report)
        ready = {
            place: key
            for place, key in _programs(spec)
            if "result" in points.record(store, points.COMPILE, key)
        }
        problems |= execute("count events", _event_tasks(spec, where, ready), report)
        problems |= execute("measure on devices", _device_tasks(spec, where, ready), report)
    after = _records(store)
    return {
        "worked_out": {kind: len(after[kind] - before[kind]) for kind in after},
        "problems": problems,
    }


def _records(store: Store) -> dict[str, set[str]]:
    """Names of the records that are there, by kind."""
    kinds = (points.COMPILE, points.EVENTS, points.DEVICE, points.FLOAT)
    return {
        kind: {path.stem for path in (store.folder / kind).glob("[!.]*.json")} for kind in kinds
    }


def bases(spec: Spec, of_budget: bool) -> list[EngineConfig]:
    """Engines for which programs differ: the first with each of the sizes that matter."""
    fields = points.choice_fields(spec.of) if of_budget else ("ou_rows",)
    found: dict[tuple[int, ...], EngineConfig] = {}
    for config, _ in spec.engines:
        found.setdefault(tuple(getattr(config, name) for name in fields), config)
    return list(found.values())


def _programs(spec: Spec) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Key of each program, by network, scheme, budget and engine."""
    for number, (_, subject) in enumerate(spec.networks):
        for scheme in spec.schemes:
            for budget in spec.budgets_of(scheme):
                for config in dict.fromkeys(config for config, _ in spec.engines):
                    key = points.compile_key(subject, scheme, budget, spec.of, config)
                    yield (number, scheme, budget, config), key


def _compile_tasks(spec: Spec, where: str) -> list[Task]:
    tasks = []
    for name, subject in spec.networks:
        if subject.images:
            arguments = (where, subject)
            tasks.append(
                Task(name=f"{name}, float", function=points.measure_float, arguments=arguments)
            )
        for scheme in spec.schemes:
            wanted = spec.budgets_of(scheme)
            for of_budget in (False, True):
                budgets = [each for each in wanted if (each is not None) == of_budget]
                for config in bases(spec, of_budget) if budgets else []:
                    arguments = (where, subject, scheme, budgets, spec.of, config)
                    label = (
                        f"{name}, {scheme}, {config.ou_rows} rows{', budgets' if of_budget else ''}"
                    )
                    label += f", engine {spec_place(spec, config)}" if of_budget else ""
                    tasks.append(
                        Task(name=label, function=points.compile_points, arguments=arguments)
                    )
    return tasks


def spec_place(spec: Spec, config: EngineConfig) -> int:
    """Number of an engine in a specification, from 1."""
    return [each for each, _ in spec.engines].index(config) + 1


def latencies(spec: Spec) -> tuple[int, ...]:
    """Crossbar latencies of the technologies; pricing needs events of each."""
    return tuple(dict.fromkeys(crossbar_latency(pricing.load(t)) for t in spec.technologies))


def _event_tasks(spec: Spec, where: str, ready: dict[tuple[Any, ...], str]) -> list[Task]:
    tasks: dict[str, Task] = {}
    for (_, _, _, base), program in ready.items():
        for config, engines in spec.engines:
            if config != base:
                continue
            for latency in latencies(spec):
                key = points.events_key(program, config, engines, latency)
                arguments = (where, program, config, engines, latency)
                tasks[key] = Task(name=key, function=points.count_events, arguments=arguments)
    return list(tasks.values())


def _device_tasks(spec: Spec, where: str, ready: dict[tuple[Any, ...], str]) -> list[Task]:
    tasks: dict[str, Task] = {}
    for (number, _, _, config), program in ready.items():
        subject = spec.networks[number][1]
        for device in spec.devices:
            if device == IDEAL:
                continue
            key = points.device_key(program, config, device, spec.trials)
            arguments = (where, program, config, subject, device, spec.trials)
            tasks[key] = Task(name=key, function=points.measure_device, arguments=arguments)
    return list(tasks.values())


def _reason(problem: BaseException) -> str:
    first = (str(problem).splitlines() or [""])[0]
    return f"{type(problem).__name__}: {first}" if first else type(problem).__name__


def _here(stage: str, tasks: Sequence[Task], report: Report) -> dict[str, str]:
    """Run tasks one after the other in this process."""
    problems = {}
    for number, task in enumerate(tasks):
        report(stage, number, len(tasks))
        try:
            task.function(*task.arguments)
        except Exception as problem:  # a row says why; the sweep goes on
            problems[task.name] = _reason(problem)
    if tasks:
        report(stage, len(tasks), len(tasks))
    return problems


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Give a function that runs tasks: here, on a local cluster, or on one that is there."""
    if not workers and scheduler is None:
        yield _here
        return
    require_extra("sweep")
    from dask.config import set as dask_settings
    from distributed import Client, LocalCluster, as_completed

    # Small matrix products gain nothing from a second thread, and workers are processes.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    settings = {
        "distributed.scheduler.allowed-failures": RETRIES,
        "distributed.worker.memory.terminate": False,
        "logging.distributed": "error",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask_settings(settings))
        if scheduler is None:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
            )
            address = stack.enter_context(cluster)
        else:
            address = scheduler
        try:
            client = stack.enter_context(Client(address, timeout=20))
        except (OSError, ValueError) as problem:
            raise InputError(
                f"expected a Dask scheduler, found none at {scheduler} ({_reason(problem)})"
            ) from None

        def execute(stage: str, tasks: Sequence[Task], report: Report) -> dict[str, str]:
            futures = {
                client.submit(task.function, *task.arguments, pure=False, retries=0): task
                for task in tasks
            }
            problems = {}
            for done, future in enumerate(as_completed(list(futures)), 1):
                report(stage, done - 1, len(tasks))
                problem = future.exception()
                if problem is not None:
                    problems[futures[future].name] = _reason(problem)
            if tasks:
                report(stage, len(tasks), len(tasks))
            return problems

        yield execute
