"""A register file behind an AXI4-Lite port, and a host that reads and writes it."""

from types import SimpleNamespace

from amaranth import Cat, Elaboratable, Module
from amaranth.lib import wiring

from prap_hw.shell import register_map
from prap_hw.shell.axi_lite import AxiLiteSlave
from prap_hw.shell.register_file import RegisterFile

CONSTANTS = {
    register.name: 0x1000 + register.address
    for register in register_map.load().registers
    if register.constant
}


class Registers(Elaboratable):
    """A slave and the register file, with the channels as the agents of the bench have ports."""

    def __init__(self):
        self.file = RegisterFile(register_map.load(), CONSTANTS)
        self.slave = AxiLiteSlave(12, self.file.address_bits)
        axi = self.slave.axi

        def channel(name, *payload):
            signals = [getattr(axi, f"{name}{field}") for field in payload]
            return SimpleNamespace(
                valid=getattr(axi, f"{name}valid"),
                ready=getattr(axi, f"{name}ready"),
                payload=Cat(*signals),
            )

        self.aw = channel("aw", "addr")
        self.w = channel("w", "data", "strb")
        self.b = channel("b", "resp")
        self.ar = channel("ar", "addr")
        self.r = channel("r", "data", "resp")

    def elaborate(self, platform):
        m = Module()
        m.submodules.file = self.file
        m.submodules.slave = self.slave
        wiring.connect(m, self.slave.bus, self.file.bus)
        return m
