"""A whole network in hardware: sequencer, tile, post-processing, activation memory."""

from refmodel.errors import require_extra

require_extra("hw")
