"""AXI4-Lite: the ports, and a slave that turns them into accesses to registers."""

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out


class Response(enum.Enum, shape=unsigned(2)):
    """Values of BRESP and RRESP."""

    OKAY = 0
    SLVERR = 2


def axi_lite(address_bits: int) -> wiring.Signature:
    """AXI4-Lite of 32 data bits, as the slave sees it; the names are those of the AMBA text.

    AWPROT and ARPROT are there for tools that look for them; the slave answers alike to all.
    """
    return wiring.Signature(
        {
            "awaddr": In(address_bits),
            "awprot": In(3),
            "awvalid": In(1),
            "awready": Out(1),
            "wdata": In(32),
            "wstrb": In(4),
            "wvalid": In(1),
            "wready": Out(1),
            "bresp": Out(2),
            "bvalid": Out(1),
            "bready": In(1),
            "araddr": In(address_bits),
            "arprot": In(3),
            "arvalid": In(1),
            "arready": Out(1),
            "rdata": Out(32),
            "rresp": Out(2),
            "rvalid": Out(1),
            "rready": In(1),
        }
    )


def register_bus(address_bits: int) -> wiring.Signature:
    """Accesses to registers, as the slave makes them; answered in the same cycle.

    Members
    -------
    read, read_address, read_data, read_error
        ``read`` is high for the one cycle of an access; data and error follow the address.
    write, write_address, write_data, write_strobe, write_error
        The same for a write; a strobe to each byte.
    """
    return wiring.Signature(
        {
            "read": Out(1),
            "read_address": Out(address_bits),
            "read_data": In(32),
            "read_error": In(1),
            "write": Out(1),
            "write_address": Out(address_bits),
            "write_data": Out(32),
            "write_strobe": Out(4),
            "write_error": In(1),
        }
    )


class AxiLiteSlave(wiring.Component):
    """An AXI4-Lite slave over a register bus.

    Address and data of a write are taken independently, in any order. An access to an address that
    is no multiple of 4, or that the bus calls an error, is answered by SLVERR; the first never
    reaches the bus. One write and one read are in the slave at a time, and they do not wait for
    each other: a write or read takes three cycles at least. No output depends combinationally on an
    input of the AXI port. Reset forgets what was taken and not answered.

    Members
    -------
    axi : ``Out(axi_lite(address_bits))``, its own side
        The port.
    bus : ``Out(register_bus(bus_bits))``
        Accesses. The address has ``bus_bits``; one that needs more is an error by itself.
    """

    axi: Any
    bus: Any

    def __init__(self, address_bits: int, bus_bits: int | None = None):
        self.address_bits = address_bits
        self.bus_bits = address_bits if bus_bits is None else bus_bits
        super().__init__(
            {"axi": Out(axi_lite(address_bits)), "bus": Out(register_bus(self.bus_bits))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi, bus = self.axi, self.bus

        def refused(address: Signal):
            return (address[:2] != 0) | (address[self.bus_bits :] != 0)

        def answer(error):
            return Mux(error, Response.SLVERR.value, Response.OKAY.value)

        # Writes.
        address = Signal(self.address_bits)
        address_taken = Signal()
        data = Signal(32)
        strobe = Signal(4)
        data_taken = Signal()
        write = Signal()
        m.d.comb += [
            axi.awready.eq(~address_taken),
            axi.wready.eq(~data_taken),
            write.eq(address_taken & data_taken & ~axi.bvalid),
            bus.write.eq(write & ~refused(address)),
            bus.write_address.eq(address),
            bus.write_data.eq(data),
            bus.write_strobe.eq(strobe),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [address.eq(axi.awaddr), address_taken.eq(1)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [data.eq(axi.wdata), strobe.eq(axi.wstrb), data_taken.eq(1)]
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [
                address_taken.eq(0),
                data_taken.eq(0),
                axi.bvalid.eq(1),
                axi.bresp.eq(answer(refused(address) | bus.write_error)),
            ]

        # Reads.
        read_address = Signal(self.address_bits)
        read_taken = Signal()
        read = Signal()
        m.d.comb += [
            axi.arready.eq(~read_taken),
            read.eq(read_taken & ~axi.rvalid),
            bus.read.eq(read & ~refused(read_address)),
            bus.read_address.eq(read_address),
        ]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [read_address.eq(axi.araddr), read_taken.eq(1)]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(read):
            error = refused(read_address) | bus.read_error
            m.d.sync += [
                read_taken.eq(0),
                axi.rvalid.eq(1),
                axi.rresp.eq(answer(error)),
                axi.rdata.eq(Mux(error, 0, bus.read_data)),
            ]
        return m
