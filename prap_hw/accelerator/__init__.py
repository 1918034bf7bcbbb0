"""A whole network in hardware: sequencer, tile, post-processing, activation memory."""
