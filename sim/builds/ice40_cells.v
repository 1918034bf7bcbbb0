// Cells of the iCE40 for the simulation of a netlist: Yosys' own models.

/* verilator lint_off DECLFILENAME */
/* verilator lint_off MULTITOP */

`include "cells_sim.v"
