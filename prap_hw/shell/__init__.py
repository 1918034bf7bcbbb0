"""The host shell in Amaranth: AXI ports, packets, registers; and the register map itself."""

from refmodel.errors import require_extra

require_extra("hw")
