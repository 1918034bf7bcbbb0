"""pytest; the only place that sees the golden model and the hardware side by side."""
