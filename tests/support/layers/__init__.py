"""Layers, programs and devices that tests make."""
