"""Code that runs inside the simulator.

Cocotb benches, models of the crossbars and streams at the ports of the hardware, and the Verilog
tops (``*.sv``) that hold the hardware in benches which need more than its ports.
"""
