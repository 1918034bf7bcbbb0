"""A model of a board at the other end of a serial line, written from :mod:`prap_hw.driver.link`."""

from prap_hw.driver.link import ASK, POSITIONS, PROTOCOL, REPLY, Ask, Flag, Frames, Mark, frame


class BoardModel:
    """A line with a board at its end: registers that keep what is written, and packets.

    Time goes on where a read finds nothing, by its timeout.

    Attributes
    ----------
    registers
        Address to value; another address is answered by an error.
    writes
        Every write that was done, in order.
    packets
        Packets that the shell got, whole.
    outputs
        Bytes of a packet, each with its mark.
    takes
        Whether the shell takes beats.
    """

    def __init__(self, room: int = 1024):
        self.room = room
        self.registers: dict[int, int] = {0x10: 0, 0x20: 0}
        self.writes: list[tuple[int, int]] = []
        self.packets: list[bytes] = []
        self.outputs: list[tuple[int, Mark]] = []
        self.takes = True
        self.irq = False
        self.timeout: float | None = 0.0
        self.seconds = 0.0
        self.protocol = PROTOCOL
        self.frames = Frames()
        self.reset()

    def reset(self) -> None:
        """As the button does."""
        self.session = 0
        self.begin()
        self.sent = bytearray()

    def begin(self) -> None:
        self.head = self.tail = self.base = 0
        self.waiting = bytearray()
        self.partial = bytearray()
        self.done: tuple[int, int] | None = None

    def now(self) -> float:
        return self.seconds

    @property
    def in_waiting(self) -> int:
        return len(self.sent)

    def read(self, size: int = 1, /) -> bytes:
        if not self.sent:
            self.seconds += self.timeout or 0.0
        taken = bytes(self.sent[:size])
        del self.sent[:size]
        return taken

    def write(self, data: bytes, /) -> int:
        for body in self.frames.feed(data):
            if len(body) >= ASK.size:
                self.answer(body)
        return len(data)

    def answer(self, body: bytes) -> None:
        self.seconds += 1e-3
        kind, session, number, place, value = ASK.unpack(body[: ASK.size])
        rest, flags, found, more = body[ASK.size :], Flag(0), 0, b""
        if kind == Ask.HELLO:
            self.session = session
            self.begin()
            found = self.protocol << 24 | 1000
        elif session != self.session:
            kind = 0 if kind != Ask.STREAM else kind
        elif kind == Ask.STREAM:
            number = 0
            if place == self.head % POSITIONS and self.head + len(rest) <= self.tail + self.room:
                self.head += len(rest)
                self.waiting += rest
                if self.takes:
                    self.take()
                if value:
                    self.packets.append(bytes(self.partial))
                    self.partial.clear()
        elif kind == Ask.WRITE:
            if place not in self.registers:
                flags = Flag.REFUSED
            elif self.done != (number, place):
                self.registers[place] = value
                self.writes.append((place, value))
                self.done = (number, place)
        elif kind == Ask.READ:
            found = self.registers.get(place, 0)
            flags = Flag(0) if place in self.registers else Flag.REFUSED
        elif kind == Ask.WAIT:
            self.seconds += value / 1e6
        elif kind == Ask.ARM:
            self.outputs, self.base = [], 0
        elif kind == Ask.OUTPUT:
            if self.base <= place <= self.base + len(self.outputs):
                del self.outputs[: place - self.base]
                self.base = place
            found, mark = self.base, Mark(0)
            for code, at in self.outputs[: value & 0xFF]:
                more += bytes([code])
                mark = at
                if at & Mark.LAST:
                    break
            more += bytes([mark])
        flags |= Flag.IRQ if self.irq else Flag(0)
        head = REPLY.pack(
            kind, self.session, number, flags, self.head % POSITIONS,
            (self.tail + self.room) % POSITIONS, found,
        )  # fmt: skip
        self.sent += frame(head + more)

    def take(self) -> None:
        """Let the shell take what waits."""
        self.partial += self.waiting
        self.tail += len(self.waiting)
        self.waiting.clear()


def beat_outputs(data: bytes, *, bad: bool = False) -> list[tuple[int, Mark]]:
    """Outputs of a packet as the board keeps them."""
    last = Mark.LAST | (Mark.BAD if bad else Mark(0))
    return [(code, last if at == len(data) - 1 else Mark(0)) for at, code in enumerate(data)]
