"""The bridge from a serial line to the host shell: registers, packets in, outputs."""

from typing import Any

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.board.buffers import POSITION_BITS, InBuffer, OutBuffer
from prap_hw.board.frames import FrameReceiver, FrameTransmitter
from prap_hw.board.uart import UartReceiver, UartTransmitter
from prap_hw.driver.link import ASK, PROTOCOL, REPLY, Ask
from prap_hw.driver.registers import Register
from prap_hw.shell.axi_lite import Response, axi_lite
from prap_hw.shell.axi_stream import axi_stream
from prap_hw.shell.host_shell import ADDRESS_BITS

ASKED = data.StructLayout({"kind": 8, "session": 8, "number": 8, "place": 16, "value": 32})
"""Head of a question: :data:`prap_hw.driver.link.ASK`."""

REPLIED = data.StructLayout(
    {"kind": 8, "session": 8, "number": 8, "flags": 8, "ack": 16, "limit": 16, "value": 32}
)
"""Head of an answer: :data:`prap_hw.driver.link.REPLY`."""

HELD = 5
"""Bytes that are held back until it is known whether the CRC follows: the last and four of that."""

POLL_BITS = 12
"""The lamps follow STATUS, which is read every so many cycles, as a power of two, where nobody asks
for anything."""


class State(enum.Enum, shape=unsigned(4)):
    """States of the bridge."""

    IDLE = 0
    #: The question of a host that has another session, or of an unknown kind.
    STRANGER = 1
    WRITE = 2
    READ = 3
    WAIT = 4
    #: The place of the outputs asked for is known to the buffer, then its answer is there.
    RELEASE = 5
    SETTLE = 6
    #: The head of the answer is put together, and sent.
    REPLY = 7
    HEAD = 8
    #: An output is fetched, in two cycles, and sent.
    FETCH = 9
    FETCHED = 10
    OUTPUT = 11
    MARK = 12
    #: STATUS is read for the lamps.
    POLL = 13


