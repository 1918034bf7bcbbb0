"""Engines from options: their configuration, and their size for a program."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from prap_hw.app.workflow.folders import Paths, summary_of
from refmodel.config import PRESETS, EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.program import sizes
from refmodel.program.program import Program

EngineOptions = Mapping[str, Any]
"""Fields of EngineConfig that the user chose; ``preset``: a name in PRESETS; None: not chosen."""


def engine(options: EngineOptions | EngineConfig | None = None) -> EngineConfig:
    """Make an engine's configuration; InputError where an option is out of range."""
    if isinstance(options, EngineConfig):
        return options
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    preset = chosen.pop("preset", "default")
    if preset not in PRESETS:
        raise InputError(f"expected one of {', '.join(PRESETS)}, found {preset!r} as the preset")
    base = PRESETS[preset]
    latency = chosen.get("crossbar_latency", base.crossbar_latency)
    # Enough requests in flight to hide the converter, whatever its latency.
    chosen.setdefault("requests_in_flight", max(base.requests_in_flight, latency + 4))
    try:
        return dataclasses.replace(base, **chosen)
    except (TypeError, ValueError) as problem:
        raise InputError(f"expected sizes that an engine can have, found {problem}") from None


def asked_or_compressed_for(
    options: EngineOptions | EngineConfig | None, summary: Mapping[str, Any]
) -> EngineOptions | EngineConfig | None:
    """Options that were chosen, on the engine that a network was compressed for.

    Parameters
    ----------
    options
        As for :func:`engine`. With a preset they are those of another engine.
    summary
        Figures of ``prap compress``; they may have no ``engine``.
    """
    if isinstance(options, EngineConfig):
        return options
    given = {name: value for name, value in (options or {}).items() if value is not None}
    if "preset" in given or not isinstance(summary.get("engine"), dict):
        return options
    names = {field.name for field in dataclasses.fields(EngineConfig)}
    if "crossbar_latency" in given:
        names.discard("requests_in_flight")
    return {name: value for name, value in summary["engine"].items() if name in names} | given


def rtl_engine(options: EngineOptions | EngineConfig | None = None) -> EngineConfig:
    """As :func:`engine`, but InputError also where the hardware does not have an option yet."""
    from prap_hw.common.layouts import check_supported

    config = engine(options)
    try:
        check_supported(config)
    except ValueError as problem:
        raise InputError(f"expected sizes that the RTL has, found {problem}") from None
    return config


def check_layers(network: FloatNetwork) -> None:
    """Refuse a network with a layer that no engine can have, before it is compiled."""
    sizes.check_kernels(
        (node.name, node.weight.shape[2:]) for node in network.nodes if isinstance(node, Matrix)
    )


def base_engine(
    program: Program,
    options: EngineOptions | EngineConfig | None,
    make: Callable[..., EngineConfig] = engine,
) -> EngineConfig:
    """Make an engine of some options, whose rows of an OU are by default those of a program."""
    if not isinstance(options, EngineConfig):
        chosen = dict(options or {})
        if chosen.get("ou_rows") is None and program.layers:
            chosen["ou_rows"] = program.layers[0].ou_rows
        options = chosen
    return make(options)


def folder_engine(
    folder: Paths,
    program: Program,
    options: EngineOptions | EngineConfig | None,
    make: Callable[..., EngineConfig] = engine,
) -> EngineConfig:
    """Size the engine that a folder was compressed for, changed by some options, to its program."""
    return engine_for(program, asked_or_compressed_for(options, summary_of(folder)), make)


def engine_for(
    program: Program,
    options: EngineOptions | EngineConfig | None,
    make: Callable[..., EngineConfig] = engine,
) -> EngineConfig:
    """Size an engine of some options to a program, whose rows of an OU it has by default."""
    return sizes.engine_config_for(program.layers, base_engine(program, options, make))
