"""Drivers and checks of the hardware in Amaranth's simulator, and mutants of it."""
