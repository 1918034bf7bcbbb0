"""A design among registers instead of pins, so that its own clock can be measured."""

from prap_hw.deliver.blackbox import module_ports
from refmodel.errors import InputError

TOP = "prap_harness"
"""The module that has the design in it."""

CLOCKS = ("clk", "aclk")
"""Names of clocks that the package's modules have."""

HARNESS = """\

// {top} between two shift registers: five pins, whatever ports it has.
module {harness}(input clk, input shift, input load, input i, output o);
  reg [{last_in}:0] ins;
  reg [{last_out}:0] outs;
  wire [{last_out}:0] found;
  always @(posedge clk) begin
    if (shift) ins <= {{ins, i}};
    outs <= load ? found : {{outs, 1'b0}};
  end
  assign o = outs[{last_out}];
  {top} inside(
{ports}
  );
endmodule
"""


def in_harness(verilog: str, top: str) -> str:
    """Put a module of Amaranth's between two shift registers, which have all its ports but a clock.

    A path from a port or to one then begins or ends in a register beside it, as it does in a design
    that has the module in it, and pins say nothing about the clock.

    Parameters
    ----------
    verilog, top
        Text, and name of the module, which has a clock of :data:`CLOCKS`.

    Returns
    -------
    The text with the module :data:`TOP` behind it.

    Raises
    ------
    InputError
        The module has no such clock.
    """
    ports = module_ports(verilog, top)
    clocks = [name for _, _, name in ports if name in CLOCKS]
    if len(clocks) != 1:
        raise InputError(
            f"expected a module with one clock of {', '.join(CLOCKS)}, found {clocks} in {top}"
        )
    lines = [f"    .{clocks[0]}(clk)"]
    sizes = {"ins": 0, "found": 0}
    for is_input, bits, name in ports:
        if name in clocks:
            continue
        vector = "ins" if is_input else "found"
        low = sizes[vector]
        sizes[vector] += bits
        lines.append(f"    .{name}({vector}[{low + bits - 1}:{low}])")
    return verilog + HARNESS.format(
        harness=TOP,
        top=top,
        last_in=sizes["ins"] - 1,
        last_out=sizes["found"] - 1,
        ports=",\n".join(lines),
    )
