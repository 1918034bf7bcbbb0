"""Faults: what stops an engine, and how it is shown."""

from amaranth.lib import data, enum

from prap_hw.layouts import Space


class Fault(enum.Enum, shape=2):
    """What is wrong."""

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
