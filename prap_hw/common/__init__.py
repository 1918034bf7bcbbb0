"""Parts that all components share: layouts, memories with parity, crossbar port, member lists."""

from refmodel.errors import require_extra

require_extra("hw")
