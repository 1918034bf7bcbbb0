"""The page on adding a device effect: its blocks run, and an effect that is not there shows.

``python -m tests.docs.test_howto_device_effect`` writes what they print into the page.
"""

import pytest

from refmodel.golden.devices import Device, device
from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "howto" / "add-a-device-effect.md"

VALUES = ("relaxed", "relaxed_loss")


@pytest.fixture
def example():
    """Take back what the page registers."""
    assert not {*VALUES} & {*device.UNITS}, "the page needs an effect that there is not yet"
    before = device.effects()
    yield
    device._effects[:] = before
    for name in VALUES:
        device._values.pop(name, None)
        device._units.pop(name, None)
        Device.__dataclass_fields__.pop(name, None)


def test_every_block_runs_and_prints_what_the_page_says(example):
    assert pages.check(PAGE) == 4
    assert Device.load("wan-2022").relaxed == 0


def test_an_effect_that_changes_nothing_is_told_apart(example, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(text.replace("*= 1 - device.relaxed_loss", "*= 1"))
    with pytest.raises(AssertionError, match="prints"):
        pages.check(page)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name="relaxed"', 'name="stuck_on"', "stuck_on must be a value of one effect"),
        ("streams = (6, 7)", "streams = (5, 6)", "streams must be none of"),
    ],
)
def test_values_and_streams_of_another_effect_are_refused(example, tmp_path, old, new, said):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace(old, new))
    with pytest.raises(ValueError, match=said):
        pages.check(page)


if __name__ == "__main__":
    pages.write(PAGE)
