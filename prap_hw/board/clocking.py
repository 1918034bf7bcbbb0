"""Clocks of a board: phase-locked loops of two FPGA families, and the divisor of a serial line."""

from dataclasses import dataclass

from amaranth import Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from prap_hw.board.uart import LEAST_DIVISOR
from refmodel.errors import InputError

MOST_ERROR = 0.015
"""Part by which a serial line's rate may be off: with as much at the other end, the tenth bit of a
byte is still sampled within itself."""

KHZ = 1000


@dataclass(frozen=True, kw_only=True)
class Ecp5Pll:
    """Dividers of an EHXPLLL with its feedback from CLKOP: ``in / reference * feedback``.

    Attributes
    ----------
    reference, feedback, output
        Dividers of the input, of the feedback, and from the oscillator to the output.
    khz
        The clock that comes out.
    """

    reference: int
    feedback: int
    output: int
    khz: int


@dataclass(frozen=True, kw_only=True)
class Ice40Pll:
    """Settings of an SB_PLL40 with simple feedback: ``in / (r + 1) * (f + 1) / 2**q``.

    Attributes
    ----------
    divr, divf, divq
        The dividers.
    filter_range
        By the frequency at the phase detector.
    khz
        The clock that comes out.
    """

    divr: int
    divf: int
    divq: int
    filter_range: int
    khz: int


Pll = Ecp5Pll | Ice40Pll
"""A phase-locked loop, as it is set."""


def ecp5_pll(source: int, wanted: int) -> Ecp5Pll:
    """Set an EHXPLLL: oscillator 400 to 800 MHz, phase detector 3.125 to 400 MHz.

    Parameters
    ----------
    source, wanted
        Clocks in kHz.

    Raises
    ------
    InputError
        No setting comes within 0.5 % of the clock.
    """
    found = [
        (abs(khz - wanted), abs(khz * output - 600_000), reference, feedback, output, khz)
        for reference in range(1, 9)
        if source // reference >= 3125
        for feedback in range(1, 81)
        for khz in [source * feedback // reference]
        if abs(khz - wanted) <= wanted // 200
        for output in range(1, 129)
        if 400_000 <= khz * output <= 800_000
    ]
    _check(found, source, wanted)
    *_, reference, feedback, output, khz = min(found)
    return Ecp5Pll(reference=reference, feedback=feedback, output=output, khz=khz)


def ice40_pll(source: int, wanted: int) -> Ice40Pll:
    """Set an SB_PLL40: oscillator 533 to 1066 MHz, detector 10 to 133, output up to 275.

    Parameters and errors are those of :func:`ecp5_pll`.
    """
    found = []
    for divr in range(16):
        detector = source / (divr + 1)
        if not 10_000 <= detector <= 133_000:
            continue
        ranges = (17_000, 26_000, 44_000, 66_000, 101_000)
        number = 1 + sum(detector >= limit for limit in ranges)
        for divf in range(128):
            oscillator = detector * (divf + 1)
            if not 533_000 <= oscillator <= 1_066_000:
                continue
            for divq in range(1, 7):
                khz = round(oscillator / (1 << divq))
                if khz <= 275_000 and abs(khz - wanted) <= wanted // 200:
                    found.append((abs(khz - wanted), divr, divf, divq, number, khz))
    _check(found, source, wanted)
    _, divr, divf, divq, number, khz = min(found)
    return Ice40Pll(divr=divr, divf=divf, divq=divq, filter_range=number, khz=khz)


def _check(found: list, source: int, wanted: int) -> None:
    if not found:
        raise InputError(
            f"expected a clock that the PLL can make of {source / KHZ:g} MHz, "
            f"found {wanted / KHZ:g} MHz"
        )


def uart_divisor(khz: int, baud: int) -> int:
    """Cycles of a bit.

    Raises
    ------
    InputError
        The rate that comes of them is off by more than :data:`MOST_ERROR`.
    """
    if baud <= 0:
        raise InputError(f"expected a rate above 0 baud, found {baud}")
    divisor = max(LEAST_DIVISOR, round(khz * KHZ / baud))
    made = khz * KHZ / divisor
    if divisor > 1 << 16 or abs(made / baud - 1) > MOST_ERROR:
        raise InputError(
            f"expected a rate within {100 * MOST_ERROR:g} % of {khz / KHZ:g} MHz by a whole "
            f"number from {LEAST_DIVISOR} on, found {baud} baud; {made:.0f} is the nearest"
        )
    return divisor


class ClockSource(wiring.Component):
    """The clock of a board made into that of the design; the PLL is the vendor's.

    Parameters
    ----------
    pll
        Its settings; None: the board's clock is the design's.

    Members
    -------
    i : ``In(1)``
        The board's clock.
    o : ``Out(1)``
        The design's.
    locked : ``Out(1)``
        The design's clock is as it should be.
    """

    i: Signal
    o: Signal
    locked: Signal

    def __init__(self, pll: Pll | None):
        self.pll = pll
        super().__init__({"i": In(1), "o": Out(1), "locked": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        pll = self.pll
        if isinstance(pll, Ecp5Pll):
            # Attributes and constant ports are those that ecppll of Project Trellis writes.
            m.submodules.pll = Instance(
                "EHXPLLL",
                a_ICP_CURRENT="12",
                a_LPF_RESISTOR="8",
                a_MFG_ENABLE_FILTEROPAMP="1",
                a_MFG_GMCREF_SEL="2",
                p_PLLRST_ENA="DISABLED",
                p_INTFB_WAKE="DISABLED",
                p_STDBY_ENABLE="DISABLED",
                p_DPHASE_SOURCE="DISABLED",
                p_OUTDIVIDER_MUXA="DIVA",
                p_OUTDIVIDER_MUXB="DIVB",
                p_OUTDIVIDER_MUXC="DIVC",
                p_OUTDIVIDER_MUXD="DIVD",
                p_CLKI_DIV=pll.reference,
                p_CLKOP_ENABLE="ENABLED",
                p_CLKOP_DIV=pll.output,
                p_CLKOP_CPHASE=pll.output // 2,
                p_CLKOP_FPHASE=0,
                p_FEEDBK_PATH="CLKOP",
                p_CLKFB_DIV=pll.feedback,
                i_RST=0,
                i_STDBY=0,
                i_CLKI=self.i,
                o_CLKOP=self.o,
                i_CLKFB=self.o,
                i_PHASESEL0=0,
                i_PHASESEL1=0,
                i_PHASEDIR=1,
                i_PHASESTEP=1,
                i_PHASELOADREG=1,
                i_PLLWAKESYNC=0,
                i_ENCLKOP=0,
                o_LOCK=self.locked,
            )
        elif isinstance(pll, Ice40Pll):
            m.submodules.pll = Instance(
                "SB_PLL40_CORE",
                p_FEEDBACK_PATH="SIMPLE",
                p_DIVR=pll.divr,
                p_DIVF=pll.divf,
                p_DIVQ=pll.divq,
                p_FILTER_RANGE=pll.filter_range,
                i_RESETB=1,
                i_BYPASS=0,
                i_REFERENCECLK=self.i,
                o_PLLOUTCORE=self.o,
                o_LOCK=self.locked,
            )
        else:
            m.d.comb += [self.o.eq(self.i), self.locked.eq(1)]
        return m
