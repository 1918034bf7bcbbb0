"""The engine in Amaranth, the Verilog writer, and the command line."""
