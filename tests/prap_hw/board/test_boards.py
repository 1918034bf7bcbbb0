"""Boards: pins, clocks, and what is refused before anything is synthesised."""

import re
from dataclasses import replace

import pytest
from amaranth.hdl import Fragment

from prap_hw.board import fit
from prap_hw.board.boards import BOARDS, board
from prap_hw.board.clocking import ecp5_pll, ice40_pll, uart_divisor
from prap_hw.board.fit import Need
from prap_hw.board.flow import Built, Design, check_luts, parts_of
from prap_hw.board.picture import use_by_part
from prap_hw.board.top import BoardTop
from prap_hw.deliver.place import CriticalPath, Placement, Step
from prap_hw.shell.host_shell import engine_shell
from refmodel.config import DEFAULT, PRESETS
from refmodel.errors import InputError
from tests.support.rtl.boards import CONFIG

ULX3S = BOARDS["ulx3s"]


def test_plls_by_hand():
    # 25 MHz * 3, and an oscillator of 600 MHz, as ecppll of Project Trellis sets it.
    pll = ecp5_pll(25_000, 75_000)
    assert (pll.reference, pll.feedback, pll.output, pll.khz) == (1, 3, 8, 75_000)
    # 12 MHz * 80 / 2**5, as icepll of Project IceStorm sets it.
    other = ice40_pll(12_000, 30_000)
    assert (other.divr, other.divf, other.divq, other.filter_range) == (0, 79, 5, 1)


@pytest.mark.parametrize("mhz", [30, 37.5, 50, 60, 75, 80, 90, 100, 120, 125, 150])
def test_a_pll_of_any_clock_keeps_to_its_limits(mhz):
    khz = round(1000 * mhz)
    pll = ecp5_pll(25_000, khz)
    assert abs(pll.khz - khz) <= khz / 200
    assert pll.khz == 25_000 * pll.feedback // pll.reference
    assert 400_000 <= pll.khz * pll.output <= 800_000


def test_a_clock_that_no_pll_makes_is_refused():
    with pytest.raises(InputError, match="a clock that the PLL can make of 25 MHz, found 1 MHz"):
        ecp5_pll(25_000, 1_000)
    with pytest.raises(InputError, match="a clock that the PLL can make of 12 MHz, found 300 MHz"):
        ice40_pll(12_000, 300_000)


def test_rates_of_the_line_are_divided_or_refused():
    assert uart_divisor(75_000, 3_000_000) == 25
    assert uart_divisor(24_000, 3_000_000) == 8
    assert uart_divisor(75_000, 115_200) == 651
    with pytest.raises(InputError, match=r"found 9000000 baud; 9375000 is the nearest"):
        uart_divisor(75_000, 9_000_000)
    with pytest.raises(InputError, match="above 0 baud, found 0"):
        uart_divisor(75_000, 0)


@pytest.mark.parametrize("key", BOARDS)
def test_every_port_has_one_pin_of_its_own(key):
    pytest.importorskip("amaranth_boards", reason="needs the extra fpga")
    chosen = board(key)
    top = BoardTop(engine_shell(CONFIG), khz=1000, divisor=4, button=bool(chosen.button))
    Fragment.get(top, None)  # Amaranth wants every component used
    ports = set(top.signature.members) - {"leds"} | {f"leds[{n}]" for n in range(5)}
    pins = chosen.pins()
    assert set(pins) == ports
    assert len({pin for pin, _ in pins.values()}) == len(pins)
    text = chosen.constraints()
    for port, (pin, _) in pins.items():
        assert re.search(rf"{re.escape(port)}\W+(SITE \")?{pin}\b", text), port


def test_the_ulx3s_by_its_schematic():
    pytest.importorskip("amaranth_boards", reason="needs the extra fpga")
    pins = {port: pin for port, (pin, _) in ULX3S.pins().items()}
    # ftdi_txd is what the FPGA hears, ftdi_rxd what it says.
    assert (pins["clk"], pins["rx"], pins["tx"], pins["leds[0]"]) == ("G2", "M1", "L4", "B2")
    assert 'FREQUENCY PORT "clk" 25 MHZ;' in ULX3S.constraints()


def test_a_board_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match="a board of ulx3s, hx8k, found 'ulx4s'"):
        board("ulx4s")


def test_block_rams_by_hand():
    # 2048 words of 9 bits are one DP16KD; of 10 bits two, or one of 1024 words.
    assert Need(name="", copies=1, words=2048, width=9).blocks("DP16KD") == 1
    assert Need(name="", copies=3, words=2048, width=10).blocks("DP16KD") == 6
    assert Need(name="", copies=1, words=512, width=36).blocks("DP16KD") == 1
    assert Need(name="", copies=1, words=65, width=37).blocks("DP16KD") == 2
    assert Need(name="", copies=9, words=64, width=64).blocks("DP16KD") == 0
    assert Need(name="", copies=1, words=1024, width=8).blocks("ICESTORM_RAM") == 2


