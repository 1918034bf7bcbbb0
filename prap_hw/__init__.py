"""Hardware of PRAP-PIM in Amaranth, its Verilog writer, and the command line ``prap``."""
