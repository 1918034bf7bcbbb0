"""The top of a board: clock, reset, serial bridge, shell, lamps."""

from amaranth import ClockDomain, ClockSignal, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out

from prap_hw.board.bridge import SerialBridge
from prap_hw.board.clocking import ClockSource, Pll
from prap_hw.shell.host_shell import HostShell

LAMPS = ("alive", "busy", "done", "fault", "line")
"""What the lamps show, in the order of the member ``leds``."""

TOP = "prap_board"
"""The top module."""


class BoardTop(wiring.Component):
    """A shell behind a serial line.

    The lamps: ``alive`` blinks with the clock; ``busy``, ``done`` and ``fault`` follow STATUS,
    ``busy`` for a tenth of a second at least; ``line`` lights up for a tenth of a second with each
    good frame. Reset, by the button or as long as the PLL has not locked, is that of everything;
    it ends two cycles after its cause. A design without crossbar port at its shell has no other
    ports.

    Parameters
    ----------
    shell
        The shell, with emulated crossbars.
    khz
        The clock of the design.
    divisor
        Cycles of a bit of the serial line.
    pll
        What makes that clock; None: ``clk`` is it.
    in_bytes, out_bytes
        Buffers of the bridge.
    button
        Whether the board has one.

    Members
    -------
    clk : ``In(1)``
        The board's clock.
    button : ``In(1)``
        High: reset. Of a board that has one.
    rx, tx : ``In(1)``, ``Out(1)``
        The serial line.
    leds : ``Out(5)``
        A bit to each of :data:`LAMPS`.
    """

    clk: Signal
    button: Signal
    rx: Signal
    tx: Signal
    leds: Signal

    def __init__(
        self,
        shell: HostShell,
        *,
        khz: int,
        divisor: int,
        pll: Pll | None = None,
        in_bytes: int = 4096,
        out_bytes: int = 1024,
        button: bool = True,
    ):
        if shell.passed:
            raise ValueError(f"expected a shell without other ports, found {shell.passed}")
        self.shell = shell
        self.khz = khz
        self.pll = pll
        self.bridge = SerialBridge(divisor, khz=khz, in_bytes=in_bytes, out_bytes=out_bytes)
        super().__init__(
            {
                "clk": In(1),
                **({"button": In(1)} if button else {}),
                "rx": In(1),
                "tx": Out(1),
                "leds": Out(len(LAMPS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = ClockSource(self.pll)
        m.d.comb += [clock.i.eq(self.clk), ClockSignal().eq(clock.o)]
        pressed = self.button if "button" in self.signature.members else 0
        m.submodules.reset = ResetSynchronizer(~clock.locked | pressed)

        shell, bridge = self.shell, self.bridge
        m.submodules.shell = shell
        m.submodules.bridge = bridge
        wiring.connect(m, bridge.axi, shell.s_axi)
        wiring.connect(m, bridge.o_stream, shell.s_axis)
        wiring.connect(m, shell.m_axis, bridge.i_stream)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx), bridge.irq.eq(shell.irq)]

        # A half period of the blinking lamp, and the least time of the others.
        blink = Signal(range(self.khz * 500), init=self.khz * 500 - 1)
        alive = Signal()
        m.d.sync += blink.eq(blink - 1)
        with m.If(blink == 0):
            m.d.sync += [blink.eq(self.khz * 500 - 1), alive.eq(~alive)]
        stretched = []
        for name, cause in (("busy", bridge.busy), ("line", bridge.heard)):
            left = Signal(range(self.khz * 100 + 1), name=f"{name}_left")
            with m.If(cause):
                m.d.sync += left.eq(self.khz * 100)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            lit = Signal(name=f"{name}_lit")
            m.d.sync += lit.eq(left != 0)
            stretched.append(lit)
        busy, line = stretched
        for number, lamp in enumerate((alive, busy, bridge.done, bridge.fault, line)):
            m.d.comb += self.leds[number].eq(lamp)
        return m
