"""One engine in Amaranth: controller, gather, OU engine, partial sums, merge, requantisation."""

from refmodel.errors import require_extra

require_extra("hw")
