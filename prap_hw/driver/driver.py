"""Load, start, wait, read: the host's side of the shell."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from .packets import Image, Kind, packet
from .registers import (
    CONFIGURATION,
    COUNTERS,
    Control,
    ErrorCode,
    IrqEnable,
    IrqPending,
    Register,
    Space,
    Status,
)

IDENTITY = 0x50524150
"""Value of the register IDENTITY: the letters PRAP."""

MAJOR = 2
"""Major version of the register map that this driver knows."""

MINOR = 3
"""Least minor version of the register map that has all that this driver reads."""

POLLS = 1000
"""Reads of STATUS, a number and no time, until the shell has to have taken a packet apart that the
stream has taken."""


class DriverError(Exception):
    """Base of the errors that the driver raises."""


class BusError(DriverError):
    """A register access was answered by an error. A transport raises it."""


class ConfigurationError(DriverError):
    """The hardware is none of ours, or another than a program was made for."""


class WaitError(DriverError):
    """Something did not happen in time."""


class HardwareError(DriverError):
    """The shell has stopped with an error; :meth:`Driver.reset` recovers.

    Attributes
    ----------
    code
        Code of the error.
    item
        Item of the packet, or number of outputs, at which it was.
    space
        Memory that has the wrong word, or the words that led out of range; None where the error is
        of another kind.
    """

    def __init__(self, code: int, item: int, space: int = 0):
        self.item = item
        self.space: int | None = None
        place = f"at {item}"
        try:
            self.code = ErrorCode(code)
            text = f"{self.code.name}: {self.code.meaning}"
        except ValueError:
            self.code = code
            text = f"code {code}, which this driver does not know"
        if self.code in (ErrorCode.MEMORY_PARITY, ErrorCode.RANGE):
            try:
                self.space = Space(space)
                meaning = self.space.meaning.rstrip(".")
                memory = f"{self.space.name}, {meaning[:1].lower()}{meaning[1:]}"
            except ValueError:
                self.space = space
                memory = f"memory {space}, which this driver does not know"
            place = f"in {memory}; after {item} outputs"
        elif self.code in (ErrorCode.PORT, ErrorCode.OUTPUT_LENGTH, ErrorCode.WATCHDOG):
            place = f"after {item} outputs"
        super().__init__(f"the hardware stopped with {text} ({place})")


class Transport(Protocol):
    """The way to the hardware: a memory-mapped window, a stream each way, an interrupt.

    An implementation raises :class:`BusError` where a register access is refused. One that keeps
    packets for the shell has an attribute ``ahead``, the bytes of a packet that it takes while a
    run is on; one without it is asked for nothing then.
    """

    def read32(self, address: int) -> int:
        """Read a register; the address is in bytes, from the beginning of the shell's window."""
        ...

    def write32(self, address: int, value: int) -> None:
        """Write a register."""
        ...

    def send(self, data: bytes) -> None:
        """Send a packet of the load stream; returns when the stream has taken it."""
        ...

    def arm(self, length: int) -> None:
        """Prepare to receive a packet of at most ``length`` bytes, as a DMA engine must be."""
        ...

    def receive(self, timeout: float) -> tuple[bytes, bool]:
        """Take the packet that was received; the second value is its TUSER, True for a bad one.

        Raises :class:`WaitError` after ``timeout`` seconds.
        """
        ...

    def wait_interrupt(self, timeout: float) -> bool:
        """Wait until the interrupt line is high; False after ``timeout`` seconds."""
        ...