def test_memories_that_do_not_fit_are_refused_with_figures():
    small = PRESETS["small"]
    assert fit.check(fit.needs(small, ULX3S), ULX3S) < 208
    large = replace(DEFAULT, crossbars=4096)
    with pytest.raises(
        InputError,
        match=r"fit the 208 block RAMs \(3,744 Kbit\) of ULX3S 85F .*, found a need of [\d,]+ "
        r"\([\d,]+ Kbit\): crossbars [\d,]+, ",
    ):
        fit.check(fit.needs(large, ULX3S), ULX3S)
    with pytest.raises(InputError, match="found a need of"):
        Design(config=large, khz=75_000, baud=3_000_000).check(ULX3S)


def test_luts_that_are_not_there_are_refused_with_the_largest_parts():
    parts = {"merge": {"LUTs": 5000}, "serial bridge": {"LUTs": 2700}, "crossbar": {}}
    with pytest.raises(InputError, match=r"the 7,680 LUTs of .*, found a need of 7,700: merge 5,0"):
        check_luts(parts, BOARDS["hx8k"])
    check_luts(parts, ULX3S)


def test_cells_are_counted_by_the_part_in_their_name():
    cells = {
        "shell.core.engine.controller.words_0.x_LUT4_Z": {"type": "LUT4"},
        "shell.core.engine.controller.a_CCU2C_S0": {"type": "CCU2C"},
        "shell.core.crossbar.row_0.0.0": {"type": "DP16KD"},
        "bridge.session_TRELLIS_FF_Q": {"type": "TRELLIS_FF"},
        "shell.core.engine.merge.x_PFUMX_Z": {"type": "PFUMX"},
        "shell.core.engine.gather.row_0.0.0": {"type": "TRELLIS_DPR16X4"},
        "blink_LUT4_Z": {"type": "LUT4"},
    }
    assert parts_of(cells) == {
        "controller": {"LUTs": 3},
        "crossbar": {"block RAM": 1},
        "gather": {"LUTs": 4},
        "serial bridge": {"flip-flops": 1},
        "shell, clock, lamps": {"LUTs": 1},
    }


def test_the_picture_has_each_part_and_its_share():
    available = {"LUTs": 100, "flip-flops": 100, "block RAM": 10}
    text = use_by_part("A & B", {"merge": {"LUTs": 25}, "shell": {"block RAM": 1}}, available)
    assert "A &amp; B" in text
    assert "25 (25.0 %)" in text
    assert "1 (10.0 %)" in text
    assert text.index(">merge<") < text.index(">shell<")


def built(tmp_path, *clocks: float) -> Built:
    """A result with a placement to each clock, in MHz."""
    step = Step(component="shell.core.engine.merge", cell="x", kind="logic", delay=14.0)
    path = CriticalPath(launched="posedge c", captured="posedge c", steps=(step,))
    placements = tuple(
        Placement(
            device=ULX3S.device,
            seed=seed,
            used={},
            available={},
            clocks={"c": clock},
            paths=(path,),
            configuration=None,
        )
        for seed, clock in enumerate(clocks, 1)
    )
    return Built(
        board=ULX3S,
        design=Design(config=CONFIG, khz=75_000, baud=3_000_000),
        verilog="",
        constraints="",
        placements=placements,
        netlist=tmp_path / "none",
        parts={},
        minutes={},
    )


def test_a_clock_that_is_not_reached_is_an_error_with_the_path(tmp_path):
    assert built(tmp_path, 70.0, 75.0).faults() == []
    (fault,) = built(tmp_path, 70.0, 74.9).faults()
    assert fault == (
        "expected 75 MHz, found 74.9 MHz at best with 2 seeds; the slowest path is within "
        "shell.core.engine.merge: 14.0 ns through 1 cell, 0% wires"
    )


def test_the_small_engine_needs_more_block_ram_than_an_hx8k_has():
    # Of an engine by itself Yosys makes 34 (`prap area --preset small --family ice40`).
    chosen = BOARDS["hx8k"]
    found = fit.needs(PRESETS["small"], chosen)
    bridge = [need for need in found if need.name.endswith("the host")]
    of_bridge = sum(need.blocks("ICESTORM_RAM") for need in bridge)
    assert sum(need.blocks("ICESTORM_RAM") for need in found) - of_bridge == 34
    with pytest.raises(InputError, match=r"the 32 block RAMs \(128 Kbit\) of iCE40-HX8K"):
        fit.check(found, chosen)
