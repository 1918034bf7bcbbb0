"""Accumulators that a requantiser reads."""

from tests.support.rtl.bench import Agent


class Accumulators(Agent):
    """The accumulators' read port: ``values[position][output]``, positions in order."""

    def __init__(self, dut, values):
        self.dut, self.values = dut, values
        self.position = 0
        self.shown = 0
        self.halves: list[int] = []
        self.reads: list[tuple[int, int, int]] = []
        self.signals = (dut.read_en, dut.read_half, dut.read_output, dut.half_read)

    def drive(self, ctx, cycle):
        ctx.set(self.dut.read_acc, self.shown)

    def see(self, cycle, *values):
        enable, half, output, half_read = values
        if enable:
            self.shown = self.values[self.position][output]
            self.reads.append((cycle, half, output))
        if half_read:
            self.halves.append(half_read)
            self.position += 1
