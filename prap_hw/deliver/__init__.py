"""What leaves the hardware: Verilog, memory images, synthesis, the folder for integrators."""
