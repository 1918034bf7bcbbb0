"""Write-back: outputs with pitch, border beside them, and when the operation ends."""

import pytest

from prap_hw.accelerator.write_back import WriteBack
from refmodel.predict.accelerator.operations import Operation
from refmodel.predict.accelerator.regions import Region, Walk
from tests.support.rtl.bench import Constant, Script, Watch, simulate
from tests.support.rtl.write_backs import (
    BORDERS,
    CONFIG,
    SHAPES,
    START,
    Memory,
    check_a_region_is_written_whole_and_in_time,
    check_what_is_sent_goes_to_the_host_and_to_memory,
    operation,
    run,
)


@pytest.mark.parametrize("border", BORDERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_region_is_written_whole_and_in_time(shape, border):
    check_a_region_is_written_whole_and_in_time(shape, border)


@pytest.mark.parametrize("seed", range(4))
def test_pauses_are_used_for_the_border(seed):
    op = operation((3, 3, 2), (1, 2, 1, 0), base=5)
    codes = list(range(18))
    memory, busy, _, source = run(op, codes, stall=0.5, seed=seed)
    assert op.fill is not None
    end = max(source.sent[-1], START + 18 + op.fill.bytes)
    assert busy.index(0, START + 1) == end + 1
    assert len(memory.cycles) == 18 + op.fill.bytes
    region = Region(base=5, shape=(3, 3, 2), border=(1, 2, 1, 0))
    assert [memory.bytes[a] for a in region.addresses.ravel().tolist()] == codes


def test_outputs_of_several_parts_of_a_tensor_have_its_pitch():
    # Two channels out of five, from the second on, without a border.
    walk = Walk(base=101, row_step=15, column_step=5)
    op = Operation(name="a", kind="pool", shape=(2, 3, 2), output=walk)
    memory, *_ = run(op, list(range(12)))
    assert memory.bytes == dict(
        zip([101, 102, 106, 107, 111, 112, 116, 117, 121, 122, 126, 127], range(12), strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_sent_goes_to_the_host_and_to_memory(seed):
    check_what_is_sent_goes_to_the_host_and_to_memory(seed)


def test_one_output_is_written_while_the_host_does_not_take_it_and_the_border():
    op = operation((1, 2, 1), (1, 0, 0, 0), send=True)
    memory, busy, sink, _ = run(op, [5, 6], ready=lambda cycle: cycle >= START + 20)
    assert sink.cycles == [START + 20, START + 21]
    assert memory.cycles == [START + 1, START + 2, START + 3, START + 21]
    assert busy.index(0, START + 1) == START + 22


def test_reset_ends_an_operation():
    dut = WriteBack(CONFIG)
    busy, memory = Watch(dut.busy), Memory(dut)
    constants = Constant((dut.registers.fill, 1), (dut.registers.fill_first, 100))
    simulate(
        dut, constants, Script(dut.start, {START: 1}), busy, memory, cycles=30, reset={START + 5}
    )
    assert sum(busy.values) == 5
    assert len(memory.cycles) == 5
