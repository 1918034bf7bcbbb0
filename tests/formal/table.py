"""What `make formal` proves: a row to each component, with the mutants that the proof rejects."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from prap_hw.accelerator import operand_reader, pool_unit, write_back
from prap_hw.board import frames
from prap_hw.common import crossbar, index_reader
from prap_hw.engine import input_gather, ou_engine, pattern_controller, requantise
from tests.formal.control import NETWORK, List, Positions
from tests.formal.memories import Additions, Sums, Walk
from tests.formal.specs import Buffer, Moves, Ports, Reader, Registers, Shell, Spec, Writer
from tests.support.layers.hand import TINY_ENGINE

ENGINE = replace(TINY_ENGINE, trace=False)
WALKED = replace(ENGINE, max_segments=4, max_gathers=4, max_groups=4, max_words=4)

STREAMS = "streams hold"
MOVES = "where what it gives is taken, what it is given is taken within"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A component, its properties, and what rejects.

    Attributes
    ----------
    module
        The component's module.
    what
        The properties.
    spec
        Makes the specification.
    depth
        Cycles of the base case and of the step.
    proved
        Whether induction proves it; else it holds for ``depth`` cycles from reset.
    mutants
        Description of each, lines of the module, others in their place.
    within
        Cycles from reset within which each mutant breaks it.
    """

    module: str
    what: str
    spec: Callable[[], Spec]
    depth: int
    proved: bool = True
    mutants: tuple[tuple[str, str, str], ...]
    within: int = 8


