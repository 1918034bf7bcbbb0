"""Builds: what the machine must have, Verilator, and the models and libraries made with it."""
