"""The driver looks whether there is a shell, and one that has all registers that it reads."""

from typing import Any

import pytest

from prap_hw.driver.driver import IDENTITY, MAJOR, MINOR, ConfigurationError, Driver
from prap_hw.driver.registers import Register
from prap_hw.shell.host_shell import VERSION


class Window:
    """A transport to nothing but the registers that tell who is there."""

    def __init__(self, identity: int, version: tuple[int, int]):
        self.found = {
            Register.IDENTITY: identity,
            Register.VERSION: version[0] << 16 | version[1],
        }
        self.written: dict[int, int] = {}

    def read32(self, address: Register) -> int:
        return self.found[address]

    def write32(self, address: int, value: int) -> None:
        self.written[address] = value


def driver(identity: int, version: tuple[int, int]) -> Driver:
    transport: Any = Window(identity, version)
    return Driver(transport)


@pytest.mark.parametrize("minor", [MINOR, MINOR + 1, 0xFFFF])
def test_its_own_minor_version_or_a_later_one_will_do(minor):
    assert VERSION == (MAJOR, MINOR)
    assert driver(IDENTITY, (MAJOR, minor)).version == (MAJOR, minor)


@pytest.mark.parametrize("version", [(MAJOR, MINOR - 1), (MAJOR - 1, MINOR), (MAJOR + 1, MINOR)])
def test_a_shell_without_its_registers_is_refused(version):
    expected = f"expected version {MAJOR}.{MINOR} of the shell, or a later {MAJOR}.x, found "
    with pytest.raises(ConfigurationError, match=f"{expected}{version[0]}.{version[1]}$"):
        driver(IDENTITY, version)


def test_what_is_no_shell_is_refused():
    with pytest.raises(ConfigurationError, match="expected 0x50524150 in IDENTITY, found 0x000000"):
        driver(0, VERSION)
