"""A plugin of pytest for the run of a mutant: tests that would notice the text are left out."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of mutants: they look for lines of the source, not at what it does."""
    out = [item for item in items if "mutant" in item.nodeid.rpartition("::")[2]]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.fixture(autouse=True)
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip what plants a mutant of its own, whatever its name."""
    # Not before the suite's own settings: pytest rewrites the assertions of what it imports later.
    from tests.support.rtl import mutants

    def skip(mutant: mutants.Mutant) -> None:
        pytest.skip(f"plants a mutant: {mutant}")

    monkeypatch.setattr(mutants, "load", skip)
