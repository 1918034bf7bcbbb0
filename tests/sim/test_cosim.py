"""The emitted Verilog in Verilator: many random layers, stalls on every stream, planted faults."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.converters import AdcRange
from refmodel.golden.devices.device import Device
from refmodel.predict import cycles
from refmodel.program.program import Program
from sim import protocol
from sim.results import KINDS, CosimResult
from tests.support.layers.bad_devices import BAD, EFFECTS, EVERYTHING
from tests.support.layers.builders import side_by_side
from tests.support.nets.cosim_nets import (
    EMULATED,
    OPEN,
    WIDE,
    cosim,
    fitting,
    inputs,
    random_network,
    reused_network,
)

pytestmark = pytest.mark.cosim


def assert_equal(result: CosimResult, images: int) -> None:
    """All that was expected was compared, and nothing differs."""
    assert result.difference is None, str(result.difference)
    assert set(result.compared) == set(KINDS)
    for kind, counts in result.compared.items():
        assert counts["values"] == counts["expected"] > 0, kind
        assert counts["different"] == 0, kind
    assert all(len(layer.cycles_simulated) == images for layer in result.layers)


@pytest.mark.parametrize(
    ("port", "config"), [("emulated", EMULATED), ("open", OPEN)], ids=["emulated", "open"]
)
def test_every_value_and_cycle_of_random_layers(
    port: str, config: EngineConfig, tmp_path: Path, cache: Path
) -> None:
    program = random_network(101, 24, config)
    codes = inputs(program, 2, 102)
    result = cosim(program, codes, config, tmp_path, port=port, cache=cache)
    assert_equal(result, 2)
    for layer, simulated in zip(program.layers, result.layers, strict=True):
        predicted = cycles.predict(layer, config).cycles
        assert simulated.cycles_predicted == predicted
        assert simulated.cycles_simulated == (predicted, predicted)
    assert result.logits is not None
    last = golden.run_program(program, codes)[program.output]
    np.testing.assert_array_equal(result.logits, last)


@pytest.mark.parametrize("port", ["emulated", "open"])
@pytest.mark.long
def test_every_value_and_cycle_where_payloads_are_wide(
    port: str, tmp_path: Path, cache: Path
) -> None:
    program = random_network(111, 8, WIDE)
    codes = inputs(program, 1, 112)
    result = cosim(program, codes, WIDE, tmp_path, port=port, cache=cache)
    assert_equal(result, 1)
    for layer, simulated in zip(program.layers, result.layers, strict=True):
        assert simulated.cycles_simulated == (cycles.predict(layer, WIDE).cycles,)


@pytest.mark.long
def test_a_code_beyond_the_first_word_is_compared(tmp_path: Path, cache: Path) -> None:
    program = random_network(111, 2, WIDE)
    codes = inputs(program, 1, 112)
    lanes = set()
    for seed in range(12):
        result = cosim(
            program,
            codes,
            WIDE,
            tmp_path,
            plant="code",
            seed=seed,
            record_difference=False,
            cache=cache,
        )
        assert result.difference is not None
        assert result.difference.kind == "codes"
        assert result.compared["codes"]["different"] == 1
        lanes.add(int(result.difference.where.rpartition(" ")[2]))
        if max(lanes) >= 7:
            return
    pytest.fail(f"no fault of a converter beyond the sixth in {lanes}")


@pytest.mark.parametrize("seed", [201, 202])
@pytest.mark.parametrize("stall", [0.15, 0.5])
@pytest.mark.parametrize(
    ("port", "config"), [("emulated", EMULATED), ("open", OPEN)], ids=["emulated", "open"]
)
def test_every_value_of_random_layers_with_stalls(
    port: str, config: EngineConfig, stall: float, seed: int, tmp_path: Path, cache: Path
) -> None:
    program = random_network(seed, 6, config)
    codes = inputs(program, 1, seed)
    result = cosim(program, codes, config, tmp_path, port=port, stall=stall, seed=seed, cache=cache)
    assert_equal(result, 1)
    slower = [layer.cycles - layer.cycles_predicted for layer in result.layers]
    assert min(slower) >= 0
    assert max(slower) > 0


LIKE_WAN = dataclasses.replace(Device.load("wan-2022"), stuck_on=0.02, read_noise=0.08)
"""As published, but with so much more that is stuck and noisy that a small network shows it."""

NOISY = {
    "like wan-2022": (LIKE_WAN, OPEN, 0.0),
    "everything": (EVERYTHING, OPEN, 0.3),
    "bad": (BAD, OPEN, 0.3),
    "clipping": (BAD, dataclasses.replace(OPEN, adc_bits=3), 0.0),
    "wide": (BAD, WIDE, 0.3),
}
"""Devices, engines and shares of stalls: every effect at once; those that every device file has;
the same with converters that clip; and with multi-level cells and digits, under payloads of several
words."""


RANGES = {0: AdcRange(bits=2, low=1.0, step=1.5), 3: AdcRange(bits=1, step=2.0)}
"""Converters of some layers of ``everything``, which have fewer bits than sums."""

LONG = ("bad", "clipping", "wide")
"""Those with an engine of their own to be built, and one that has less than another."""


def accumulators_of(
    program: Program, codes: np.ndarray, config: EngineConfig, chip: Chip | None
) -> list[np.ndarray]:
    """Accumulators of each layer of a network whose layers all read the input."""
    tensors = golden.run_program(program, codes)
    return [
        golden.serial_accumulators(
            layer,
            tensors[f"in{number}"],
            config,
            device=None if chip is None else chip.layer(layer, number),
        )
        for number, layer in enumerate(program.layers)
    ]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.long] if case in LONG else []) for case in NOISY],
)
def test_every_code_under_noise(case: str, tmp_path: Path, cache: Path) -> None:
    device, config, stall = NOISY[case]
    program = random_network(701, 6, config)
    codes = inputs(program, 1, 702).repeat(2, 0)
    ranges = RANGES if case == "everything" else {}
    result = cosim(
        program,
        codes,
        config,
        tmp_path,
        device=device,
        chip_seed=3,
        ranges=ranges,
        stall=stall,
        seed=1,
        cache=cache,
    )
    assert_equal(result, 2)
    chip = Chip(device=device, config=config, seed=3, ranges=ranges)
    assert result.logits is not None
    last = golden.run_program(program, codes, layer_fn=chip.layer_function(program))
    np.testing.assert_array_equal(result.logits, last[program.output])
    if not stall:
        for layer, simulated in zip(program.layers, result.layers, strict=True):
            predicted = cycles.predict(layer, config).cycles
            assert simulated.cycles_simulated == (predicted, predicted)
    # The chip is not ideal, no other chip gives its values, and two equal images differ by noise.
    found = accumulators_of(program, codes, config, chip)
    ideal = accumulators_of(program, codes, config, None)
    other = accumulators_of(program, codes, config, dataclasses.replace(chip, seed=4, _drawn={}))
    assert any((a != b).any() for a, b in zip(found, ideal, strict=True))
    assert any((a != b).any() for a, b in zip(found, other, strict=True))
    assert any((sums[0] != sums[1]).any() for sums in found)


@pytest.mark.long
@pytest.mark.parametrize("name", EFFECTS)
def test_every_code_under_one_effect(name: str, tmp_path: Path, cache: Path) -> None:
    device = EFFECTS[name]
    program = random_network(701, 2, OPEN)
    codes = inputs(program, 1, 702)
    result = cosim(program, codes, OPEN, tmp_path, device=device, chip_seed=3, cache=cache)
    assert_equal(result, 1)
    chip = Chip(device=device, config=OPEN, seed=3)
    found = accumulators_of(program, codes, OPEN, chip)
    ideal = accumulators_of(program, codes, OPEN, None)
    assert any((a != b).any() for a, b in zip(found, ideal, strict=True))


def test_a_request_counted_wrongly_is_found(tmp_path: Path, cache: Path) -> None:
    program = random_network(701, 2, OPEN)
    codes = inputs(program, 1, 702)
    result = cosim(
        program,
        codes,
        OPEN,
        tmp_path,
        device=BAD,
        mutant="ordinal",
        record_difference=False,
        cache=cache,
    )
    assert result.difference is not None
    assert result.difference.kind == "codes"
    assert result.compared["codes"]["different"] > 0
    assert {found.kind for found in result.differences} <= set(KINDS)


@pytest.mark.long
def test_a_fault_in_a_chip_s_code_is_found(tmp_path: Path, cache: Path) -> None:
    program = reused_network(401, OPEN)
    codes = inputs(program, 1, 402)
    result = cosim(program, codes, OPEN, tmp_path, device=BAD, plant="code", cache=cache)
    assert result.difference is not None
    assert result.difference.kind == "codes"
    assert result.compared["codes"]["different"] == 1
    # It is found again in the run of that image alone: noise is that of its number.
    assert result.waveform is not None


def test_the_prediction_is_written_before_the_simulation(tmp_path: Path) -> None:
    program = random_network(301, 2, OPEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "build_engine", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cosim(program, inputs(program, 3, 0), OPEN, tmp_path)
    predicted = json.loads((tmp_path / "predicted.json").read_text())
    assert [entry["cycles"] for entry in predicted["layers"]] == [
        cycles.predict(layer, OPEN).cycles for layer in program.layers
    ]
    outputs = sum(layer.positions * layer.out_shape[2] for layer in program.layers)
    assert predicted["expected"]["outputs"] == 3 * outputs
    requests = sum(
        len(golden.requests(layer, OPEN).ou) * layer.positions for layer in program.layers
    )
    assert predicted["expected"]["codes"] == 3 * requests * OPEN.adcs


KINDS_OF_PLANT = {
    "code": {"codes"},
    "shift": {"accumulators"},
    "index": {"requests", "accumulators"},
}
"""What each fault must show in first."""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("plant", ["code", "shift", "index"])
def test_a_planted_fault_is_found_with_its_place(
    plant: str, seed: int, tmp_path: Path, cache: Path
) -> None:
    config = OPEN if plant == "code" else EMULATED
    program = reused_network(401, config)
    codes = inputs(program, 2, 402)
    result = cosim(
        program,
        codes,
        config,
        tmp_path,
        plant=plant,
        seed=seed,
        record_difference=False,
        cache=cache,
    )
    found = result.difference
    assert found is not None
    assert result.planted is not None
    assert found.kind in KINDS_OF_PLANT[plant]
    # In the layer in which it was planted, and in no other: a layer is given what the RTL made.
    assert result.planted.startswith(f"layer {found.layer}")
    assert {difference.layer for difference in result.differences} == {found.layer}
    assert found.position is not None
    assert found.expected != found.got
    for kind, counts in result.compared.items():
        assert counts["values"] == counts["expected"], kind
    assert result.compared[found.kind]["different"] > 0
    if plant == "code":
        assert result.compared["codes"]["different"] == 1
        assert result.compared["requests"]["different"] == 0


@pytest.mark.long
@pytest.mark.parametrize("mutant", ["forget", "deaf"])
def test_a_missing_output_is_a_failure(mutant: str, tmp_path: Path, cache: Path) -> None:
    program = reused_network(501, EMULATED)
    codes = inputs(program, 1, 502)
    result = cosim(program, codes, EMULATED, tmp_path, mutant=mutant, cache=cache)
    assert result.difference is not None
    assert result.difference.kind == "outputs"
    assert result.waveform is not None
    assert result.difference.got == "nothing"
    height, width, outputs = program.layers[0].out_shape
    assert result.difference.position == (height - 1, width - 1)
    assert result.difference.where == f"output {outputs - 1}"
    counts = result.compared["outputs"]
    assert counts["values"] < counts["expected"]
    assert counts["different"] > 0
    hangs = [found for found in result.differences if found.kind == "hang"]
    assert bool(hangs) == (mutant == "deaf")
    if hangs:
        assert "outputs" in hangs[0].got


def test_a_cycle_more_is_a_failure(tmp_path: Path, cache: Path) -> None:
    program = reused_network(501, OPEN)
    codes = inputs(program, 1, 502)
    result = cosim(
        program,
        codes,
        OPEN,
        tmp_path,
        port="open",
        mutant="slow",
        record_difference=False,
        cache=cache,
    )
    assert {found.kind for found in result.differences} >= {"cycles"}
    assert all(counts["different"] == 0 for counts in result.compared.values())


@pytest.mark.long
def test_an_interrupted_run_goes_on(tmp_path: Path, cache: Path) -> None:
    program = random_network(101, 3, OPEN)
    codes = inputs(program, 3, 102)

    def run(**options: Any) -> CosimResult:
        return cosim(program, codes, OPEN, tmp_path, port="open", cache=cache, **options)

    def interrupt(stage: str, count: int, total: int) -> None:
        if stage == "simulate layer1" and count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fresh=False, progress=interrupt)
    again = run(fresh=False)
    assert 3 + 2 <= again.kept <= 9  # the simulator goes on until it is ended
    assert_equal(again, 3)
    third = run(fresh=False)
    assert (third.kept, third.simulated_cycles) == (9, 0)
    assert_equal(third, 3)
    fresh = run()
    assert fresh.kept == 0
    assert fresh.simulated_cycles > 0
    assert fresh.layers == again.layers == third.layers
    np.testing.assert_array_equal(fresh.logits, again.logits)
    np.testing.assert_array_equal(fresh.logits, third.logits)
    # A fault is not hidden by what is kept; neither is what only stalls would show.
    assert run(fresh=False, plant="code").difference is not None
    assert run(fresh=False, stall=0.2).kept == 0


def test_what_is_kept_is_compared_again(tmp_path: Path, cache: Path) -> None:
    program = random_network(101, 1, OPEN)
    codes = inputs(program, 1, 102).repeat(2, 0)

    def run(chip: int = 1) -> CosimResult:
        return cosim(
            program, codes, OPEN, tmp_path, device=BAD, chip_seed=chip, fresh=False, cache=cache
        )

    assert run().kept == 0
    assert run(2).kept == 0  # another chip is another simulation
    assert run().kept == 2
    (file,) = [
        path
        for path in (tmp_path / "kept").iterdir()
        if path.stat().st_mtime_ns == min(p.stat().st_mtime_ns for p in path.parent.iterdir())
    ]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # Two equal images are two runs, since the noise is another.
    assert len(lines) == 2
    assert lines[0]["codes"] != lines[1]["codes"]
    # As if the golden model had changed since, and as if the hardware had been slow.
    lines[0]["codes"] = lines[1]["codes"]
    lines[1]["cycles"] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = run()
    assert again.kept == 1
    assert {(each.kind, each.image) for each in again.differences} == {
        ("cycles", 1),
        ("counter cycles", 1),
    }


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    program = random_network(301, 1, OPEN)
    codes = inputs(program, 1, 0)
    with pytest.raises(ValueError, match=r"port must be one of .* not 'closed'"):
        cosim(program, codes, OPEN, tmp_path, port="closed")
    with pytest.raises(ValueError, match=r"plant must be one of .* not 'sign'"):
        cosim(program, codes, OPEN, tmp_path, plant="sign")
    with pytest.raises(ValueError, match="stall must be from 0 to below 1, not 1"):
        cosim(program, codes, OPEN, tmp_path, stall=1.0)
    with pytest.raises(ValueError, match="seed must be 0 to"):
        cosim(program, codes, OPEN, tmp_path, device=BAD, chip_seed=-1)
    with pytest.raises(ValueError, match="codes of input must be"):
        cosim(program, codes[:, :, :, 1:], OPEN, tmp_path)


def test_a_shift_needs_a_reuse_word(tmp_path: Path) -> None:
    rng = np.random.default_rng(601)
    program = side_by_side([fitting(rng, EMULATED, identity=True)])
    with pytest.raises(InputError, match="expected a layer in which to plant shift, found none"):
        cosim(program, inputs(program, 1, 0), EMULATED, tmp_path, plant="shift")
