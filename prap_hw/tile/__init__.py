"""Several engines on one layer, in Amaranth."""

from refmodel.errors import require_extra

require_extra("hw")
