"""The host shell: a core behind AXI4-Lite registers and AXI4-Stream ports."""

from typing import Any

from amaranth import ClockDomain, ClockSignal, Module, Mux, ResetInserter, ResetSignal, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from prap_hw.accelerator.accelerator import Accelerator, EmulatedAccelerator
from prap_hw.common.faults import Fault
from prap_hw.common.layouts import COUNTERS
from prap_hw.common.members import pass_through
from prap_hw.driver.driver import IDENTITY, MAJOR, MINOR
from prap_hw.driver.registers import Core
from prap_hw.engine.engine import EmulatedEngine, Engine
from prap_hw.shell import register_map
from prap_hw.shell.axi_lite import AxiLiteSlave, axi_lite
from prap_hw.shell.axi_stream import StreamBuffer, axi_stream
from prap_hw.shell.core import (
    SHARED,
    UNUSED,
    CoreLimits,
    accelerator_limits,
    configuration_hash,
    configuration_words,
    core_payloads,
    engine_limits,
)
from prap_hw.shell.packet_reader import ERROR_BITS, PacketReader, error_codes
from prap_hw.shell.packet_writer import PacketWriter
from prap_hw.shell.register_file import RegisterFile
from refmodel.config import EngineConfig

ADDRESS_BITS = 12
"""Bits of an address at the AXI4-Lite port: 4 KiB, the least that a system gives a slave."""

VERSION = (MAJOR, MINOR)
"""Major and minor version of the register map and of the packets."""


FAULT_CODES = {
    Fault.PARITY: "MEMORY_PARITY",
    Fault.RANGE: "RANGE",
    Fault.PORT: "PORT",
}
"""Error codes of the core's faults."""


class Phase(enum.Enum, shape=2):
    """How far a run is."""

    IDLE = 0
    #: The cycle in which the core is started.
    START = 1
    #: The core runs.
    RUN = 2
    #: The core is done, and the host has not taken all outputs.
    DELIVER = 3


