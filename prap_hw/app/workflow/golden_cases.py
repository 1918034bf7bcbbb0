"""For ``prap golden``: the published functions against a folder of golden cases."""

from typing import Any

from prap_hw.app.workflow.folders import Paths


def check_golden(folder: Paths) -> dict[str, Any]:
    """Check a folder of golden cases.

    Returns
    -------
    dict
        ``cases``, ``reproduced``, ``failures`` (case to reason), ``not_implemented`` (function to
        number of cases), ``lines`` (the text, of which the last is ``N of M cases reproduced``).
    """
    from refmodel.compression.golden_cases import check_folder

    found = check_folder(folder)
    return {
        "cases": found.cases,
        "reproduced": found.reproduced,
        "failures": dict(found.failures),
        "not_implemented": dict(found.not_implemented),
        "lines": found.lines(),
    }
