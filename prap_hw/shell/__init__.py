"""The host shell in Amaranth: AXI ports, packets, registers; and the register map itself."""
