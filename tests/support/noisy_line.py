"""A serial line on which bytes are lost, doubled and garbled, and whose cable is pulled."""

import random
from dataclasses import dataclass, field
from typing import Any


@dataclass
class NoisyLine:
    """A line around another, as :class:`prap_hw.driver.serial.SerialTransport` takes it.

    Attributes
    ----------
    line
        The line that is right.
    seed
        Of the damages.
    lost, doubled, garbled
        Shares of the bytes, each way.
    pull_after
        Bytes to the board after which the cable is out; None: it stays in.
    damages
        Damage to number.
    """

    line: Any
    seed: int = 1
    lost: float = 0.0
    doubled: float = 0.0
    garbled: float = 0.0
    pull_after: int | None = None
    damages: dict[str, int] = field(
        default_factory=lambda: {"lost": 0, "doubled": 0, "garbled": 0, "pulled": 0}
    )

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.out = False
        self.kept = bytearray()
        self.now = self.line.now

    @property
    def timeout(self) -> float | None:
        return self.line.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self.line.timeout = seconds

    @property
    def in_waiting(self) -> int:
        return len(self.kept) + self.line.in_waiting

    def quiet(self) -> None:
        """Let it be a good line from now on, with its cable in."""
        self.lost = self.doubled = self.garbled = 0.0
        self.pull_after = None
        self.out = False

    def read(self, size: int = 1, /) -> bytes:
        if len(self.kept) < size:
            self.kept += self.damaged(self.line.read(size - len(self.kept)))
        taken = bytes(self.kept[:size])
        del self.kept[:size]
        return taken

    def write(self, data: bytes, /) -> int:
        if self.pull_after is not None and not self.out:
            before = data[: self.pull_after]
            self.pull_after -= len(before)
            self.line.write(self.damaged(before))
            if len(before) < len(data):
                self.damages["pulled"] += 1
                self.out = True
            return len(data)
        self.line.write(self.damaged(data))
        return len(data)

    def damaged(self, data: bytes) -> bytes:
        if self.out:
            return b""
        found = bytearray()
        for byte in data:
            draw = self.chance.random()
            if draw < self.lost:
                self.damages["lost"] += 1
                continue
            draw -= self.lost
            if draw < self.doubled:
                self.damages["doubled"] += 1
                found += bytes([byte, byte])
                continue
            draw -= self.doubled
            if draw < self.garbled:
                self.damages["garbled"] += 1
                found.append(byte ^ self.chance.randrange(1, 256))
                continue
            found.append(byte)
        return bytes(found)
