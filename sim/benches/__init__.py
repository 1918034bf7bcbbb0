"""Runs inside the simulator: cocotb benches, what is at their ports, and their Verilog."""
