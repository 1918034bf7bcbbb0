import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from prap_hw.common.layouts import COUNTERS, Space
from prap_hw.driver import HardwareError, registers
from prap_hw.shell import register_map
from refmodel.config import EngineConfig
from sim.builds.tools import COMPILERS

MAP = register_map.load()


def test_the_drivers_constants_are_those_of_the_description():
    place = Path(registers.__file__)
    assert place.read_text(encoding="utf-8") == register_map.python_text(MAP), (
        "prap_hw/driver/registers.py is not what prap_pim.rdl says: run `make registers`"
    )


def test_registers_do_not_overlap_and_fields_neither():
    taken = set()
    for register in MAP.registers:
        words = range(register.address, register.address + register.width // 8, 4)
        assert register.address % 4 == 0
        assert taken.isdisjoint(words)
        taken |= set(words)
        bits = [bit for f in register.fields for bit in range(f.low, f.low + f.width)]
        assert len(bits) == len(set(bits))
        assert max(bits) < register.width
    assert MAP.size == max(taken) + 4


def test_every_size_of_the_engine_and_every_counter_has_a_register():
    sizes = [field.name for field in fields(EngineConfig) if field.name != "trace"]
    assert list(registers.CONFIGURATION) == [*sizes, "engines", "commands"]
    assert list(registers.COUNTERS) == list(COUNTERS)
    for name, register in registers.CONFIGURATION.items():
        assert MAP[f"CONFIG_{name.upper()}"].address == register


def test_what_the_hand_reads_in_the_description():
    status = MAP["STATUS"]
    assert status.address == 0x14
    assert [(f.name, f.low) for f in status.fields][:3] == [("busy", 0), ("done", 1), ("error", 2)]
    assert not status.writable
    control = MAP["CONTROL"]
    assert all(f.pulse and not f.readable for f in control.fields)
    assert MAP["IRQ_PENDING"].fields[1].clears
    assert MAP["WATCHDOG"].fields[0].reset == 1 << 28
    assert MAP["WATCHDOG"].locked
    assert MAP["COUNT_CYCLES"].width == 64
    assert registers.ErrorCode.START_BUSY == 12
    assert registers.ErrorCode.START_BUSY.meaning == "A start while the core runs."


def test_the_memories_that_an_error_names_are_those_of_the_load_stream():
    assert {s.name: s.value for s in registers.Space} == {s.name: s.value for s in Space}
    assert MAP["ERROR"].fields[1].width == Space.as_shape().width
    # The driver takes the register apart by these numbers.
    assert [(f.name, f.low, f.width) for f in MAP["ERROR"].fields] == [
        ("code", 0, 8),
        ("space", 8, 4),
    ]


def test_an_error_of_the_hardware_says_where_in_words():
    error = HardwareError(registers.ErrorCode.MEMORY_PARITY, 5, registers.Space.WORD)
    assert error.space == registers.Space.WORD
    assert str(error) == (
        "the hardware stopped with MEMORY_PARITY: A word of a memory of the core has the wrong "
        "parity: a bit was flipped in it. (in WORD, reuse words; after 5 outputs)"
    )
    assert "(in memory 13, which" in str(HardwareError(registers.ErrorCode.RANGE, 0, 13))
    other = HardwareError(registers.ErrorCode.PORT, 7)
    assert other.space is None
    assert str(other).endswith("an answer that did not come. (after 7 outputs)")
    assert str(HardwareError(registers.ErrorCode.SHORT, 7)).endswith(" (at 7)")
    assert "code 99, which this driver does not know (at 3)" in str(HardwareError(99, 3))


def test_an_unknown_register_is_a_key_error():
    with pytest.raises(KeyError, match="NOWHERE"):
        MAP["NOWHERE"]


@pytest.mark.cosim
def test_the_c_header_compiles_and_has_the_addresses_masks_and_codes(tmp_path):
    (tmp_path / "prap_pim_registers.h").write_text(register_map.c_text(MAP))
    lines = ['#include "prap_pim_registers.h"', "#include <stdio.h>", "int main(void) {"]
    expected = []
    for register in MAP.registers:
        lines.append(f'printf("%u\\n", PRAP_PIM_{register.name});')
        expected.append(register.address)
        for field in register.fields if register.width == 32 else ():
            name = f"PRAP_PIM_{register.name}_{field.name.upper()}"
            lines.append(f'printf("%u\\n%u\\n", {name}_MASK, {name}_SHIFT);')
            expected += [field.mask, field.low]
    for code in registers.ErrorCode:
        lines.append(f'printf("%u\\n", PRAP_PIM_ERROR_CODE_{code.name});')
        expected.append(code.value)
    (tmp_path / "main.cpp").write_text("\n".join([*lines, "return 0; }", ""]))
    compiler = next(name for name in COMPILERS if shutil.which(name))
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, "main.cpp", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == expected


def test_the_tables_have_every_register_and_every_value_once():
    text = register_map.markdown_text(MAP)
    for register in MAP.registers:
        rows = re.findall(rf"^\| 0x\w+(?: to 0x\w+)? \| `{register.name}` \|", text, re.MULTILINE)
        assert len(rows) == 1
    for code in registers.ErrorCode:
        assert f"| `{code.name}` | {code.value} | {code.meaning} |" in text
