"""The block for Vivado: linted with its shell, and synthesised for the 7 series."""

import pytest

from prap_hw.board import xilinx
from prap_hw.deliver.verilog import shell_verilog
from sim.builds import verilator
from tests.support.rtl.boards import CONFIG


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    shell = shell_verilog(CONFIG)
    return {
        "prap_shell.v": shell,
        f"{xilinx.WRAPPER}.v": xilinx.wrapper(shell, "prap_shell"),
    }


def test_every_port_of_a_bus_has_its_interface(files):
    text = files[f"{xilinx.WRAPPER}.v"]
    assert '"xilinx.com:interface:axis:1.0 M_AXIS TLAST"' in text
    assert '"xilinx.com:interface:aximm:1.0 S_AXI AWADDR"' in text
    assert "m_axis_tuser," not in text
    assert xilinx.WRAPPER in xilinx.tcl("prap_shell.v")["package_ip.tcl"]


@pytest.mark.cosim
@pytest.mark.long
def test_the_wrapper_passes_the_linter_and_synthesis(files):
    found = verilator.lint("\n".join(files.values()), xilinx.WRAPPER)
    assert found == []
    used = xilinx.use(xilinx.synthesise(files))
    assert used["LUTs"] > 1000
    assert used["multipliers"] > 0
