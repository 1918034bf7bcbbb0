"""The cocotb bench of faults behind the host shell: flipped bits in memory, a dead crossbar port.

The job is that of :mod:`sim.benches.shell`, and ``memories`` beside: fields of a
:class:`~sim.builds.memories.Memory`, the value of its space, and a word that a run reads. Without
any, the job is for a shell whose crossbar port never answers.
`tests/prap_hw/shell/test_shell_faults.py` writes it.
"""

import random

from cocotb.triggers import ClockCycles

from prap_hw.driver import ErrorCode, HardwareError, Register
from prap_hw.driver.registers import Control, IrqPending, Status
from sim.benches.shell import IMAGE, INPUTS, JOB, Host, bench
from sim.builds.memories import Memory


async def stopped(host: Host, code: ErrorCode, space: int | None) -> int:
    """Wait for the interrupt of a fault; gives the number of good outputs that the host has."""
    assert await host.ports.interrupt(20_000), "expected an interrupt"
    error = await host.error(HardwareError, host.do("wait"))
    assert isinstance(error, HardwareError)
    assert (error.code, error.space) == (code, space), f"expected {code!r} {space}, found {error}"
    assert error.item < IMAGE.output_bytes
    assert await host.ports.read(Register.IRQ_PENDING) == IrqPending.ERROR
    status = await host.do("status")
    assert status & Status.ERROR
    assert not status & (Status.BUSY | Status.DONE)
    await ClockCycles(host.dut.aclk, 300)
    outputs = 0
    while not host.ports.sink.empty():
        data, bad = await host.ports.receive(1)
        assert bad, "expected TUSER on the packet"
        outputs = max(outputs, len(data))
    return outputs


@bench(stall=0.3, seed=1)
async def a_flipped_bit_of_any_memory(host: Host) -> None:
    """Interrupt, code and memory; no packet that looks good; a reset, a load, and a right run."""
    draw = random.Random(1)
    begun = 0
    for fields, space, address in JOB["memories"]:
        memory = Memory(**fields)
        await host.do("load", IMAGE)
        word = memory.of(host.dut.shell)[address]
        word.value = int(word.value) ^ 1 << draw.randrange(memory.width)
        await host.do("load_activations", INPUTS[0])
        # As the driver does, which then would look for an error that may be there already.
        await host.ports.write(Register.IRQ_PENDING, IrqPending.DONE | IrqPending.ERROR)
        await host.ports.write(Register.CONTROL, Control.START)
        begun += await stopped(host, ErrorCode.MEMORY_PARITY, space) > 0
        # A packet that comes now is discarded.
        await host.ports.send(IMAGE.program)
        await host.do("reset")
        assert await host.ports.read(Register.ERROR) == 0
        await host.right()
    assert begun, "expected a packet that had begun"


@bench(again=False)
async def a_crossbar_port_that_does_not_answer(host: Host) -> None:
    """Its watchdog stops the run, and after a reset the next one."""
    for inputs in INPUTS[:2]:
        await host.do("load", IMAGE)
        await host.do("load_activations", inputs)
        await host.do("start")
        assert await stopped(host, ErrorCode.PORT, None) == 0
        await host.do("reset")
