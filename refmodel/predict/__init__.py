"""Predictions for a program: cycles and events of an engine, a tile and the accelerator."""