class SerialBridge(wiring.Component):
    """Answer what a host asks over a serial line, as :mod:`prap_hw.driver.link` has it.

    Nothing of a frame is used before its CRC is found right. Bytes of packets wait in a buffer
    until then, and go to the shell in order, each once; the host sends no more than there is room
    for. One other question is answered at a time; one that comes meanwhile is dropped, since a host
    waits for the answer. A write whose number is that of the write before is answered, and not
    done again.

    A frame of n bytes takes ``10 * divisor * n`` cycles on the line, an answer begins within 30
    cycles of the end of a question, but for WAIT. Towards the shell the rules of AXI hold; no
    output depends on an input within the cycle. Reset ends the session: until the next HELLO the
    session is 0, which no host has, and every question is answered by an answer of the kind 0.

    Parameters
    ----------
    divisor
        Cycles of a bit, 4 to 65536.
    khz
        The clock, as HELLO tells it: 1 to 16777215.
    in_bytes, out_bytes
        Sizes of the buffers, powers of two, 16 to 32768.

    Members
    -------
    rx, tx : ``In(1)``, ``Out(1)``
        The line, at rest high.
    axi : ``In(axi_lite(12))``
        The port to the registers, the master's side.
    o_stream : ``Out(axi_stream())``
        Packets for the shell.
    i_stream : ``In(axi_stream(user=True))``
        Packets of outputs.
    irq : ``In(1)``
        The interrupt.
    busy, done, fault : ``Out(1)``
        STATUS, as it was read last.
    heard : ``Out(1)``
        Pulse: a good frame.
    """

    rx: Signal
    tx: Signal
    axi: Any
    o_stream: Any
    i_stream: Any
    irq: Signal
    busy: Signal
    done: Signal
    fault: Signal
    heard: Signal

    def __init__(
        self, divisor: int, *, khz: int = 1000, in_bytes: int = 4096, out_bytes: int = 1024
    ):
        if not 1 <= khz < 1 << 24:
            raise ValueError(f"khz must be 1 to {(1 << 24) - 1}, not {khz!r}")
        self.divisor = divisor
        self.khz = khz
        self.in_bytes = in_bytes
        self.out_bytes = out_bytes
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "axi": In(axi_lite(ADDRESS_BITS)),
                "o_stream": Out(axi_stream()),
                "i_stream": In(axi_stream(user=True)),
                "irq": In(1),
                "busy": Out(1),
                "done": Out(1),
                "fault": Out(1),
                "heard": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi = self.axi
        m.submodules.receiver = receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self.divisor)
        m.submodules.unframe = unframe = FrameReceiver()
        m.submodules.enframe = enframe = FrameTransmitter()
        m.submodules.packets = packets = InBuffer(self.in_bytes)
        m.submodules.outputs = outputs = OutBuffer(self.out_bytes)
        wiring.connect(m, packets.axi, wiring.flipped(self.o_stream))
        wiring.connect(m, wiring.flipped(self.i_stream), outputs.axi)
        wiring.connect(m, enframe.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            unframe.data.eq(receiver.data),
            unframe.valid.eq(receiver.valid),
            unframe.error.eq(receiver.error),
        ]

        # A frame that comes: its head, and what follows but for the bytes that may be its CRC.
        session = Signal(8)
        head = Signal(ASKED)
        line = Signal(8 * HELD)
        seen = Signal(range(ASK.size + HELD + 1))
        spilt = Signal()
        asked = Signal()
        request = Signal(ASKED)
        known = Signal()
        ack_due = Signal()
        stream_good = Signal()
        control_good = Signal()
        mine = Signal()
        m.d.comb += [
            mine.eq(head.session == session),
            self.heard.eq(unframe.end & unframe.good),
            stream_good.eq(
                self.heard & (head.kind == Ask.STREAM) & (seen == ASK.size + HELD) & mine
                & (head.place == packets.head) & ~spilt & ~packets.full
            ),
            control_good.eq(
                self.heard & (head.kind != Ask.STREAM) & (seen == ASK.size + HELD - 1)
            ),
            packets.data.eq(line[:8]),
            packets.last.eq(unframe.end & head.value[0]),
            packets.write.eq((unframe.o_valid & (seen == ASK.size + HELD)) | stream_good),
            packets.commit.eq(stream_good),
            packets.discard.eq(unframe.end & ~stream_good),
        ]  # fmt: skip
        with m.If(unframe.o_valid):
            with m.If(seen != ASK.size + HELD):
                m.d.sync += seen.eq(seen + 1)
            with m.If(seen < ASK.size):
                m.d.sync += head.eq(Cat(head.as_value()[8:], unframe.o_data))
            with m.Else():
                m.d.sync += line.eq(Cat(line[8:], unframe.o_data))
            with m.If((seen == ASK.size + HELD) & packets.full):
                m.d.sync += spilt.eq(1)
        with m.If(unframe.end):
            m.d.sync += [seen.eq(0), spilt.eq(0)]
        with m.If(self.heard & (head.kind == Ask.STREAM)):
            m.d.sync += ack_due.eq(1)
        with m.If(control_good & ~asked):
            m.d.sync += [
                asked.eq(1),
                request.eq(head),
                known.eq(mine | (head.kind == Ask.HELLO)),
            ]

        # Answers.
        state = Signal(State)
        reply = Signal(8 * REPLY.size)
        left = Signal(range(REPLY.size + 1))
        value = Signal(32)
        refused = Signal()
        answer_to = Signal(8)
        number = Signal(8)
        written = Signal(8)
        wrote = Signal()
        write_refused = Signal()
        timer = Signal(32)
        poll = Signal(POLL_BITS)
        place = Signal(POSITION_BITS)
        many = Signal(8)
        output = Signal.like(outputs.o)
        mark_last = Signal()
        mark_bad = Signal()
        m.d.comb += [
            axi.awprot.eq(0),
            axi.arprot.eq(0),
            axi.wstrb.eq(0xF),
            axi.bready.eq(1),
            axi.rready.eq(1),
            axi.awaddr.eq(request.place),
            axi.wdata.eq(request.value),
            outputs.place.eq(request.place),
            outputs.next.eq(place),
        ]
        m.d.sync += poll.eq(poll + 1)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)

        def go(following: State) -> None:
            m.d.sync += state.eq(following)

        body = enframe.i
        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += [
                    answer_to.eq(request.kind),
                    number.eq(request.number),
                    value.eq(0),
                    refused.eq(0),
                    timer.eq(request.value),
                ]
                with m.If(asked):
                    go(State.STRANGER)
                    with m.If(known), m.Switch(request.kind):
                        with m.Case(Ask.HELLO):
                            m.d.comb += [packets.flush.eq(1), outputs.clear.eq(1)]
                            m.d.sync += [
                                session.eq(request.session),
                                wrote.eq(0),
                                value.eq(PROTOCOL << 24 | self.khz),
                            ]
                            go(State.SETTLE)
                        with m.Case(Ask.WRITE):
                            with m.If(wrote & (written == request.number)):
                                m.d.sync += refused.eq(write_refused)
                                go(State.REPLY)
                            with m.Else():
                                m.d.sync += [axi.awvalid.eq(1), axi.wvalid.eq(1)]
                                go(State.WRITE)
                        with m.Case(Ask.READ):
                            m.d.sync += [axi.arvalid.eq(1), axi.araddr.eq(request.place)]
                            go(State.READ)
                        with m.Case(Ask.WAIT):
                            go(State.WAIT)
                        with m.Case(Ask.ARM):
                            m.d.comb += outputs.clear.eq(1)
                            go(State.SETTLE)
                        with m.Case(Ask.OUTPUT):
                            m.d.comb += outputs.release.eq(1)
                            go(State.RELEASE)
                with m.Elif(ack_due):
                    m.d.sync += [ack_due.eq(0), answer_to.eq(Ask.STREAM), number.eq(0)]
                    go(State.REPLY)
                with m.Elif(poll == 0):
                    m.d.sync += [axi.arvalid.eq(1), axi.araddr.eq(Register.STATUS)]
                    go(State.POLL)
            with m.Case(State.STRANGER):
                m.d.sync += answer_to.eq(0)
                go(State.REPLY)
            with m.Case(State.WRITE), m.If(axi.bvalid):
                m.d.sync += [
                    wrote.eq(1),
                    written.eq(request.number),
                    write_refused.eq(axi.bresp != Response.OKAY.value),
                    refused.eq(axi.bresp != Response.OKAY.value),
                ]
                go(State.REPLY)
            with m.Case(State.READ), m.If(axi.rvalid):
                m.d.sync += [value.eq(axi.rdata), refused.eq(axi.rresp != Response.OKAY.value)]
                go(State.REPLY)
            with m.Case(State.WAIT):
                m.d.sync += timer.eq(timer - 1)
                with m.If(self.irq | (timer == 0) | control_good):
                    go(State.REPLY)
            with m.Case(State.RELEASE):
                go(State.SETTLE)
                m.d.sync += [
                    value.eq(outputs.base),
                    place.eq(outputs.base),
                    many.eq(request.value),
                ]
            with m.Case(State.SETTLE):
                go(State.REPLY)
            with m.Case(State.REPLY):
                answer = data.View(REPLIED, reply)
                m.d.sync += [
                    answer.kind.eq(answer_to),
                    answer.session.eq(session),
                    answer.number.eq(number),
                    answer.flags.eq(Cat(self.irq, refused)),
                    answer.ack.eq(packets.head),
                    answer.limit.eq(packets.limit),
                    answer.value.eq(value),
                    left.eq(REPLY.size),
                    mark_last.eq(0),
                    mark_bad.eq(0),
                ]
                go(State.HEAD)
            with m.Case(State.HEAD):
                m.d.comb += [
                    body.valid.eq(1),
                    body.payload.data.eq(reply[:8]),
                    body.payload.last.eq((left == 1) & (answer_to != Ask.OUTPUT)),
                ]
                with m.If(body.ready):
                    m.d.sync += [reply.eq(reply >> 8), left.eq(left - 1)]
                    with m.If(left == 1):
                        go(State.IDLE)
                        with m.If(answer_to == Ask.OUTPUT):
                            go(State.FETCH)
                        with m.Elif(answer_to != Ask.STREAM):
                            m.d.sync += asked.eq(0)
            with m.Case(State.FETCH):
                go(State.FETCHED)
                with m.If((many == 0) | (place == outputs.head) | mark_last):
                    go(State.MARK)
            with m.Case(State.FETCHED):
                # A register: what is made of a byte does not wait for block RAM.
                m.d.sync += output.eq(outputs.o)
                go(State.OUTPUT)
            with m.Case(State.OUTPUT):
                m.d.comb += [body.valid.eq(1), body.payload.data.eq(output.code)]
                with m.If(body.ready):
                    m.d.sync += [
                        mark_last.eq(output.last),
                        mark_bad.eq(output.bad),
                        place.eq(place + 1),
                        many.eq(many - 1),
                    ]
                    go(State.FETCH)
            with m.Case(State.MARK):
                m.d.comb += [
                    body.valid.eq(1),
                    body.payload.data.eq(Cat(mark_last, mark_bad)),
                    body.payload.last.eq(1),
                ]
                with m.If(body.ready):
                    m.d.sync += asked.eq(0)
                    go(State.IDLE)
            with m.Case(State.POLL), m.If(axi.rvalid):
                m.d.sync += Cat(self.busy, self.done, self.fault).eq(axi.rdata)
                go(State.IDLE)
        return m
