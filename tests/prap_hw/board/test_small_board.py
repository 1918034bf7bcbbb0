"""A small board in Verilator: the driver at its serial pins, its Verilog and its netlist."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prap_hw.board.flow import netlist_verilog
from prap_hw.board.top import TOP
from prap_hw.deliver import place
from prap_hw.driver import Driver, DriverError
from prap_hw.driver.serial import SerialTransport, open_serial
from sim import board
from sim.builds.board import SimulatedBoard
from sim.netlist import expressions
from tests import serial_campaign
from tests.support.rtl import boards
from tests.support.rtl.boards import DIVISOR, KHZ, PATIENCE, SmallBoard

pytestmark = [pytest.mark.cosim, pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def small() -> SmallBoard:
    return boards.small_board()


def outputs_of(model: Path, small: SmallBoard) -> list[tuple[bytes, int]]:
    """Outputs and cycles of each input, on a board with that model."""
    with SimulatedBoard(model, KHZ) as line:
        driver = Driver(SerialTransport(line, patience=PATIENCE, tries=4), timeout=0.5)
        driver.reset()
        driver.load(small.image)
        found = []
        for code in small.codes:
            outputs = driver.run(code.tobytes())
            found.append((outputs, driver.counters()["cycles"]))
        assert line.broken == 0
    return found


def expected_of(small: SmallBoard) -> list[tuple[bytes, int]]:
    return [(row.tobytes(), small.cycles) for row in small.expected]


def test_the_driver_at_the_serial_pins_finds_what_the_model_says(small):
    assert outputs_of(small.model, small) == expected_of(small)


def test_inputs_are_sent_ahead_while_a_run_is_on(small):
    with SimulatedBoard(small.model, KHZ) as line:
        driver = Driver(SerialTransport(line, patience=PATIENCE))
        driver.reset()
        driver.load(small.image)
        loaded = line.cycles
        found = list(driver.run_all(code.tobytes() for code in small.codes))
        ahead = line.cycles - loaded
        for code in small.codes:
            driver.load_activations(code.tobytes())
            driver.start()
            driver.wait()
            driver.read()
        apart = line.cycles - loaded - ahead
    assert found == [row.tobytes() for row in small.expected]
    assert ahead < apart


def test_a_pseudo_terminal_and_pyserial_do_as_well(small):
    pytest.importorskip("serial", reason="needs the extra fpga")
    with SimulatedBoard(small.model, KHZ) as line, board.terminal(line) as name:
        transport = open_serial(name, patience=2.0)
        port: Any = transport.line
        try:
            driver = Driver(transport)
            driver.reset()
            driver.load(small.image)
            assert driver.run(small.codes[0].tobytes()) == small.expected[0].tobytes()
            assert driver.counters()["cycles"] == small.cycles
        finally:
            port.close()


def test_the_button_resets_and_the_lamps_show_a_run(small):
    with SimulatedBoard(small.model, KHZ) as line:
        driver = Driver(SerialTransport(line, patience=PATIENCE, tries=4))
        driver.reset()
        driver.load(small.image)
        driver.run(small.codes[0].tobytes())
        line.run(2 << 12)
        assert line.leds & 0b100  # done
        line.press(True)
        line.run(10)
        line.press(False)
        with pytest.raises(DriverError, match="found it reset"):
            driver.status()
        driver.reset()
        driver.load(small.image)
        assert driver.run(small.codes[1].tobytes()) == small.expected[1].tobytes()


def test_a_damaged_line_gives_right_outputs_or_an_error():
    found, damages, well = serial_campaign.campaign(runs=8, seed=5)
    assert well, found
    assert found["next run right"] == 8
    assert found["right, after repeats"] > 0
    assert any(name.startswith("ended in ") for name in found)
    assert all(damages[kind] > 0 for kind in ("lost", "doubled", "garbled", "pulled"))


@pytest.fixture(scope="module")
def netlist() -> str:
    """The netlist of the small board: all of it, of ECP5 cells."""
    return netlist_verilog(place.netlist(boards.verilog(), TOP, "ecp5"))


def test_the_netlist_at_the_serial_pins_does_what_the_model_says(small, netlist):
    model = board.build(netlist, DIVISOR, family="ecp5")
    assert outputs_of(model, small) == expected_of(small)


def test_a_lut_of_the_netlist_that_is_another_is_found(small, netlist):
    # A LUT on the way of the accumulators to the outputs.
    name = next(iter(board.luts(netlist, "shell.core.engine.requantise.")))
    model = board.build(board.with_lut_changed(netlist, name), DIVISOR, family="ecp5")
    # Where it stops, or never ends, it is found, too.
    with suppress(DriverError):
        assert outputs_of(model, small) != expected_of(small)


def test_every_cell_that_has_a_model_becomes_an_expression(netlist):
    text = expressions(netlist)
    for kind in ("LUT4", "CCU2C", "TRELLIS_FF", "PFUMX", "L6MUX21", "TRELLIS_DPR16X4"):
        assert f"  {kind} " in netlist
        assert f"  {kind} " not in text
    assert "  DP16KD " in text
    assert np.count_nonzero([line.startswith("  assign ") for line in text.splitlines()]) > 5000
