"""Frames of :mod:`prap_hw.driver.link`, in and out of bytes."""

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from prap_hw.driver.link import END, ESC, FLIP

CRC_BYTES = 4
"""Bytes of the CRC at the end of a frame."""

BODY = data.StructLayout({"data": 8, "last": 1})
"""A byte of the body of a frame, and whether it is the last one."""


class FrameReceiver(wiring.Component):
    """Take the frame around bytes of a line, and judge it at its end.

    The bytes of a frame come out in the cycle after they come in, without what was put before them;
    the last four are its CRC. At its end there is ``end`` for one cycle, with ``good`` if its CRC
    is right and no byte of it had an error. Of a frame without bytes nothing is seen. Reset forgets
    what has come of a frame.

    Members
    -------
    data, valid, error : ``In``
        Bytes of the line, as :class:`prap_hw.board.uart.UartReceiver` gives them: four cycles apart
        at least.
    o_data, o_valid : ``Out``
        Bytes of a frame.
    end, good : ``Out(1)``
        The frame is over; it is a good one.
    """

    data: Signal
    valid: Signal
    error: Signal
    o_data: Signal
    o_valid: Signal
    end: Signal
    good: Signal

    def __init__(self):
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "error": In(1),
                "o_data": Out(8),
                "o_valid": Out(1),
                "end": Out(1),
                "good": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # It has no types.
        crc: Any = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.check = crc
        escaped = Signal()
        wrong = Signal()
        begun = Signal()
        m.d.sync += [self.o_valid.eq(0), self.end.eq(0)]
        m.d.comb += [
            crc.data.eq(self.o_data),
            crc.valid.eq(self.o_valid),
            crc.start.eq(self.end),
        ]
        with m.If(self.error):
            m.d.sync += [wrong.eq(1), begun.eq(1)]
        with m.If(self.valid):
            with m.If(self.data == END):
                m.d.sync += [
                    self.end.eq(begun),
                    self.good.eq(crc.match_detected & ~wrong & ~escaped),
                    escaped.eq(0),
                    wrong.eq(0),
                    begun.eq(0),
                ]
            with m.Elif((self.data == ESC) & ~escaped):
                m.d.sync += [escaped.eq(1), begun.eq(1)]
            with m.Else():
                m.d.sync += [
                    self.o_data.eq(self.data ^ Mux(escaped, FLIP, 0)),
                    self.o_valid.eq(1),
                    begun.eq(1),
                    escaped.eq(0),
                    # ESC before ESC is nothing that anybody sends.
                    wrong.eq(wrong | (escaped & (self.data == ESC))),
                ]
        return m


class Part(enum.Enum, shape=unsigned(3)):
    """Parts of a frame, as they are sent."""

    #: Nothing is to be sent.
    BEGIN = 0
    BODY = 1
    #: The second byte of one that stands after ESC.
    ESCAPED = 2
    CRC = 3
    END = 4


class FrameTransmitter(wiring.Component):
    """Put bytes of a body into a frame.

    A byte goes on as soon as the line takes one. ``i.ready`` depends on ``o.ready`` within the
    cycle, ``o`` on ``i``. Reset forgets the frame.

    Members
    -------
    i : ``In(stream.Signature(BODY))``
        The bytes of a body.
    o : ``Out(stream.Signature(8))``
        Bytes for the line.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self):
        super().__init__({"i": In(stream.Signature(BODY)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform) -> Module:
        m = Module()
        # It has no types.
        crc: Any = CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.check = crc
        part = Signal(Part)
        left = Signal(range(CRC_BYTES + 1))
        check = Signal(8 * CRC_BYTES)
        byte = Signal(8)
        special = Signal()
        m.d.comb += [
            byte.eq(Mux(left == 0, self.i.payload.data, check[:8])),
            special.eq((byte == END) | (byte == ESC)),
            crc.data.eq(self.i.payload.data),
            crc.valid.eq(self.i.valid & self.i.ready),
        ]

        def following() -> None:
            """After a byte, whichever it was."""
            m.d.comb += self.i.ready.eq(left == 0)
            with m.If(left == 0):
                # The CRC is there a cycle later.
                m.d.sync += part.eq(Mux(self.i.payload.last, Part.CRC, Part.BODY))
            with m.Else():
                m.d.sync += [
                    left.eq(left - 1),
                    check.eq(check >> 8),
                    part.eq(Mux(left == 1, Part.END, Part.BODY)),
                ]

        with m.Switch(part):
            with m.Case(Part.BEGIN):
                m.d.comb += [self.o.valid.eq(self.i.valid), self.o.payload.eq(END)]
                m.d.comb += crc.start.eq(1)
                with m.If(self.i.valid & self.o.ready):
                    m.d.sync += part.eq(Part.BODY)
            with m.Case(Part.BODY):
                m.d.comb += [
                    self.o.valid.eq(self.i.valid | (left != 0)),
                    self.o.payload.eq(Mux(special, ESC, byte)),
                ]
                with m.If(self.o.valid & self.o.ready):
                    with m.If(special):
                        m.d.sync += part.eq(Part.ESCAPED)
                    with m.Else():
                        following()
            with m.Case(Part.ESCAPED):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(byte ^ FLIP)]
                with m.If(self.o.ready):
                    following()
            with m.Case(Part.CRC):
                m.d.sync += [check.eq(crc.crc), left.eq(CRC_BYTES), part.eq(Part.BODY)]
            with m.Case(Part.END):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(END)]
                with m.If(self.o.ready):
                    m.d.sync += part.eq(Part.BEGIN)
        return m
