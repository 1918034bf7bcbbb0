"""Buffers of the bridge: bytes for the shell, which wait to be good, and outputs for the host."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.shell.axi_stream import BYTES, axi_stream

POSITION_BITS = 16
"""Bits of a position in a stream of bytes; positions count modulo their range."""


def _check_depth(depth: int) -> None:
    """Raise ValueError where a buffer cannot have so many entries."""
    if depth not in [1 << bits for bits in range(4, POSITION_BITS)]:
        raise ValueError(f"depth must be a power of two, 16 to 32768, not {depth!r}")


class InBuffer(wiring.Component):
    """Keep bytes until the frame that they came in is found good, then send them on in beats.

    ``write`` puts a byte behind those that wait; ``commit`` makes them part of the stream,
    ``discard`` forgets them. A byte of the stream reaches a beat in two cycles. ``flush`` forgets
    everything that is not at the port yet; if the packet at the port has begun and not ended, it is
    ended there by a beat of its own, so that what follows is a packet again: no such packet is a
    good one to the shell, whose headers count their items. No output depends on an input within the
    cycle. Reset is a ``flush`` that ends nothing.

    Parameters
    ----------
    depth
        Bytes, a power of two, 16 to 32768.

    Members
    -------
    data, last, write : ``In``
        A byte, whether its packet ends with it, and a pulse.
    commit, discard, flush : ``In(1)``
        Pulses.
    head : ``Out(16)``
        Bytes that were committed since the last flush.
    limit : ``Out(16)``
        Bytes up to which there is room.
    full : ``Out(1)``
        There is no room for another byte: a ``write`` does nothing.
    axi : ``Out(axi_stream())``
        The port.
    """

    data: Signal
    last: Signal
    write: Signal
    commit: Signal
    discard: Signal
    flush: Signal
    head: Signal
    limit: Signal
    full: Signal
    axi: Any

    def __init__(self, depth: int):
        _check_depth(depth)
        self.depth = depth
        super().__init__(
            {
                "data": In(8),
                "last": In(1),
                "write": In(1),
                "commit": In(1),
                "discard": In(1),
                "flush": In(1),
                "head": Out(POSITION_BITS),
                "limit": Out(POSITION_BITS),
                "full": Out(1),
                "axi": Out(axi_stream()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi = self.axi
        entry = data.StructLayout({"data": 8, "last": 1})
        m.submodules.memory = memory = Memory(shape=entry, depth=self.depth, init=[])
        writes, reads = memory.write_port(), memory.read_port()
        bits = (self.depth - 1).bit_length()
        end = Signal(POSITION_BITS)
        tail = Signal(POSITION_BITS)
        used = Signal(POSITION_BITS)
        m.d.comb += [
            writes.addr.eq(end[:bits]),
            writes.data.data.eq(self.data),
            writes.data.last.eq(self.last),
            writes.en.eq(self.write & ~self.full),
            reads.addr.eq(tail[:bits]),
            self.full.eq(used[bits]),
            used.eq(end - tail),
        ]
        m.d.sync += self.limit.eq(tail + self.depth)
        with m.If(writes.en):
            m.d.sync += end.eq(end + 1)
        with m.If(self.commit):
            m.d.sync += self.head.eq(Mux(writes.en, end + 1, end))
        with m.Elif(self.discard):
            m.d.sync += end.eq(self.head)

        # Beats: a byte every other cycle, for the memory's answer takes one.
        beat = Signal(8 * BYTES)
        count = Signal(range(BYTES))
        fetched = Signal()
        # A beat of a packet is at the port or went, and its last one is not.
        inside = Signal()
        closing = Signal()
        free = Signal()
        m.d.comb += free.eq(~axi.tvalid | axi.tready)
        with m.If(axi.tready):
            m.d.sync += axi.tvalid.eq(0)
        m.d.sync += fetched.eq(0)
        with m.If(closing), m.If(free):
            m.d.sync += [
                closing.eq(0),
                inside.eq(0),
                axi.tvalid.eq(1),
                axi.tdata.eq(0),
                axi.tkeep.eq(1),
                axi.tlast.eq(1),
            ]
        with m.Elif(fetched):
            byte = reads.data
            with m.Switch(count):
                for place in range(BYTES):
                    with m.Case(place):
                        m.d.sync += beat[8 * place : 8 * place + 8].eq(byte.data)
            m.d.sync += [tail.eq(tail + 1), count.eq(count + 1)]
            with m.If((count == BYTES - 1) | byte.last):
                m.d.sync += [
                    count.eq(0),
                    inside.eq(~byte.last),
                    axi.tvalid.eq(1),
                    axi.tkeep.eq(Cat(1, *(count >= place for place in range(1, BYTES)))),
                    axi.tlast.eq(byte.last),
                ]
                for place in range(BYTES):
                    low = 8 * place
                    kept = Mux(count > place, beat[low : low + 8], 0)
                    here = Mux(count == place, byte.data, kept)
                    m.d.sync += axi.tdata[low : low + 8].eq(here)
        with m.Elif((tail != self.head) & free):
            m.d.sync += fetched.eq(1)

        with m.If(self.flush):
            m.d.sync += [
                self.head.eq(0),
                end.eq(0),
                tail.eq(0),
                count.eq(0),
                fetched.eq(0),
            ]
            # What is at the port stays until it is taken; a beat of this very cycle is not there.
            stays = axi.tvalid & ~axi.tready
            with m.If(~closing):
                m.d.sync += [axi.tvalid.eq(stays), closing.eq(inside), inside.eq(inside)]
                m.d.sync += [
                    axi.tdata.eq(axi.tdata), axi.tkeep.eq(axi.tkeep), axi.tlast.eq(axi.tlast),
                ]  # fmt: skip
        return m


OUTPUT = data.StructLayout({"code": 8, "last": 1, "bad": 1})
"""An output as it is kept."""


class OutBuffer(wiring.Component):
    """Keep outputs until the host has them.

    A beat is taken in the cycles of its bytes, so that eight outputs take eight; the port waits
    where the buffer is full. Outputs stay until ``release`` says that those before ``place`` are
    not asked for again, if ``place`` is one of them or the next to come; ``clear`` forgets all. The
    output at ``next`` is at ``o`` two cycles after ``next`` has changed. No output depends on an
    input within the cycle. Reset is a ``clear``.

    Parameters
    ----------
    depth
        Outputs, a power of two, 16 to 32768.

    Members
    -------
    axi : ``In(axi_stream(user=True))``
        The port.
    clear, release : ``In(1)``
        Pulses.
    place : ``In(16)``
        See above.
    base, head : ``Out(16)``
        Positions of the first output that is there, and of the next to come.
    next : ``In(16)``
        Position of the output that is shown.
    o : ``Out(OUTPUT)``
        The output.
    """

    axi: Any
    clear: Signal
    release: Signal
    place: Signal
    base: Signal
    head: Signal
    next: Signal
    o: Any

    def __init__(self, depth: int):
        _check_depth(depth)
        self.depth = depth
        super().__init__(
            {
                "axi": In(axi_stream(user=True)),
                "clear": In(1),
                "release": In(1),
                "place": In(POSITION_BITS),
                "base": Out(POSITION_BITS),
                "head": Out(POSITION_BITS),
                "next": In(POSITION_BITS),
                "o": Out(OUTPUT),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi = self.axi
        m.submodules.memory = memory = Memory(shape=OUTPUT, depth=self.depth, init=[])
        writes, reads = memory.write_port(), memory.read_port()
        bits = (self.depth - 1).bit_length()
        room = Signal()
        beat = Signal(8 * BYTES)
        keep = Signal(BYTES)
        last = Signal()
        bad = Signal()
        final = Signal()
        store = Signal()
        level = Signal(POSITION_BITS)
        m.d.comb += [
            level.eq(self.head - self.base),
            room.eq(~level[bits]),
            final.eq(~keep[1]),
            store.eq(keep[0] & room),
            axi.tready.eq(~keep[0] | (store & final)),
            writes.addr.eq(self.head[:bits]),
            writes.data.code.eq(beat[:8]),
            writes.data.last.eq(last & final),
            writes.data.bad.eq(bad & final),
            writes.en.eq(store),
            reads.addr.eq(self.next[:bits]),
            self.o.eq(reads.data),
        ]
        with m.If(store):
            m.d.sync += [self.head.eq(self.head + 1), beat.eq(beat >> 8), keep.eq(keep >> 1)]
        with m.If(axi.tvalid & axi.tready):
            m.d.sync += [
                beat.eq(axi.tdata), keep.eq(axi.tkeep), last.eq(axi.tlast), bad.eq(axi.tuser),
            ]  # fmt: skip
        inside = Signal(POSITION_BITS)
        m.d.comb += inside.eq(self.place - self.base)
        with m.If(self.release & (inside <= level)):
            m.d.sync += self.base.eq(self.place)
        with m.If(self.clear):
            m.d.sync += [self.base.eq(0), self.head.eq(0), keep.eq(0)]
        return m
