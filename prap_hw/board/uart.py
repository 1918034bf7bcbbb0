"""A UART: bytes of eight bits without parity, one stop bit."""

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import enum, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

LEAST_DIVISOR = 4
"""Least cycles of a bit: fewer, and the middle of a bit is no place."""


def check_divisor(divisor: int) -> None:
    """Raise ValueError where a bit cannot have so many cycles."""
    if not LEAST_DIVISOR <= divisor <= 1 << 16:
        raise ValueError(f"divisor must be {LEAST_DIVISOR} to {1 << 16}, not {divisor!r}")


class Line(enum.Enum, shape=unsigned(2)):
    """States of the receiver."""

    #: The line is at rest, or a start bit begins.
    IDLE = 0
    #: The middle of the start bit is waited for.
    START = 1
    #: Bits, and the stop bit.
    BITS = 2
    #: A stop bit was missing: the line must come to rest first.
    BROKEN = 3


class UartReceiver(wiring.Component):
    """Turn a serial line into bytes.

    A byte is there for one cycle, in the middle of its stop bit. A start bit that is none in its
    middle is forgotten; a stop bit that is low gives ``error`` for one cycle instead of a byte, and
    nothing is heard until the line is high again. Reset forgets a byte that has begun.

    Parameters
    ----------
    divisor
        Cycles of a bit, 4 to 65536.

    Members
    -------
    rx : ``In(1)``
        The line, asynchronous.
    data : ``Out(8)``
        The byte, while ``valid``.
    valid, error : ``Out(1)``
        Pulses.
    """

    rx: Signal
    data: Signal
    valid: Signal
    error: Signal

    def __init__(self, divisor: int):
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"rx": In(1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        state = Signal(Line)
        timer = Signal(range(self.divisor))
        left = Signal(range(9))
        sample = Signal()
        m.d.comb += sample.eq(timer == 0)
        m.d.sync += [
            timer.eq(timer - 1),
            self.valid.eq(0),
            self.error.eq(0),
        ]
        with m.If(sample):
            m.d.sync += timer.eq(self.divisor - 1)
        with m.Switch(state):
            with m.Case(Line.IDLE):
                m.d.sync += timer.eq(self.divisor // 2 - 1)
                with m.If(~line):
                    m.d.sync += state.eq(Line.START)
            with m.Case(Line.START), m.If(sample):
                m.d.sync += [left.eq(8), state.eq(Line.BITS)]
                with m.If(line):
                    m.d.sync += state.eq(Line.IDLE)
            with m.Case(Line.BITS), m.If(sample):
                m.d.sync += left.eq(left - 1)
                with m.If(left != 0):
                    m.d.sync += self.data.eq(Cat(self.data[1:], line))
                with m.Elif(line):
                    m.d.sync += [self.valid.eq(1), state.eq(Line.IDLE)]
                with m.Else():
                    m.d.sync += [self.error.eq(1), state.eq(Line.BROKEN)]
            with m.Case(Line.BROKEN), m.If(line):
                m.d.sync += state.eq(Line.IDLE)
        return m


class UartTransmitter(wiring.Component):
    """Turn bytes into a serial line.

    A byte takes ten bits of ``divisor`` cycles; the next is taken in the last cycle of the stop
    bit. ``i.ready`` depends on no input within the cycle. Reset lets the line rest, high.

    Parameters
    ----------
    divisor
        Cycles of a bit, 4 to 65536.

    Members
    -------
    i : ``In(stream.Signature(8))``
        Bytes.
    tx : ``Out(1)``
        The line.
    """

    i: stream.Interface
    tx: Signal

    def __init__(self, divisor: int):
        check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        level = Signal(init=1)
        bits = Signal(9, init=(1 << 9) - 1)
        left = Signal(range(11))
        timer = Signal(range(self.divisor))
        ended = Signal()
        m.d.comb += [
            self.tx.eq(level),
            ended.eq(timer == 0),
            self.i.ready.eq((left == 0) | ((left == 1) & ended)),
        ]
        m.d.sync += timer.eq(timer - 1)
        with m.If(ended):
            m.d.sync += timer.eq(self.divisor - 1)
        with m.If(ended & (left != 0)):
            m.d.sync += [
                left.eq(left - 1),
                level.eq(bits[0]),
                bits.eq(Cat(bits[1:], Const(1, 1))),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                left.eq(10),
                timer.eq(self.divisor - 1),
                level.eq(0),
                bits.eq(Cat(self.i.payload, Const(1, 1))),
            ]
        return m
