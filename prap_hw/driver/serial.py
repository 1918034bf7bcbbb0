"""The driver's way to a board over a serial line."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from .driver import BusError, DriverError, WaitError
from .link import (
    ASK,
    MOST_DATA,
    MOST_OUTPUT,
    POSITIONS,
    PROTOCOL,
    REPLY,
    Ask,
    Flag,
    Frames,
    Mark,
    frame,
)

LEAST_DATA = 15
"""Bytes of a packet in a frame, where longer ones are lost."""

BAUD = 3_000_000
"""Rate of the line: the highest that the USB chip of the ULX3S makes, an FT231X."""


class LinkError(DriverError):
    """There is no answer, or one that makes no sense: no cable, no board, another session.

    The next call of the transport begins a session anew; whatever was under way is void, so that
    :meth:`prap_hw.driver.Driver.reset` and a load come first.
    """


class Line(Protocol):
    """A serial line: ``serial.Serial`` is one.

    A line whose time is not that of the clock on the wall has a ``now`` beside these, in seconds.
    """

    timeout: float | None

    @property
    def in_waiting(self) -> int:
        """Bytes that have come and can be read at once."""
        ...

    def read(self, size: int = 1, /) -> bytes:
        """Read so many bytes, or those that come within ``timeout`` seconds."""
        ...

    def write(self, data: bytes, /) -> int | None:
        """Send bytes."""
        ...


@dataclass
class Counts:
    """What has passed the line so far.

    Attributes
    ----------
    sent, received
        Bytes.
    repeated
        Frames that were sent again.
    sessions
        Sessions that were begun.
    """

    sent: int = 0
    received: int = 0
    repeated: int = 0
    sessions: int = 0


@dataclass(frozen=True)
class _Reply:
    kind: int
    session: int
    number: int
    flags: Flag
    ack: int
    limit: int
    value: int
    rest: bytes


class SerialTransport:
    """Registers, packets and interrupt of a shell behind a :mod:`serial bridge <.link>`.

    Everything that is lost, doubled or garbled on the line, either way, is found by its CRC and
    position, and sent again; a write is done once. :class:`LinkError` where that does not help.

    Parameters
    ----------
    line
        The line, open.
    patience
        Seconds without an answer after which a question is asked again. It must exceed the time of
        a frame at the line's rate, and the time that an answer waits in the USB chip.
    tries
        Times that a question is asked.

    Attributes
    ----------
    ahead
        Bytes of a packet that wait at the board while a run is on: the room of its buffer.
    khz
        The board's clock.
    counts
        What has passed.

    Raises
    ------
    LinkError
        No board answers, or one that speaks another version.
    """

    def __init__(self, line: Line, *, patience: float = 0.1, tries: int = 20):
        self.line = line
        self.patience = patience
        self.tries = tries
        self.counts = Counts()
        self.khz = 0
        self.ahead = 0
        self._now: Callable[[], float] = getattr(line, "now", time.monotonic)
        self._session = 0
        self._fresh = False
        self._begin()

    # The five functions and the interrupt of a transport.

    def read32(self, address: int) -> int:
        """Read a register."""
        with self._session_open():
            reply = self._ask(Ask.READ, address)
        self._check(reply, f"the read of 0x{address:03X}")
        return reply.value

    def write32(self, address: int, value: int) -> None:
        """Write a register."""
        with self._session_open():
            reply = self._ask(Ask.WRITE, address, value)
        self._check(reply, f"the write of 0x{address:03X}")

    def send(self, data: bytes) -> None:
        """Send a packet; returns when the board has it, whole and right.

        Raises
        ------
        WaitError
            The shell does not take what is before it.
        """
        with self._session_open():
            self._stream(bytes(data))

    def arm(self, length: int) -> None:
        """Forget the outputs that the board has."""
        with self._session_open():
            self._ask(Ask.ARM)
        self._read_to = 0

    def receive(self, timeout: float) -> tuple[bytes, bool]:
        """Take a packet of outputs."""
        outputs = bytearray()
        deadline = self._now() + timeout
        with self._session_open():
            while True:
                reply = self._ask(Ask.OUTPUT, self._read_to, MOST_OUTPUT)
                if reply.value != self._read_to or not reply.rest:
                    raise LinkError(
                        f"expected outputs from {self._read_to} on, found {reply.value}"
                    )
                *part, mark = reply.rest
                outputs += bytes(part)
                self._read_to = (self._read_to + len(part)) % POSITIONS
                if mark & Mark.LAST:
                    return bytes(outputs), bool(mark & Mark.BAD)
                if part:
                    deadline = self._now() + timeout
                elif self._now() > deadline:
                    raise WaitError(f"expected a packet of outputs within {timeout} seconds")

    def wait_interrupt(self, timeout: float) -> bool:
        """Wait until the interrupt line is high."""
        deadline = self._now() + timeout
        with self._session_open():
            while True:
                # The board answers when it is high, and before our patience ends.
                left = deadline - self._now()
                seconds = max(0.0, min(left, self.patience / 2))
                reply = self._ask(Ask.WAIT, value=int(seconds * self.khz * 1000))
                if reply.flags & Flag.IRQ:
                    return True
                if left <= 0:
                    return False

    # The line.

    @contextmanager
    def _session_open(self) -> Iterator[None]:
        """Begin a session where the last one has failed; after a failure there is none."""
        if not self._fresh:
            self._begin()
        self._fresh = False
        try:
            yield
        except WaitError:
            self._fresh = not self._partial
            raise
        self._fresh = True

    def _begin(self) -> None:
        self._frames = Frames()
        self._waiting: list[bytes] = []
        self._number = 0
        self._acked = 0
        self._limit = 0
        self._read_to = 0
        self._partial = False
        self._session = 1 + secrets.randbelow(255) if not self._session else self._session % 255 + 1
        self.counts.sessions += 1
        # What the line still has is of nobody.
        while self.line.in_waiting:
            self.line.read(self.line.in_waiting)
        reply = self._ask(Ask.HELLO)
        if reply.value >> 24 != PROTOCOL:
            raise LinkError(
                f"expected a board of version {PROTOCOL}, found version {reply.value >> 24}"
            )
        self.khz = reply.value & 0xFFFFFF
        self.ahead = (reply.limit - reply.ack) % POSITIONS
        self._fresh = True

    def _ask(self, kind: Ask, place: int = 0, value: int = 0) -> _Reply:
        """Ask a question until it is answered."""
        self._number = self._number % 255 + 1
        question = frame(ASK.pack(kind, self._session, self._number, place, value))
        for attempt in range(self.tries):
            self._write(question)
            self.counts.repeated += attempt > 0
            deadline = self._now() + self.patience
            while (reply := self._next(deadline, beginning=kind == Ask.HELLO)) is not None:
                if reply.kind == kind and reply.number == self._number:
                    return reply
        raise LinkError(
            f"expected an answer to {kind.name} from the board, found none in {self.tries} tries"
        )

    def _stream(self, data: bytes) -> None:
        """Send bytes, not more than there is room for, until the board has acknowledged them."""
        self._partial = True
        first = self._acked
        acked = sent = furthest = waits = 0
        size = MOST_DATA
        deadline = self._now() + self.patience
        while acked < len(data):
            room = (self._limit - self._acked) % POSITIONS - (sent - acked)
            part = data[sent : sent + size]
            if part and len(part) <= room:
                ends = sent + len(part) == len(data)
                place = (first + sent) % POSITIONS
                self._write(frame(ASK.pack(Ask.STREAM, self._session, 0, place, ends) + part))
                self.counts.repeated += sent < furthest
                sent += len(part)
                furthest = max(furthest, sent)
                if not self.line.in_waiting:
                    continue
            reply = self._next(deadline)
            gained = (self._acked - first - acked) % POSITIONS
            if 0 < gained <= furthest - acked:
                acked += gained
                sent = max(sent, acked)
                waits = 0
                size = min(2 * size, MOST_DATA)
                deadline = self._now() + self.patience
            elif reply is None:
                # Nothing new for a while: what was under way is lost, or the shell takes nothing.
                # Shorter frames come through a bad line sooner.
                waits += 1
                size = max(size // 2, LEAST_DATA)
                if waits > self.tries:
                    raise WaitError(
                        f"expected the shell to take a packet of {len(data)} bytes, "
                        f"found it standing at {acked}"
                    )
                sent = acked
                self._ask(Ask.WAIT)
                deadline = self._now() + self.patience
        self._partial = False

    def _next(self, deadline: float, *, beginning: bool = False) -> _Reply | None:
        """Take the next answer; None where there is none until the deadline."""
        while True:
            while not self._waiting:
                left = deadline - self._now()
                if left <= 0 and not self.line.in_waiting:
                    return None
                self.line.timeout = max(0.0, left)
                data = self.line.read(max(1, self.line.in_waiting))
                self.counts.received += len(data)
                self._waiting += self._frames.feed(data)
            body = self._waiting.pop(0)
            if len(body) < REPLY.size:
                continue
            kind, session, number, flags, *rest = REPLY.unpack(body[: REPLY.size])
            ack, limit, value = rest
            more = body[REPLY.size :]
            reply = _Reply(kind, session, number, Flag(flags), ack, limit, value, more)
            if reply.session != self._session:
                if beginning:
                    continue
                raise LinkError(
                    "expected the board in our session, found it reset or in another host's"
                )
            self._acked, self._limit = reply.ack, reply.limit
            return reply

    def _write(self, data: bytes) -> None:
        self.counts.sent += len(data)
        self.line.write(data)

    @staticmethod
    def _check(reply: _Reply, what: str) -> None:
        if reply.flags & Flag.REFUSED:
            raise BusError(f"{what} was answered by an error")


def open_serial(port: str, *, baud: int = BAUD, **settings: Any) -> SerialTransport:
    """Open a board at a serial port, by the package ``pyserial``.

    Parameters
    ----------
    port
        ``/dev/ttyUSB0``, ``COM3``, or what else ``serial.serial_for_url`` takes.
    baud
        The rate that the board was built for.
    settings
        Those of :class:`SerialTransport`.

    Raises
    ------
    LinkError
        The package is not there, the port cannot be opened, or no board answers.
    """
    try:
        import serial
    except ImportError:
        raise LinkError(
            "expected the package pyserial, found none: pip install 'prap-pim[fpga]'"
        ) from None
    try:
        line: Any = serial.serial_for_url(port, baudrate=baud, timeout=0)
    except (OSError, ValueError) as error:
        raise LinkError(f"expected a serial port at {port}, found {error}") from None
    # The USB chip keeps bytes back for 16 ms unless it is told not to.
    if hasattr(line, "set_low_latency_mode"):
        with suppress(OSError, ValueError):
            line.set_low_latency_mode(True)
    return SerialTransport(line, **settings)
