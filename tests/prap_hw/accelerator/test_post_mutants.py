"""Mutants of the accelerator's own parts: each is rejected by a test of that part, or of networks.

As in :mod:`tests.prap_hw.engine.test_mutants`, a mutant is a module with one line of its source
replaced.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.rtl import (
    accelerator_engines,
    accelerator_host,
    lookups,
    operand_walks,
    pooling,
    residuals,
    write_backs,
)
from tests.support.rtl.mutants import Mutant, load, place


def write_back(_: Path) -> None:
    write_backs.check_a_region_is_written_whole_and_in_time((2, 3, 4), (1, 1, 1, 1))
    write_backs.check_what_is_sent_goes_to_the_host_and_to_memory(0)


def operand_reader(_: Path) -> None:
    for seed in range(12):
        operand_walks.check_codes_are_those_of_plain_loops_one_a_cycle(seed)


def pool_unit(_: Path) -> None:
    for seed in range(4):
        pooling.check_outputs_match_the_formula_with_and_without_pauses(seed)
    pooling.check_the_widest_sum_is_exact()


def products(_: Path) -> None:
    for seed in range(8):
        pooling.check_products_match_the_formula_with_and_without_pauses(seed)
    pooling.check_the_widest_product_is_exact()


def lookup(_: Path) -> None:
    for seed in range(6):
        lookups.check_codes_are_looked_up_one_cycle_later(seed)


def requantise(_: Path) -> None:
    for seed in range(16):
        residuals.check_codes_match_the_golden_model(seed)


def chain(folder: Path) -> None:
    check = (
        accelerator_host.check_networks_compute_what_the_golden_model_does_in_the_predicted_cycles
    )
    check("chain", folder)


def residual(folder: Path) -> None:
    check = (
        accelerator_host.check_networks_compute_what_the_golden_model_does_in_the_predicted_cycles
    )
    check("residual, fused", folder)


def image(folder: Path) -> None:
    accelerator_host.check_an_image_may_come_before_a_start_or_after_it(folder)


def engines(folder: Path) -> None:
    check = accelerator_engines.check_codes_counters_and_cycles_are_as_predicted
    check("waist, 2 engines", folder)


def engines_held(folder: Path) -> None:
    accelerator_engines.check_outputs_that_nobody_takes_for_long_are_all_there(folder)


@dataclass(frozen=True)
class Case:
    """A line of a module, what it becomes, and the check that must fail."""

    module: str
    old: str
    new: str
    check: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.module}: {self.new}"


CASES = [
    Case("write_back", "fill.eq(filling & ~taken)", "fill.eq(filling & ~open_)", write_back),
    Case("write_back", "& (~filling | fill_ends)", "& ~filling", write_back),
    Case("write_back", "open_ & ~spared", "open_", write_back),
    Case("operand_reader", "Mux(absent, zeros[self.o.payload.operand], read.data)", "read.data",
         operand_reader),
    Case("operand_reader", "active & (~self.o.valid | self.o.ready)", "active & ~self.o.valid",
         operand_reader),
    Case("operand_reader", "Mux(last_column, next_row, column_address", "Mux(0, next_row, "
         "column_address", operand_reader),
    Case("pool_unit", "Mux(first, 0, total)", "total", pool_unit),
    Case("pool_unit", "PRODUCT_BITS = 32", "PRODUCT_BITS = 31", products),
    Case("pool_unit", "Mux(second, 0, before)", "before", products),
    Case("pool_unit", "held = Signal(signed(24))", "held = Signal(signed(23))", products),
    Case("lookup", "(channel == registers.last_channel, 0,", "(0, 0,", lookup),
    Case("lookup", "self.i.ready.eq(self.o.ready & ~(there & words.wrong))",
"self.i.ready.eq(1)", lookup),
    Case("lookup", "Mux(registers.lookup == Lookup.CHANNEL, channel, 0)", "channel", lookup),
    Case("lookup", "table * TABLE_CODES", "registers.first_table * TABLE_CODES", lookup),
    Case("pool_unit", "Mux(registers.maximum, 0, registers.zero_out)", "registers.zero_out",
         pool_unit),
    Case("pool_unit", "24 + bits_for(MOST_TAPS)", "24 + 8", pool_unit),
    Case("requantise", "total += left", "total += 0", requantise),
    Case("requantise", "registers.zero_out + whole", "registers.zero_out", requantise),
    Case("requantise", "channel + registers.first_output", "channel", requantise),
    Case("sequencer", "(ended & ~last & ~waiting)", "(ended & ~last)", chain),
    Case("ou_engine", "(self.first_crossbar if config.network else 0)", "0", chain),
    Case("engine", "self.clear if config", "self.start if config", chain),
    Case("accelerator", "core.clear.eq(accepted)", "core.clear.eq(0)", chain),
    Case("accelerator", "& going & ~loading", "& going", image),
    Case("accelerator", '"activation_writes": write_back.store.valid',
         '"activation_writes": outputs.valid & outputs.ready', residual),
    Case("accelerator", '_reads": reader.reading', '_reads": reader.reading & layer', residual),
    Case("accelerator", '_reads": reader.reading', '_reads": reader.reading & ~layer', residual),
    Case("tile", "channel + self.registers.first_output if config.network else channel", "channel",
         engines),
    Case("tile", "target.every | (target.engine == n)", "(target.engine == n)", engines),
    Case("tile", "target.every | (target.engine == n)", "target.every | (n == 0)", engines),
    Case("tile", "self.active.eq(load.data)", "self.active.eq(self.active | load.data)", engines),
    Case("tile", "core.clear.eq(self.clear)", "core.clear.eq(self.clear & reduction.active[n])",
         engines),
    Case("tile", "core.start.eq(self.start & reduction.active[n])", "core.start.eq(self.start)",
         engines),
    Case("tile", "core.i_store.payload.eq(self.i_store.payload)",
         "core.i_store.payload.eq(self.i_store.payload if n == 0 else 0)", engines),
    Case("tile", "added(m, events, COUNTER_BITS, name)", "added(m, events[:1], COUNTER_BITS, name)",
         engines),
    Case("sequencer", ".eq(command[name])", ".eq(command[name] if name != 'every' else 0)",
         engines),
    Case("sequencer", ".eq(command[name])", ".eq(command[name] if name != 'engine' else 0)",
         engines),
    Case("load", "first + output, share", "output, share", engines),
    Case("load", "data=data, engine=engine", "data=data, engine=0", engines),
    Case("accelerator", "Requantise(config, sums_held(engines))", "Requantise(config)",
         engines_held),
    Case("pattern_controller", "row_base.eq(registers.base if based else 0)", "row_base.eq(0)",
         chain),
]  # fmt: skip


def put_in_place(case, new: str, monkeypatch) -> None:
    """Load the module of a case with ``new`` in place of its line, and let all use that."""
    original = sys.modules[place(case.module)]
    mutant = load(Mutant(case.module, str(case), ((case.old, new),), ""))
    users = [m for name, m in sys.modules.items() if name.startswith(("prap_hw.", "tests."))]
    for user in users:
        for name, value in list(vars(user).items()):
            if getattr(value, "__module__", None) == original.__name__ and hasattr(mutant, name):
                monkeypatch.setattr(user, name, getattr(mutant, name))


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_mutant_is_rejected(case, monkeypatch, tmp_path):
    put_in_place(case, case.new, monkeypatch)
    with pytest.raises(AssertionError):
        case.check(tmp_path)


CONTROLS = {(case.module, case.check.__name__): case for case in CASES}


@pytest.mark.long
@pytest.mark.parametrize("name", CONTROLS, ids="-".join)
def test_a_module_that_is_only_loaded_again_is_not(name, monkeypatch, tmp_path):
    case = CONTROLS[name]
    put_in_place(case, case.old, monkeypatch)
    case.check(tmp_path)
