"""Faults: what stops an engine, and how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import Cat, Module, Shape, Signal, Value
from amaranth.hdl import MemoryData, ShapeLike
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Space


class Fault(enum.Enum, shape=2):
    """Kinds of faults."""

    NONE = 0
    #: A word of an index or parameter memory, or of the sequencer's list, has the wrong parity.
    PARITY = 1
    #: An address, a slot or a count that a program leads to is outside what it is for.
    RANGE = 2
    #: The crossbar port has stood still for ``port_timeout`` cycles.
    PORT = 3


FAULT = data.StructLayout({"kind": Fault, "space": Space})
"""A fault, and the memory whose word is wrong, or from whose words the address comes; space
REGISTER for PORT. The member ``fault`` of an engine and of what has engines: the first fault since
reset, NONE before. From the cycle after it was found on, the engine stands: it offers no request
and no output, takes no load, and ``busy`` stays as it is. Only reset clears it; a memory with a
wrong word is to be loaded again."""

Kind = tuple[Fault, Space]
"""Kind and space of what one bit of a block's member ``faults`` reports. A block has these as its
``FAULTS``, bit 0 first; a bit is high in the cycle in which the fault is found, or from then on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProtectedPorts:
    """Ports of a protected memory that its owner connects.

    Attributes
    ----------
    write, read
        The write port, and the read port, of Amaranth's memory. The owner drives enables and
        addresses; the data of the write port is driven already.
    word
        The word that was addressed, without its parity bit; its shape is the memory's.
    wrong
        One bit: whether the word that was read has the wrong parity.
    parities
        The exclusive or of each 16 bits of what was read: ``wrong`` where the number of ones among
        these is even.
    """

    write: Any
    read: Any
    word: Any
    wrong: Value
    parities: Value


def protected_bits(shape: ShapeLike) -> int:
    """Bits that a read of a :class:`ProtectedMemory` gives: those of a word, and the parity bit."""
    return Shape.cast(shape).width + 1


class ProtectedMemory:
    """A memory that holds a part of the program, a parity bit to each word.

    The bit makes the number of ones in a stored word odd. So a word of zeros, which a memory may
    have that was never written, is wrong as well.

    Parameters
    ----------
    shape
        Shape of a word.
    depth
        Words.

    Attributes
    ----------
    contents
        Contents of the memory: each word and, above its bits, its parity bit. Tests change them.
    """

    def __init__(self, shape: ShapeLike, depth: int):
        self.shape = Shape.cast(shape)
        layout = data.StructLayout({"word": shape, "parity": 1})
        # A memory of one word would have an address of no bits, which Verilog cannot say.
        self.contents = MemoryData(shape=layout, depth=max(2, depth), init=[])

    def ports(self, m: Module, name: str, w_data: Any, *, domain: str = "sync") -> ProtectedPorts:
        """Add the memory to a module, with one port to write and one to read.

        Parameters
        ----------
        name
            Its name there, and in the Verilog.
        w_data
            The word to write; bits above those of a word are left out.
        domain
            That of the read port: ``comb`` reads within the cycle.
        """
        m.submodules[name] = memory = Memory(self.contents)
        write: Any = memory.write_port()
        read: Any = memory.read_port(domain=domain)
        word = Value.cast(w_data)[: self.shape.width]
        m.d.comb += [write.data.word.eq(word), write.data.parity.eq(~word.xor())]
        found = Value.cast(read.data)
        return ProtectedPorts(
            write=write,
            read=read,
            word=read.data.word,
            wrong=~found.xor(),
            parities=Cat(found[low : low + 16].xor() for low in range(0, len(found), 16)),
        )


class FirstFault(wiring.Component):
    """Keep the first fault since reset, and stop what it is found in.

    ``fault`` and ``halted`` are registers: they follow the finding by one cycle. Where several
    faults are found in one cycle, the one of the lowest bit counts.

    Parameters
    ----------
    kinds
        Kind and space of each bit of ``found``.

    Members
    -------
    found : ``In(len(kinds))``
        Faults found in this cycle, a bit to each of ``kinds``.
    fault : ``Out(FAULT)``
        The first fault.
    halted : ``Out(1)``
        Whether there is one.
    """

    found: Signal
    fault: data.View
    halted: Signal

    def __init__(self, kinds: Sequence[Kind]):
        self.kinds = tuple(kinds)
        super().__init__({"found": In(len(self.kinds)), "fault": Out(FAULT), "halted": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        with m.If(self.found.any()):
            m.d.sync += self.halted.eq(1)
        with m.If(~self.halted):
            # The last assignment counts.
            for number, (kind, space) in reversed(list(enumerate(self.kinds))):
                with m.If(self.found[number]):
                    m.d.sync += [self.fault.kind.eq(kind), self.fault.space.eq(space)]
        return m


class Watchdog(wiring.Component):
    """Find that something waits while nothing moves.

    ``late`` is high in the last of ``timeout`` consecutive cycles with ``waits`` and without
    ``moves``, and depends on both within the cycle. Reset starts the count anew.

    Parameters
    ----------
    timeout
        Cycles.

    Members
    -------
    waits, moves : ``In(1)``
        Whether something waits; whether anything moves.
    late : ``Out(1)``
        Whether it has been so for ``timeout`` cycles.
    """

    waits: Signal
    moves: Signal
    late: Signal

    def __init__(self, timeout: int):
        self.timeout = timeout
        super().__init__({"waits": In(1), "moves": In(1), "late": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        count = Signal(range(self.timeout))
        stands = Signal()
        m.d.comb += [
            stands.eq(self.waits & ~self.moves),
            self.late.eq(stands & (count == self.timeout - 1)),
        ]
        with m.If(~stands):
            m.d.sync += count.eq(0)
        with m.Elif(~self.late):
            m.d.sync += count.eq(count + 1)
        return m