class HostShell(wiring.Component):
    """Registers, packets in and out, and errors around a core.

    The host loads a program, cells and activations as packets
    (:class:`~prap_hw.shell.packet_reader.PacketReader`), writes the geometry, starts a run, and
    takes its outputs as one packet (:class:`~prap_hw.shell.packet_writer.PacketWriter`). The map in
    ``registers/prap_pim.rdl`` says what each register does.

    The first error is kept, and holds the core in reset: nothing more is loaded, packets are
    discarded, an output packet that was begun ends with TUSER. A fault of the core is an error like
    any other, whenever it shows. Of errors of one cycle it comes first, then a start out of turn,
    then OUTPUT_LENGTH, WATCHDOG, and last what is wrong with a packet. A soft reset clears the
    error at any time; then everything is to be loaded again. Outputs of the shell do not depend on
    its inputs within the cycle, but for those of the core that are passed on.

    Parameters
    ----------
    core
        A component with the members of :func:`prap_hw.shell.core.core_signature`; what else it has
        becomes a member of the shell, but for those of :data:`prap_hw.shell.core.UNUSED`.
    kind
        Kind of the core: the value of the field CORE.kind.
    limits
        Memories, fields and sizes of the items that may be loaded.
    configuration
        Sizes to show, by the names of the registers CONFIG_*, lower case.

    Members
    -------
    s_axi : ``In(axi_lite(12))``, the slave's side
        Registers.
    s_axis : ``In(axi_stream())``
        Packets from the host.
    m_axis : ``Out(axi_stream(user=True))``
        The packet of outputs.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    core_reset : ``Out(1)``
        High while the core is held in reset: what stands at a crossbar port then drops the requests
        that it has not answered.
    """

    s_axi: Any
    s_axis: Any
    m_axis: Any
    irq: Signal
    core_reset: Signal

    def __init__(
        self,
        core: Any,
        *,
        kind: Core,
        limits: CoreLimits,
        configuration: dict[str, int],
    ):
        self.core = core
        self.kind = kind
        self.limits = limits
        self.configuration = configuration
        self.payloads = core_payloads(core)
        members = core.signature.members
        self.passed = [name for name in members if name not in (*SHARED, *UNUSED)]
        super().__init__(
            {
                "s_axi": Out(axi_lite(ADDRESS_BITS)),
                "s_axis": In(axi_stream()),
                "m_axis": Out(axi_stream(user=True)),
                "irq": Out(1),
                "core_reset": Out(1),
                **{name: members[name] for name in self.passed},
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        core = self.core
        codes = error_codes()
        registers = register_map.load()
        constants = {
            "IDENTITY": IDENTITY,
            "VERSION": VERSION[0] << 16 | VERSION[1],
            "CONFIG_HASH": configuration_hash(self.configuration),
            "CORE": self.kind.value,
        }
        for name, value in self.configuration.items():
            constants[f"CONFIG_{name.upper()}"] = value

        m.submodules.file = file = RegisterFile(registers, constants)
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS, file.address_bits)
        wiring.connect(m, wiring.flipped(self.s_axi), slave.axi)
        wiring.connect(m, slave.bus, file.bus)

        forget = file.CONTROL_soft_reset
        drop = file.CONTROL_drop_packet
        error = Signal()
        code = Signal(ERROR_BITS)
        item = Signal(32)
        space = Signal.like(core.fault.space)
        phase = Signal(Phase)
        done = Signal()
        running = Signal()
        m.d.comb += [running.eq(phase != Phase.IDLE), file.lock.eq(running)]

        # The core, in reset from the cycle after an error or a soft reset on.
        held = Signal(init=1)
        m.d.comb += self.core_reset.eq(held)
        m.submodules.core = ResetInserter(held)(core)
        passed = {name: self.signature.members[name] for name in self.passed}
        pass_through(m, passed, core, self)

        # Packets in. Beats that wait are forgotten with the packet that they belong to.
        m.submodules.buffer = ResetInserter(forget & drop)(buffer := StreamBuffer())
        m.submodules.reader = reader = PacketReader(
            load=self.payloads["i_load"],
            cells=self.payloads["i_cells"],
            acts=self.payloads["i_acts"],
            limits=self.limits,
        )
        wiring.connect(m, wiring.flipped(self.s_axis), buffer.axi)
        wiring.connect(m, buffer.o, reader.i)
        wiring.connect(m, reader.o_load, core.i_load)
        wiring.connect(m, reader.o_cells, core.i_cells)
        wiring.connect(m, reader.o_acts, core.i_acts)
        begin = Signal()
        m.d.comb += [
            reader.busy.eq(running | file.CONTROL_start),
            reader.input_bytes.eq(file.INPUT_BYTES_value),
            reader.halt.eq(error | reader.error),
            reader.forget.eq(forget),
            reader.drop.eq(drop),
        ]

        # Outputs.
        m.submodules.writer = writer = PacketWriter()
        wiring.connect(m, writer.axi, wiring.flipped(self.m_axis))
        m.d.comb += [
            writer.i.valid.eq(core.o.valid),
            writer.i.payload.eq(core.o.payload.code),
            core.o.ready.eq(writer.i.ready),
            writer.expected.eq(file.OUTPUT_BYTES_value),
        ]

        # A run.
        fault = Signal()
        fault_code = Signal(ERROR_BITS)

        def fail(name: str) -> None:
            m.d.comb += [fault.eq(1), fault_code.eq(codes[name])]

        idle_cycles = Signal(32)
        limit = file.WATCHDOG_cycles
        late = Signal()
        excess = Signal()
        ended = Signal()
        output = Signal()
        delivered = Signal()
        complete = Signal()
        m.d.comb += [
            output.eq(core.o.valid & core.o.ready),
            complete.eq(writer.complete),
        ]
        with m.Switch(phase):
            with m.Case(Phase.START):
                m.d.comb += core.start.eq(1)
                m.d.sync += [phase.eq(Phase.RUN), late.eq(0), excess.eq(0), ended.eq(0)]
            with m.Case(Phase.RUN):
                # Cycles in which the host holds the output up are not the core's.
                with m.If(~core.o.valid):
                    m.d.sync += idle_cycles.eq(idle_cycles + 1)
                with m.If(output):
                    m.d.sync += idle_cycles.eq(0)
                # What is late, what is too much, and the end: a register before anything follows.
                m.d.sync += [
                    ended.eq(~core.busy),
                    excess.eq(core.o.valid & complete),
                    late.eq((limit != 0) & (idle_cycles == limit) & ~output),
                ]
                with m.If(excess):
                    fail("OUTPUT_LENGTH")
                with m.Elif(ended):
                    with m.If(complete):
                        m.d.comb += writer.finish.eq(1)
                        m.d.sync += phase.eq(Phase.DELIVER)
                    with m.Else():
                        fail("OUTPUT_LENGTH")
                with m.Elif(late):
                    fail("WATCHDOG")
            with m.Case(Phase.DELIVER), m.If(writer.idle):
                m.d.comb += delivered.eq(1)
                m.d.sync += [phase.eq(Phase.IDLE), done.eq(1)]

        loaded = reader.program & reader.cells & reader.activations & ~reader.loading
        # A register: between two writes of the host there is a cycle without one.
        no_outputs = Signal(init=1)
        m.d.sync += no_outputs.eq(file.OUTPUT_BYTES_value == 0)
        with m.If(file.CONTROL_start & ~error & ~forget):
            with m.If(running):
                fail("START_BUSY")
            with m.Elif(~loaded | no_outputs):
                fail("START_UNREADY")
            with m.Else():
                m.d.comb += begin.eq(1)
                m.d.sync += [phase.eq(Phase.START), done.eq(0), idle_cycles.eq(0)]
        m.d.comb += [writer.begin.eq(begin), reader.used.eq(begin)]

        # A fault of the core. It is there for a cycle more when a soft reset has just been given.
        core_fault = Signal()
        m.d.comb += core_fault.eq((core.fault.kind != Fault.NONE) & ~held)
        with m.If(core_fault), m.Switch(core.fault.kind):
            for kind, name in FAULT_CODES.items():
                with m.Case(kind):
                    fail(name)

        # Errors: the first is kept.
        stop = Signal()
        m.d.comb += stop.eq(~error & (fault | reader.error))
        with m.If(stop):
            m.d.sync += [
                error.eq(1),
                code.eq(Mux(fault, fault_code, reader.code)),
                item.eq(Mux(fault, Mux(running, writer.count, 0), reader.item)),
                space.eq(Mux(core_fault, core.fault.space, 0)),
            ]
        with m.If(stop | forget):
            m.d.sync += [phase.eq(Phase.IDLE), done.eq(0)]
        with m.If(forget):
            m.d.sync += [error.eq(0), code.eq(0), item.eq(0), space.eq(0)]
        m.d.sync += held.eq(stop | error | forget)
        m.d.comb += writer.abort.eq(stop | forget)

        # Registers.
        m.d.comb += [
            file.STATUS_busy.eq(running),
            file.STATUS_done.eq(done),
            file.STATUS_error.eq(error),
            file.STATUS_loading.eq(reader.loading),
            file.STATUS_program.eq(reader.program),
            file.STATUS_cells.eq(reader.cells),
            file.STATUS_activations.eq(reader.activations),
            file.STATUS_output_waits.eq(self.m_axis.tvalid),
            file.ERROR_code.eq(code),
            file.ERROR_space.eq(space),
            file.ERROR_ITEM_item.eq(item),
            file.IRQ_PENDING_done_set.eq(delivered & ~stop & ~forget),
            file.IRQ_PENDING_error_set.eq(stop & ~forget),
        ]
        for name in COUNTERS:
            m.d.comb += getattr(file, f"COUNT_{name.upper()}_value").eq(
                getattr(core.counters, name)
            )
        pending = (file.IRQ_PENDING_done & file.IRQ_ENABLE_done) | (
            file.IRQ_PENDING_error & file.IRQ_ENABLE_error
        )
        m.d.sync += self.irq.eq(pending)
        return m


def engine_shell(config: EngineConfig, *, open_port: bool = False) -> HostShell:
    """A shell around one engine, with emulated crossbars or with the crossbar port passed on."""
    return HostShell(
        Engine(config) if open_port else EmulatedEngine(config),
        kind=Core.ENGINE,
        limits=engine_limits(config),
        configuration=configuration_words(config),
    )


def accelerator_shell(
    config: EngineConfig, commands: int, engines: int = 1, *, open_port: bool = False
) -> HostShell:
    """A shell around an accelerator, which runs a whole network at a start.

    Parameters
    ----------
    config
        Sizes of each engine; ``network`` must be True.
    commands
        Words that the sequencer's list may have.
    engines
        N, 1 to 64.
    open_port
        Whether the crossbar port is passed on instead of being connected to emulated crossbars; of
        several engines there is an array of ports.
    """
    core = Accelerator if open_port else EmulatedAccelerator
    return HostShell(
        core(config, commands, engines),
        kind=Core.ACCELERATOR,
        limits=accelerator_limits(config, commands, engines),
        configuration=configuration_words(config, engines=engines, commands=commands),
    )


class ShellTop(wiring.Component):
    """A :class:`HostShell` with the ports that an integrator expects.

    The ports have the names of the AMBA texts (``s_axi_awaddr``, ``s_axis_tdata``, ...), with the
    clock ``aclk`` and the synchronous reset ``aresetn``, low to reset. While ``aresetn`` is low, no
    VALID and no READY of the shell is high: a sender that is not in reset loses no beat. Other
    members of the shell keep their names.
    """

    aclk: Signal
    aresetn: Signal

    def __init__(self, shell: HostShell):
        self.shell = shell
        members: dict[str, Any] = {"aclk": In(1), "aresetn": In(1)}
        self.flat: dict[str, tuple[str, str]] = {}
        for port in ("s_axi", "s_axis", "m_axis"):
            member = shell.signature.members[port]
            for name, inner in member.signature.members.items():
                # The signature of an input port is flipped already.
                members[f"{port}_{name}"] = inner.flow(inner.shape)
                self.flat[f"{port}_{name}"] = (port, name)
        self.passed = [
            name for name in shell.signature.members if name not in ("s_axi", "s_axis", "m_axis")
        ]
        members |= {name: shell.signature.members[name] for name in self.passed}
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        shell = self.shell
        m.domains.sync = ClockDomain()
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.shell = shell
        for flat, (port, name) in self.flat.items():
            inner, outer = getattr(getattr(shell, port), name), getattr(self, flat)
            if self.signature.members[flat].flow == In:
                m.d.comb += inner.eq(outer)
            elif name.endswith(("valid", "ready")):
                m.d.comb += outer.eq(inner & self.aresetn)
            else:
                m.d.comb += outer.eq(inner)
        passed = {name: self.signature.members[name] for name in self.passed}
        pass_through(m, passed, shell, self)
        return m
