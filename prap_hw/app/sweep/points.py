"""Points of a sweep: what each is keyed by, and how it is worked out.

There are three kinds of records before a price: ``compile`` (a program, and its accuracy), which
depends on network, images, scheme, budget and the OU's rows; ``events`` (cycles and counts of an
image), which depends on a program and an engine; ``device`` (accuracy on chips), on a program, an
engine's cells and converters, and a device. Functions here run in worker processes: they take plain
values, look into the store first, and write each record as soon as it is there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from prap_hw.app import workflow
from prap_hw.app.stages import Subject, compiled, events_of
from prap_hw.app.sweep.store import Store, file_hash, key_of, source_hash
from refmodel import api, files, golden
from refmodel.compression.budget import BudgetOf
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.chip import accuracy as chip_accuracy
from refmodel.golden.devices.device import FOLDER, Device

COMPILE, EVENTS, DEVICE, FLOAT = "compile", "events", "device", "float"
"""Kinds of records."""

CELL_FIELDS = ("ou_rows", "ou_cols", "crossbar_size", "cell_bits", "dac_bits", "adc_bits", "adcs")
"""Sizes of an engine on which the accuracy of a chip depends."""


def _images_of(subject: Subject) -> dict[str, Any]:
    """Describe a subject by its content: files by their hashes."""
    plain = dataclasses.asdict(subject)
    for name in ("network", "calibration", "images"):
        value = plain[name]
        several = [value] if isinstance(value, str) else value
        plain[name] = [file_hash(str(each)) for each in several]
    return plain


def float_key(subject: Subject) -> str:
    """Key of the float network's accuracy."""
    return key_of(FLOAT, {"subject": _images_of(subject), "sources": source_hash()})


def choice_fields(of: str) -> tuple[str, ...]:
    """Sizes of an engine on which the choice by a budget depends, by what the budget counts."""
    if of == "cycles":
        return tuple(field.name for field in dataclasses.fields(EngineConfig))
    return ("ou_rows", "ou_cols", "cell_bits", "dac_bits")


def compile_content(
    subject: Subject, scheme: str, budget: float | None, of: str, config: EngineConfig
) -> dict[str, Any]:
    """Collect all that a compiled program depends on."""
    content: dict[str, Any] = {
        "subject": _images_of(subject),
        "scheme": scheme,
        "ou_rows": config.ou_rows,
        "sources": source_hash(),
    }
    if budget is not None:
        content |= {"budget": budget, "of": of}
        content["engine"] = {name: getattr(config, name) for name in choice_fields(of)}
    return content


def compile_key(
    subject: Subject, scheme: str, budget: float | None, of: str, config: EngineConfig
) -> str:
    """Key of a compiled program."""
    return key_of(COMPILE, compile_content(subject, scheme, budget, of, config))


def events_key(program: str, config: EngineConfig, engines: int, latency: int) -> str:
    """Key of the events of a program, which is named by its key."""
    return key_of(EVENTS, _events_content(program, config, engines, latency))


def _events_content(
    program: str, config: EngineConfig, engines: int, latency: int
) -> dict[str, Any]:
    return {
        "program": program,
        "engine": dataclasses.asdict(config),
        "engines": engines,
        "latency": latency,
        "cost": source_hash(("cost/events.py",)),
    }


def device_key(program: str, config: EngineConfig, device: str, trials: int) -> str:
    """Key of the accuracy of a program on chips of a device."""
    return key_of(DEVICE, _device_content(program, config, device, trials))


def _device_content(program: str, config: EngineConfig, device: str, trials: int) -> dict[str, Any]:
    packaged = FOLDER / f"{device}.toml"
    content = {
        "program": program,
        "cells": {name: getattr(config, name) for name in CELL_FIELDS},
        "device": file_hash(str(packaged if packaged.is_file() else Path(device))),
        "trials": trials,
    }
    # A file that the device file names may change without it.
    table = Device.load(device).conductance_table
    return content | {"table": table} if table else content


def measure_float(folder: str, subject: Subject) -> None:
    """Measure the accuracy of the float network, unless it is known."""
    store, key = Store(folder), float_key(subject)
    if store.read(FLOAT, key) is not None or subject.labelled is None:
        return
    accuracy = workflow.float_accuracy(subject.floats, *subject.labelled)
    store.write(FLOAT, key, {}, result={"accuracy": accuracy, "images": len(subject.labelled[1])})


def compile_points(
    folder: str,
    subject: Subject,
    scheme: str,
    budgets: Sequence[float | None],
    of: str,
    config: EngineConfig,
) -> int:
    """Compile a network under a scheme at those budgets that are not there yet; returns how many.

    Budgets share the measurement of the candidates, which takes longest.
    """
    store = Store(folder)
    keys = {each: compile_key(subject, scheme, each, of, config) for each in budgets}
    missing = [each for each in budgets if store.read(COMPILE, keys[each]) is None]
    if not missing:
        return 0
    found = compiled(subject, scheme, missing, of=cast(BudgetOf, of), config=config)
    for budget, program in found.items():
        key = keys[budget]
        content = compile_content(subject, scheme, budget, of, config)
        if isinstance(program, InputError):
            store.write(COMPILE, key, content, failed=str(program))
            continue
        accuracy = None
        if subject.labelled is not None:
            accuracy = golden.accuracy(program, *subject.labelled)
        # The program first: a record that is there says that all is there.
        with files.new_file(store.path(COMPILE, key, ".prap")) as draft:
            program.save(draft)
        store.write(COMPILE, key, content, result={"accuracy": accuracy})
    return len(missing)


def _program(store: Store, key: str) -> api.Program:
    return api.Program.load(store.path(COMPILE, key, ".prap"))


def count_events(
    folder: str, program: str, config: EngineConfig, engines: int, latency: int
) -> int:
    """Count the events of a program that was compiled; returns how many records were written."""
    store, key = Store(folder), events_key(program, config, engines, latency)
    if store.read(EVENTS, key) is not None:
        return 0
    content = _events_content(program, config, engines, latency)
    try:
        result = events_of(_program(store, program), config, latency=latency, engines=engines)
    except InputError as problem:
        store.write(EVENTS, key, content, failed=str(problem))
    else:
        store.write(EVENTS, key, content, result=result)
    return 1


def measure_device(
    folder: str, program: str, config: EngineConfig, subject: Subject, device: str, trials: int
) -> int:
    """Measure accuracy on chips of a device; returns how many records were written."""
    store, key = Store(folder), device_key(program, config, device, trials)
    if store.read(DEVICE, key) is not None or subject.labelled is None:
        return 0
    content = _device_content(program, config, device, trials)
    try:
        compiled_program = _program(store, program)
        sized = workflow.engine_for(compiled_program, config)
        kind = Device.load(device)
        inputs, labels = subject.labelled
        codes = golden.quantise_input(compiled_program, inputs)
        chips = [Chip(device=kind, config=sized, seed=seed) for seed in range(trials)]
        shares = [chip_accuracy(compiled_program, codes, labels, chip) for chip in chips]
    except InputError as problem:
        store.write(DEVICE, key, content, failed=str(problem))
    else:
        store.write(DEVICE, key, content, result={"name": kind.name, "accuracy": shares})
    return 1


def record(store: Store, kind: str, key: str) -> Mapping[str, Any]:
    """A record, or one that says that it is missing."""
    return store.read(kind, key) or {"failed": "it was not worked out"}
