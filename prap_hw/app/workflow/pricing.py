"""Workflow of ``prap price``: energy, latency and area of a compiled network."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prap_hw.app.workflow.engines import EngineOptions, asked_or_compressed_for, base_engine
from prap_hw.app.workflow.folders import Paths, load_program, summary_of
from refmodel.config import EngineConfig
from refmodel.cost import Technology, engine_for, network_events, price_events, technology_names
from refmodel.errors import InputError
from refmodel.predict.accelerator import accelerator_config_for


def price(
    folder: Paths,
    technologies: Sequence[Paths] = (),
    *,
    config: EngineOptions | EngineConfig | None = None,
    engines: int = 1,
) -> dict[str, Any]:
    """Price one image of a compiled network on the accelerator, in one technology or several.

    Parameters
    ----------
    folder
        A folder that :func:`compress` wrote.
    technologies
        Technology files, or names of packaged ones; all packaged ones where empty.
    config
        The engine; what is not chosen is as in the one that the network was compressed for. It is
        sized to the network, and its crossbar latency is the technology's.
    engines
        Engines of the accelerator, 1 to 64.

    Returns
    -------
    dict
        ``engines``; ``technologies``, a list of what :class:`refmodel.cost.NetworkCost` has, with
        the ``engine``.

    Raises
    ------
    InputError
        A technology file that is not as it must be, or has no value for the engine.
    """
    found = [Technology.load(each) for each in technologies or technology_names()]
    program = load_program(folder)
    if not program.layers:
        raise InputError(f"expected a network with layers, found none in {folder}")
    base = base_engine(program, asked_or_compressed_for(config, summary_of(folder)))
    priced = []
    for technology in found:
        fitted = accelerator_config_for(program, engine_for(base, technology), engines)
        cost = price_events(network_events(program, fitted, engines), fitted, technology)
        priced.append({"engine": dataclasses.asdict(fitted), **cost.to_dict()})
    return {"engines": engines, "technologies": priced}
