"""Code in and around the simulator: cocotb benches, the Verilator build, co-simulation."""
