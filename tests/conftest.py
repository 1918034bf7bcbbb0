"""Fixtures that all tests share: the seeds, the folder of given data, and no silent skips in CI."""

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator
from amaranth.sim.pysim import PySimEngine
from hypothesis import settings

# Examples are drawn from the test itself, so a failure repeats anywhere; no clock decides.
settings.register_profile("prap", derandomize=True, deadline=None, database=None)
settings.load_profile("prap")

ROOT = Path(__file__).resolve().parent.parent

# Checks that tests share say what was compared, too, as asserts in test modules do.
pytest.register_assert_rewrite("tests.support")


def _untraced(owner: Any, name: str) -> None:
    """Let coverage look away while a function runs.

    Python 3.11 runs everything two or three times slower while a trace function is set, and these
    functions are Amaranth's own: components, which coverage counts, have been elaborated before.
    """
    function = getattr(owner, name)

    @functools.wraps(function)
    def untraced(*args: Any, **kwargs: Any) -> Any:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(trace)

    setattr(owner, name, untraced)


for _owner, _name in (
    (Simulator, "run"),
    (PySimEngine, "__init__"),
    (Fragment, "prepare"),
    (importlib.import_module("amaranth.back.rtlil"), "convert_fragment"),
):
    _untraced(_owner, _name)

SKIP_FAILS = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the repository."""
    return ROOT


@pytest.fixture
def cache(root: Path) -> Path:
    """Where builds are kept from one run of the tests to the next."""
    return root / "build" / "cache"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of given data (golden cases, networks); PRAP_SHARED names another place."""
    folder = Path(os.environ.get("PRAP_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of given data at {folder}; PRAP_SHARED names another")
    return folder


def _fail_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if SKIP_FAILS and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI counts as a failure: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Turn a skip into a failure in CI."""
    report = yield
    _fail_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Turn the skip of a whole module into a failure in CI."""
    report = yield
    _fail_skip(report)
    return report
