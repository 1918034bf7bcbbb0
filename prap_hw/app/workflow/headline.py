"""Workflow of ``prap headline``: the published cost model and the paper's headline out of it."""

from typing import Any


def headline(crossbar: int = 256) -> dict[str, Any]:
    """Compute the headline of the paper, and all results of the published model beside it.

    Returns
    -------
    dict
        The fields of :class:`refmodel.cost.published.Headline`, and ``results``: network to
        published mode to ``latency_ns``, ``energy_nj``, ``adder_energy_nj`` (left out of the
        energy), ``tiles``, and ``parts`` in nJ.

    Raises
    ------
    InputError
        A size of crossbars that the model has not.
    """
    from refmodel.cost import published
    from refmodel.errors import InputError

    try:
        settings = published.Settings(crossbar_size=crossbar)
    except ValueError:
        raise InputError(
            f"expected a multiple of 8 from 32 to 1024 as --crossbar, found {crossbar}"
        ) from None
    results = {}
    for network in published.networks():
        results[network] = {}
        for mode in published.MODES:
            found = published.simulate(network, mode, settings)
            results[network][mode] = {
                "latency_ns": found.latency_ns,
                "energy_nj": found.energy_nj,
                "adder_energy_nj": found.adder_nj,
                "tiles": found.tiles,
                "parts": found.parts,
            }
    return published.headline(settings).to_dict() | {"results": results}