class Driver:
    """A shell and its core.

    Parameters
    ----------
    transport
        The way there.
    timeout
        Seconds that a run may take.

    Raises
    ------
    ConfigurationError
        There is no shell of a version that this driver knows.
    """

    def __init__(self, transport: Transport, *, timeout: float = 60.0):
        self.transport = transport
        self.timeout = timeout
        self.image: Image | None = None
        found = transport.read32(Register.IDENTITY)
        if found != IDENTITY:
            raise ConfigurationError(f"expected 0x{IDENTITY:08X} in IDENTITY, found 0x{found:08X}")
        version = transport.read32(Register.VERSION)
        self.version = version >> 16, version & 0xFFFF
        if self.version[0] != MAJOR or self.version[1] < MINOR:
            raise ConfigurationError(
                f"expected version {MAJOR}.{MINOR} of the shell, or a later {MAJOR}.x, found "
                f"{self.version[0]}.{self.version[1]}"
            )
        transport.write32(Register.IRQ_ENABLE, IrqEnable.DONE | IrqEnable.ERROR)

    def configuration(self) -> dict[str, int]:
        """Sizes of the hardware, by the names of ``EngineConfig``."""
        return {name: self.transport.read32(register) for name, register in CONFIGURATION.items()}

    def counters(self) -> dict[str, int]:
        """Events of the last run, by name."""
        counts = {}
        for name, register in COUNTERS.items():
            low = self.transport.read32(register)
            counts[name] = low | self.transport.read32(register + 4) << 32
        return counts

    def status(self) -> Status:
        """Return the state of the shell."""
        return Status(self.transport.read32(Register.STATUS))

    def reset(self, *, drop_packet: bool = False) -> None:
        """Stop whatever goes on, clear errors, and forget what is loaded.

        Parameters
        ----------
        drop_packet
            The packet that was being sent will not go on: the next beat is the first of another.
        """
        command = Control.SOFT_RESET | (Control.DROP_PACKET if drop_packet else 0)
        self.transport.write32(Register.CONTROL, command)
        self.transport.write32(Register.IRQ_PENDING, IrqPending.DONE | IrqPending.ERROR)
        self.image = None

    def check(self) -> Status:
        """Read the status, and raise an exception if the shell has stopped with an error.

        Returns
        -------
        Status
            The state of the shell, without an error.

        Raises
        ------
        HardwareError
            The shell has stopped; the exception has the error code and the number of the item.
        """
        status = self.status()
        if status & Status.ERROR:
            error = self.transport.read32(Register.ERROR)
            item = self.transport.read32(Register.ERROR_ITEM)
            raise HardwareError(error & 0xFF, item, error >> 8 & 0xF)
        return status

    def load(self, image: Image) -> None:
        """Load a program and its cells.

        Raises
        ------
        ConfigurationError
            It was made for other hardware.
        HardwareError
            The shell refuses it.
        WaitError
            The shell does not take a packet apart.
        """
        found = self.transport.read32(Register.CONFIG_HASH)
        if found != image.config_hash:
            raise ConfigurationError(
                f"expected hardware with CONFIG_HASH 0x{image.config_hash:08X}, found 0x{found:08X}"
            )
        self.image = None
        self.check()
        self.transport.write32(Register.INPUT_BYTES, image.input_bytes)
        self.transport.write32(Register.OUTPUT_BYTES, image.output_bytes)
        self._send(image.program, Status.PROGRAM)
        self._send(image.cells, Status.CELLS)
        self.image = image

    def load_activations(self, activations: bytes) -> None:
        """Load the input of one run, a byte to a code.

        For an engine's layer it is the input with its padding, for an accelerator's network the
        image without.

        Raises
        ------
        HardwareError
            The shell refuses it.
        WaitError
            The shell does not take it apart.
        """
        items = bytes(activations)
        self._send(packet(Kind.ACTIVATIONS, len(items), items), Status.ACTIVATIONS)

    def start(self) -> None:
        """Start a run; the outputs come while it runs.

        Raises
        ------
        DriverError
            No program is loaded.
        HardwareError
            The shell refuses the start.
        """
        if self.image is None:
            raise DriverError("expected a program to be loaded before a start")
        self.transport.write32(Register.IRQ_PENDING, IrqPending.DONE | IrqPending.ERROR)
        self.transport.arm(self.image.output_bytes)
        self.transport.write32(Register.CONTROL, Control.START)
        self.check()

    def wait(self) -> None:
        """Wait for the end of a run.

        Raises
        ------
        HardwareError
            It ended with an error.
        WaitError
            It did not end in time.
        """
        if self.check() & Status.DONE:
            return
        risen = self.transport.wait_interrupt(self.timeout)
        if not self.check() & Status.DONE:
            raise WaitError(
                f"expected a run to end within {self.timeout} seconds, found it running"
                + (" after an interrupt" if risen else "")
            )

    def read(self) -> bytes:
        """Take the outputs of the run that ended, a byte to a code.

        Raises
        ------
        DriverError
            The packet is marked as bad, or has another number of outputs.
        WaitError
            No packet comes in time.
        """
        data, bad = self.transport.receive(self.timeout)
        expected = 0 if self.image is None else self.image.output_bytes
        if bad or len(data) != expected:
            raise DriverError(f"expected {expected} good outputs, found {len(data)}, bad: {bad}")
        return data

    def run(self, activations: bytes) -> bytes:
        """Load an input, run, and give the outputs; errors are those of the four steps."""
        self.load_activations(activations)
        self.start()
        self.wait()
        return self.read()

    def run_all(self, inputs: Iterable[bytes]) -> Iterator[bytes]:
        """Run inputs one after the other, each sent while the one before it runs.

        That is done where the transport keeps a packet (``ahead``) that waits for the end of the
        run; else they are sent between runs. Errors are those of :meth:`run`; after one, whatever
        was on its way is void.

        Yields
        ------
        The outputs of each, in order.
        """
        waiting = False
        source = iter(inputs)
        following = next(source, None)
        while following is not None:
            if waiting:
                self._loaded(Status.ACTIVATIONS)
            else:
                self.load_activations(following)
            self.start()
            following = next(source, None)
            waiting = False
            if following is not None:
                data = packet(Kind.ACTIVATIONS, len(following), bytes(following))
                if len(data) <= getattr(self.transport, "ahead", 0):
                    self.transport.send(data)
                    waiting = True
            self.wait()
            yield self.read()

    def _send(self, data: bytes, loaded: Status) -> None:
        """Send a packet, and wait until the shell has taken it apart."""
        self.check()
        self.transport.send(data)
        self._loaded(loaded)

    def _loaded(self, loaded: Status) -> None:
        """Wait until the shell has taken a packet apart that was sent."""
        status = self.check()
        for _ in range(POLLS):
            if not status & Status.LOADING and status & loaded:
                return
            status = self.check()
        raise WaitError(f"expected the packet to be loaded, found {status!r}")
