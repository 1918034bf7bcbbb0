"""Board tops: a shell on an FPGA board behind its serial line, and the flow to a bitstream."""
