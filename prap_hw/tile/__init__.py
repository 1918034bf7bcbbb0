"""Several engines on one layer, in Amaranth."""
