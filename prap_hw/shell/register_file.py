"""The registers of the host shell in hardware, from the register map."""

from typing import TYPE_CHECKING, Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from prap_hw.shell.axi_lite import register_bus
from prap_hw.shell.register_map import WORD, Field, Register, RegisterMap


class RegisterFile(wiring.Component):
    """Registers at a register bus, made field by field from a :class:`RegisterMap`.

    An access is answered in its own cycle: ``bus.read_data``, ``bus.read_error`` and
    ``bus.write_error`` depend combinationally on the address and on the members. A value that was
    written shows at the members from the next cycle on; a command (``pulse``) is high for that
    cycle. Reads of addresses without a register are errors, and so are writes of those, of
    registers with nothing to write, and of ``locked`` ones while ``lock`` is high; an erroneous
    write changes nothing. A write changes the bytes that ``write_strobe`` marks.

    Reading the low half of a register of 64 bits keeps the high half of the same cycle; reading the
    high half gives what was kept. Reset gives every field its reset value.

    Parameters
    ----------
    registers
        The map.
    constants
        Values of the constant registers, by name.

    Members
    -------
    bus : ``In(register_bus(address_bits))``
        Accesses.
    lock : ``In(1)``
        Whether registers that are ``locked`` refuse writes.
    REGISTER_field : one to each field, its name after that of its register
        ``Out`` for what the host writes; for a field that a written 1 clears also ``In``
        ``REGISTER_field_set``; ``In`` for what the hardware drives; none for constants.
    """

    bus: Any
    lock: Signal

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A member that the map has given."""

    def __init__(self, registers: RegisterMap, constants: dict[str, int]):
        self.map = registers
        self.constants = constants
        self.address_bits = (registers.size - 1).bit_length()
        members: dict[str, Any] = {"bus": In(register_bus(self.address_bits)), "lock": In(1)}
        # The checker's stubs do not know that a member has an initial value.
        output: Any = Out
        for register in registers.registers:
            if register.constant:
                continue
            for field in register.fields:
                name = f"{register.name}_{field.name}"
                written = output(field.width, init=field.reset or 0)
                members[name] = written if field.writable else In(field.width)
                if field.clears:
                    members[f"{name}_set"] = In(field.width)
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        bus = self.bus
        kept = Signal(32)
        strobe = Cat(bus.write_strobe[bit // 8] for bit in range(32))

        def value(register: Register, field: Field) -> Value:
            return getattr(self, f"{register.name}_{field.name}")

        # The fields of a register as its bits; holes and what cannot be read are 0.
        def content(register: Register) -> Value:
            if register.constant:
                return Const(self.constants[register.name], register.width)
            parts: list[Value] = []
            at = 0
            for field in register.fields:
                parts.append(Const(0, field.low - at))
                parts.append(value(register, field) if field.readable else Const(0, field.width))
                at = field.low + field.width
            return Cat(*parts)

        words = bus.read_address >> 2
        m.d.comb += bus.read_error.eq(0)
        with m.Switch(words):
            for register in self.map.registers:
                with m.Case(register.address // WORD):
                    low = content(register)
                    m.d.comb += bus.read_data.eq(low)
                    if register.width > 32:
                        with m.If(bus.read):
                            m.d.sync += kept.eq(low[32:])
                if register.width > 32:
                    with m.Case(register.address // WORD + 1):
                        m.d.comb += bus.read_data.eq(kept)
            with m.Default():
                m.d.comb += bus.read_error.eq(1)

        m.d.comb += bus.write_error.eq(1)
        written = {
            register.name: Signal(name=f"{register.name}_written")
            for register in self.map.registers
            if register.writable
        }
        with m.Switch(bus.write_address >> 2):
            for register in self.map.registers:
                if not register.writable:
                    continue
                allowed = ~self.lock if register.locked else 1
                with m.Case(register.address // WORD):
                    m.d.comb += [
                        bus.write_error.eq(~allowed if register.locked else 0),
                        written[register.name].eq(bus.write & allowed),
                    ]

        for register in self.map.registers:
            for field in register.fields:
                if not field.writable:
                    continue
                here = value(register, field)
                data = bus.write_data[field.low : field.low + field.width]
                marked = strobe[field.low : field.low + field.width]
                wrote = written[register.name]
                if field.pulse:
                    m.d.sync += here.eq(Mux(wrote, data & marked, 0))
                elif field.clears:
                    events = getattr(self, f"{register.name}_{field.name}_set")
                    # An event in the cycle of the write is not lost.
                    m.d.sync += here.eq(here & ~Mux(wrote, data & marked, 0) | events)
                else:
                    with m.If(wrote):
                        m.d.sync += here.eq((here & ~marked) | (data & marked))
        return m
