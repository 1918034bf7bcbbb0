"""The driver of the host shell. It needs Python's own library alone, and can be copied as it is.

:class:`Driver` does what a host does, over a :class:`Transport`: the way to the registers and
streams, in a simulation or on a board.
"""

from .driver import (
    BusError,
    ConfigurationError,
    Driver,
    DriverError,
    HardwareError,
    Transport,
    WaitError,
)
from .packets import Image, Kind, packet
from .registers import ErrorCode, Register

__all__ = [
    "BusError",
    "ConfigurationError",
    "Driver",
    "DriverError",
    "ErrorCode",
    "HardwareError",
    "Image",
    "Kind",
    "Register",
    "Transport",
    "WaitError",
    "packet",
]