ROWS = (
    Row(
        module="shell.axi_stream",
        what="a beat that came leaves, once, unchanged and in turn; streams hold",
        spec=Buffer,
        depth=10,
        proved=False,
        mutants=(
            (
                "a beat is taken although there is no room",
                "self.axi.tready.eq(beats.w_rdy)",
                "self.axi.tready.eq(1)",
            ),
        ),
        within=10,
    ),
    Row(
        module="shell.axi_lite",
        what="AXI4-Lite: answers hold, one to an access, none without",
        spec=Registers,
        depth=4,
        mutants=(
            (
                "a write is answered before its data",
                "write.eq(address_taken & data_taken & ~axi.bvalid)",
                "write.eq(address_taken & ~axi.bvalid)",
            ),
            (
                "an answer is written over",
                "read.eq(read_taken & ~axi.rvalid)",
                "read.eq(read_taken)",
            ),
        ),
    ),
    Row(
        module="shell.packet_writer",
        what="AXI4-Stream, abort and begin in any cycle; not idle before the last beat is taken",
        spec=Writer,
        depth=2,
        mutants=(
            (
                "a beat moves over one that waits",
                "move.eq(~axi.tvalid & ~aborting & (finishing | (full & more)))",
                "move.eq(~aborting & (finishing | (full & more)))",
            ),
            (
                "idle before the last beat is offered",
                "self.idle.eq(~axi.tvalid & ~aborting & ~finishing)",
                "self.idle.eq(~axi.tvalid & ~aborting)",
            ),
        ),
    ),
    Row(
        module="shell.packet_reader",
        what="items hold but for a soft reset, behind which nothing is left of a dropped packet",
        spec=Reader,
        depth=3,
        mutants=(
            (
                "a drop leaves the reader inside the packet",
                "                m.d.sync += inside.eq(0)\n",
                "                pass\n",
            ),
            (
                "a drop leaves the reader discarding",
                "with m.If(ended | (self.forget & self.drop)):",
                "with m.If(ended):",
            ),
        ),
    ),
    Row(
        module="shell.host_shell",
        what="AXI at all ports, soft resets in any cycle; an error stops the run; done comes last",
        spec=Shell,
        depth=4,
        mutants=(
            (
                "the core runs on behind an error",
                "m.d.sync += held.eq(stop | error | forget)",
                "m.d.sync += held.eq(stop | forget)",
            ),
        ),
        within=12,
    ),
    Row(
        module="common.index_reader",
        what=STREAMS,
        spec=lambda: Ports(index_reader.IndexReader(8, 4), "last", cut="start"),
        depth=6,
        mutants=(
            (
                "a word moves on untaken",
                "onward.eq(~(self.o.valid | self.wrong) | (self.o.valid & self.o.ready))",
                "onward.eq(1)",
            ),
        ),
    ),
    Row(
        module="common.index_reader",
        what="words come in turn, each once, as written, from the first to the last and again",
        spec=Walk,
        depth=8,
        proved=False,
        mutants=(
            (
                "a word is read over one that waits",
                "read.en.eq(at_first | (running & (~there | onward)))",
                "read.en.eq(at_first | running)",
            ),
            (
                "what was read as it changed is not read once more",
                "                again.eq(self.loading),\n",
                "",
            ),
        ),
    ),
    Row(
        module="common.crossbar",
        what=STREAMS,
        spec=lambda: Ports(crossbar.EmulatedCrossbar(ENGINE)),
        depth=6,
        mutants=(
            (
                "an answer is written over",
                "move.eq(~valid | response.ready)",
                "move.eq(1)",
            ),
        ),
    ),
    Row(
        module="engine.input_gather",
        what=STREAMS,
        spec=lambda: Ports(input_gather.InputGather(ENGINE)),
        depth=8,
        proved=False,
        mutants=(
            (
                "a vector is let go untaken",
                "released.eq(self.o.valid & self.o.ready)",
                "released.eq(self.o.valid)",
            ),
        ),
    ),
    Row(
        module="engine.ou_engine",
        what=f"{STREAMS}; as many slots as are free",
        spec=lambda: Ports(
            ou_engine.OUEngine(ENGINE),
            "last_descriptor",
            environment=lambda dut, inner: inner["free"] + dut.released <= ENGINE.slots,
        ),
        depth=6,
        mutants=(
            (
                "a request is given up where there is no room for what is pending",
                "with m.If(self.o_request.ready):",
                "with m.If(self.o_request.ready | ~self.o_pending.ready):",
            ),
        ),
    ),
    Row(
        module="engine.pattern_controller",
        what=STREAMS,
        spec=lambda: Ports(
            pattern_controller.PatternController(WALKED),
            cut="resting",
            environment=lambda dut, inner: (
                ~(
                    (dut.i_load.valid & ~dut.resting)
                    | (dut.start & ~dut.resting)
                    | (dut.resting & inner["walking"])
                )
            ),
        ),
        depth=4,
        mutants=(
            (
                "a segment is written over",
                "& (~segment_valid | self.o_segments.ready)",
                "",
            ),
        ),
        within=10,
    ),
    Row(
        module="engine.psum_store",
        what="a slot holds what came for it since a sum that did not add; each is counted once",
        spec=Sums,
        depth=6,
        proved=False,
        mutants=(
            (
                "a sum replaces what its slot holds",
                "Mux(accumulate, before[bank], 0)",
                "0",
            ),
            (
                "a slot that is not complete is counted",
                "complete.eq(Mux(completing, stored, 0))",
                "complete.eq(stored)",
            ),
        ),
        within=6,
    ),
    Row(
        module="engine.accumulators",
        what="an accumulator holds what was added since one wrote, at any pace; so it is read",
        spec=Additions,
        depth=6,
        proved=False,
        mutants=(
            (
                "a block that is written as it is addressed is read as it was",
                "transparent_for=(write,)",
                "transparent_for=()",
            ),
            (
                "what was read does not stand",
                "kept.eq(self.read_acc)",
                "kept.eq(Array(old)[chosen])",
            ),
        ),
        within=6,
    ),
    Row(
        module="engine.block_reader",
        what="a pulse to each position of a block, one a cycle; a half is free with its last read",
        spec=Positions,
        depth=2,
        mutants=(
            (
                "a half is free with its first position",
                "(self.read_turn == last)",
                "(self.read_turn == 0)",
            ),
            (
                "a block that comes is not looked at",
                "Mux(here, self.last_turn, Array(lasts)[self.read_half])",
                "Array(lasts)[self.read_half]",
            ),
            (
                "a position of a block has no pulse",
                "Mux(self.block_done, self.last_turn + 1, 0)",
                "Mux(self.block_done, self.last_turn, 0)",
            ),
        ),
    ),
    Row(
        module="engine.requantise",
        what=STREAMS,
        spec=lambda: Ports(requantise.Requantise(ENGINE), "registers"),
        depth=6,
        mutants=(
            (
                "an output is written over",
                "with m.If(~self.o.valid | self.o.ready):",
                "with m.If(~self.o.valid | self.o.ready | valid[3]):",
            ),
        ),
        within=12,
    ),
    Row(
        module="accelerator.sequencer",
        what="one operation runs at a time; done once to a start, behind the last; loads while "
        "nothing runs",
        spec=List,
        depth=5,
        mutants=(
            (
                "words are taken while an operation runs",
                "(ended & ~last & ~waiting)",
                "((at == state.WAIT) & ~last & ~waiting)",
            ),
            ("done without a start", "self.done.eq(finished & asked)", "self.done.eq(finished)"),
            (
                "words are loaded in a run",
                "self.loadable.eq(idle & ~asked)",
                "self.loadable.eq(idle)",
            ),
        ),
        within=10,
    ),
    Row(
        module="accelerator.operand_reader",
        what=STREAMS,
        spec=lambda: Ports(
            operand_reader.OperandReader(NETWORK),
            "registers",
            environment=lambda dut, inner: ~(dut.start & (inner["active"] | dut.o.valid)),
        ),
        depth=6,
        mutants=(
            (
                "a code is written over",
                "read_now.eq(active & (~self.o.valid | self.o.ready))",
                "read_now.eq(active)",
            ),
        ),
    ),
    Row(
        module="accelerator.pool_unit",
        what=STREAMS,
        spec=lambda: Ports(pool_unit.PoolUnit(NETWORK), "registers"),
        depth=6,
        mutants=(
            ("a result is written over", "move.eq(~self.o.valid | self.o.ready)", "move.eq(1)"),
        ),
    ),
    Row(
        module="accelerator.write_back",
        what=STREAMS,
        spec=lambda: Ports(
            write_back.WriteBack(NETWORK),
            "registers",
            environment=lambda dut, _: ~(dut.start & dut.busy),
            invariant=lambda dut, inner: ~(inner["open_"] | inner["filling"]) | dut.busy,
        ),
        depth=6,
        mutants=(
            (
                "a code that waits is overtaken by the next",
                "self.o.payload.eq(Mux(spared, spare, coming))",
                "self.o.payload.eq(coming)",
            ),
        ),
    ),
    Row(
        module="common.crossbar",
        what=f"{MOVES} 4 cycles",
        spec=lambda: Moves(crossbar.EmulatedCrossbar(ENGINE), within=4),
        depth=8,
        mutants=(
            (
                "an answer that is taken is kept",
                "move.eq(~valid | response.ready)",
                "move.eq(~valid)",
            ),
        ),
        within=10,
    ),
    Row(
        module="engine.input_gather",
        what=f"{MOVES} 7 cycles, of runs of 4 bytes at most",
        spec=lambda: Moves(
            input_gather.InputGather(ENGINE),
            within=7,
            environment=lambda dut, _: (
                (dut.i_segments.payload.length >= 1) & (dut.i_segments.payload.length <= 4)
            ),
        ),
        depth=14,
        proved=False,
        mutants=(
            (
                "a vector that is taken keeps its buffer",
                "released.eq(self.o.valid & self.o.ready)",
                "released.eq(0)",
            ),
        ),
        within=24,
    ),
    Row(
        module="engine.ou_engine",
        what=f"{MOVES} 10 cycles, of one pattern and while there are slots",
        spec=lambda: Moves(
            ou_engine.OUEngine(ENGINE),
            "last_descriptor",
            within=10,
            environment=lambda dut, inner: (
                (inner["free"] + dut.released <= ENGINE.slots)
                & (inner["free"] != 0)
                & (dut.i.payload.patterns == 1)
            ),
        ),
        depth=14,
        proved=False,
        mutants=(
            (
                "an input's digits do not move on",
                "m.d.sync += [chunk.eq(0), digit.eq(digit + 1)]",
                "m.d.sync += [chunk.eq(0), digit.eq(digit)]",
            ),
        ),
        within=16,
    ),
    Row(
        module="accelerator.pool_unit",
        what=f"{MOVES} 4 cycles",
        spec=lambda: Moves(pool_unit.PoolUnit(NETWORK), "registers", within=4),
        depth=8,
        mutants=(
            (
                "a result that is taken stands",
                "move.eq(~self.o.valid | self.o.ready)",
                "move.eq(~self.o.valid)",
            ),
        ),
        within=12,
    ),
    Row(
        module="board.frames",
        what=f"{MOVES} 12 cycles; streams hold",
        spec=lambda: Moves(frames.FrameTransmitter(), within=12),
        depth=16,
        proved=False,
        mutants=(
            (
                "a byte that is escaped stays so",
                "left.eq(left - 1)",
                "left.eq(left)",
            ),
        ),
        within=20,
    ),
)
