"""From components to files: Verilog, memory images, synthesis, the folder for integrators."""

from refmodel.errors import require_extra

require_extra("hw")
