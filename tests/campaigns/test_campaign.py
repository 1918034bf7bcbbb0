"""The random campaign: a few engines of fixed seeds, and that it tells of what differs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from refmodel import golden
from refmodel.compression.schemes import SCHEMES
from refmodel.config import EngineConfig
from refmodel.predict.cycles import predict
from sim.comparison import expected_values
from tests.campaign import protocol
from tests.campaign.__main__ import EVENTS, STALL, STALLS, campaign, differences, run
from tests.campaign.draw import Drawn, draw, draw_device
from tests.support.rtl.hardware import Run

# Of seed 4: OUs of 9 x 12 with 4-bit cells and 7 converters; of 8 x 32 with cells and digits of 2
# bits and 6 converters; of 8 x 28 with 12 converters, so that patterns go on in the next OU.
ENGINES = [4, 10, 11]


@pytest.mark.parametrize(
    "number", [*ENGINES[:-1], pytest.param(ENGINES[-1], marks=pytest.mark.long)]
)
def test_nothing_differs(number):
    _, sizes, found, counts = run(number, seed=4, layers=3, tiers=["unit"])
    assert found == [], sizes
    assert counts["images"] == 6
    assert counts["values"] > 20


@pytest.mark.cosim
@pytest.mark.long
def test_nothing_differs_with_a_chip_at_the_port_and_a_wrong_count_does(tmp_path, root):
    number, layers = 11, 3
    config, drawn = draw(4, number, layers)
    device = draw_device(4, number)
    assert device.read_noise == 0.4
    check = partial(
        protocol.check, drawn, config, device, seed=1, stall=STALL, cache=root / "build" / "cache"
    )
    found, counts = check(tmp_path / "run")
    assert found == []
    assert not (tmp_path / "run").exists()
    assert counts["images"] == 2 * layers
    assert counts["error"] == 0
    expected = [expected_values(item.layer, config) for item in drawn]
    assert counts["values"] == 2 * sum(sum(each.values()) for each in expected)
    found, _ = check(tmp_path / "run", mutant="ordinal")
    assert any(text.startswith(f"{drawn[0].what}: chip without stalls: codes") for text in found)
    assert any("chip with stalls" in text for text in found)
    assert (tmp_path / "run").exists()


def test_every_layer_of_a_chip_s_network_has_its_input():
    _, drawn = draw(4, 10, 6)
    program, codes = protocol.network(drawn)
    tensors = golden.run_program(program, codes)
    for number, item in enumerate(drawn):
        assert tensors[f"in{number}"].shape == (1, *item.layer.in_shape)
        want = golden.run_layer(item.layer, tensors[f"in{number}"])
        assert (tensors[f"out{number}"] == want).all()


def test_devices_are_drawn_by_seed_and_are_not_alike():
    devices = [draw_device(1, number) for number in range(60)]
    assert devices == [draw_device(1, number) for number in range(60)]
    assert devices != [draw_device(2, number) for number in range(60)]
    for name in ("variation_on", "stuck_off", "stuck_on", "read_noise", "adc_offset", "drift_nu"):
        values = [getattr(device, name) for device in devices]
        assert 0 in values
        assert len(set(values)) == 3


def test_the_engines_of_the_suite_are_not_alike():
    configs = [draw(4, number, 3)[0] for number in ENGINES]
    sizes = [
        (config.ou_rows, config.ou_cols, config.cell_bits, config.dac_bits, config.adcs)
        for config in configs
    ]
    assert sizes == [(9, 12, 4, 1, 7), (8, 32, 2, 2, 6), (8, 28, 1, 1, 12)]


def test_the_same_seed_gives_the_same_and_another_another():
    config, drawn = draw(3, 2, 5)
    again, same = draw(3, 2, 5)
    assert config == again
    assert [item.what for item in drawn] == [item.what for item in same]
    for one, other in zip(drawn, same, strict=True):
        assert np.array_equal(one.layer.weights, other.layer.weights)
        assert np.array_equal(one.images, other.images)
    assert draw(3, 3, 5)[0] != config
    assert draw(4, 2, 5)[0] != config


def test_every_scheme_is_drawn_and_layers_fit():
    config, drawn = draw(5, 0, 1 + len(SCHEMES))
    assert {item.what.split()[0] for item in drawn} == {"any", *SCHEMES}
    terms = {
        item.layer.terms
        for number in range(8)
        for item in draw(5, number, 1 + len(SCHEMES))[1]
        if item.what.startswith("dictionary")
    }
    assert len(terms) > 2
    for item in drawn:
        assert item.layer.ou_rows == config.ou_rows
        assert item.images.shape == (2, *item.layer.in_shape)


def perfect(item: Drawn, config: EngineConfig, image: int) -> Run:
    """What an engine should do with an image, from the model and the prediction."""
    trace = golden.run_layer_serial(item.layer, item.images, config)
    want = predict(item.layer, config)
    return Run(
        outputs=trace.outputs[image].ravel().tolist(),
        psums=trace.psums[image].ravel()[golden.psum_order(item.layer, config)].tolist(),
        accumulators=trace.accumulators[image].ravel().tolist(),
        cycles=want.cycles,
        counters={name: getattr(want, name) for name in (*EVENTS, *STALLS)},
    )


def test_whatever_differs_is_told():
    config, (item, *_) = draw(6, 0, 2)
    quiet, stalled = perfect(item, config, 0), perfect(item, config, 1)
    stalled.cycles += 5
    assert differences(item, config, quiet, stalled) == []
    for name in ("psums", "accumulators", "outputs"):
        for image, good in enumerate((quiet, stalled)):
            changed = replace(
                good, **{name: [getattr(good, name)[0] + 1, *getattr(good, name)[1:]]}
            )
            runs = (changed, stalled) if image == 0 else (quiet, changed)
            assert differences(item, config, *runs) == [f"{name} of image {image}"]
    for by in (-1, 1):
        changed = replace(quiet, cycles=quiet.cycles + by)
        assert "predicted" in differences(item, config, changed, stalled)[0]
    early = replace(stalled, cycles=quiet.cycles - 1)
    assert "with stalls" in differences(item, config, quiet, early)[0]
    for name in (*EVENTS, *STALLS):
        counters = quiet.counters | {name: quiet.counters[name] + 1}
        found = differences(item, config, replace(quiet, counters=counters), stalled)
        assert len(found) == 1
        assert name in found[0]


def test_the_long_run_counts_and_says_what_is_wrong(capsys, monkeypatch, tmp_path):
    long_run = partial(campaign, 3, 1, seed=8, workers=1, only=2, tiers=["unit"], folder=tmp_path)
    # The processes are forks of this one, so the mistake is in them too.
    with monkeypatch.context() as patch:
        patch.setattr("tests.campaign.__main__.EVENTS", ("cycles",))
        assert long_run() == 1
    assert "cycles of image 1" in capsys.readouterr().out
    # What was wrong is not kept.
    assert long_run() == 0
    text = capsys.readouterr().out
    assert text.startswith("campaign: seed 8, 3 engines by 1 layers\ncampaign: engine 2: ")
    assert "1 engines, 1 layers, 2 images" in text
    assert " 0 differences, 0 cycles of prediction error without stalls" in text
    assert "kept" not in text
    # What was right is, unless all is to run again.
    lines = [line for line in text.splitlines() if "engine 2" in line]
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text() + '[3, "half a li')
    assert long_run() == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if "engine 2" in line] == lines
    assert "1 engines, 1 layers, 2 images" in text
    assert "; 1 engines kept from earlier runs\n" in text
    assert "| run | unit: 1, unit with stalls: 1 | chip, chip with stalls |" in text
    assert long_run(fresh=True) == 0
    assert "kept" not in capsys.readouterr().out


def test_the_long_run_tells_of_cycles_that_were_not_predicted(capsys, monkeypatch, tmp_path):
    import tests.campaign.__main__ as program

    true = program.predict

    def late(layer, config):
        return replace(true(layer, config), cycles=true(layer, config).cycles + 3)

    monkeypatch.setattr(program, "predict", late)
    assert campaign(1, 2, 8, 1, tiers=["unit"], folder=tmp_path) == 1
    assert "6 cycles of prediction error without stalls" in capsys.readouterr().out
