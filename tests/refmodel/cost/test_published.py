"""The published cost model: every number that the published simulator prints, and the headline.

``../shared/published/results_256.json`` holds what that simulator printed for 4 networks in 8 modes
at crossbars of 256 by 256. The settings in it (groups, elements, clock) are the defaults here.
"""

import json
import math

import pytest

from refmodel.cost.published import (
    MODES,
    PAPER_ENERGY,
    PAPER_SPEED,
    Settings,
    headline,
    networks,
    simulate,
)
from refmodel.errors import InputError

UNITS = ("latency_ns", "energy_nj")

PARTS = {
    "E_ADC": "adc",
    "E_DAC": "dac",
    "E_xbar": "crossbar",
    "E_iReg": "input register",
    "E_shiftreg": "shift",
    "E_input_demux": "demultiplexer",
    "E_output_mux": "multiplexer",
    "E_jointmodule": "join",
    "E_buf": "buffer",
    "E_pooling": "pooling",
}

LATENCY_NS = {
    "naive": (260629681.60849229, 380447551.81698996, 909287844.8971357, 562852190.0880197),
    "structure": (173318294.96275616, 256431375.01145682, 658691981.8867913, 374992257.4202248),
    "shape": (120467566.04742992, 174347373.35424262, 518442928.7257287, 229545836.66060463),
    "ORC": (60819066.364374995, 70027570.34366213, 222098180.80937228, 97900600.61781165),
    "value_identical": (
        100878152.30096722,
        120682585.08400562,
        344280141.57695657,
        183464410.97562295,
    ),
    "value_similar": (69018312.76544678, 91298913.15367861, 244984172.5113404, 138918783.99505243),
    "structure+identical": (
        67723210.405425,
        81814162.05959001,
        247903091.08740777,
        122698647.36178008,
    ),
    "shape+similar": (34684330.43511972, 44034432.22390704, 136902192.10518107, 60797580.934500724),
}
"""Nanoseconds of VGG16, ResNet-18, ResNet-50 and WRN, as the published simulator printed them."""

ENERGY_NJ = {
    "naive": (16094717.05883015, 26946688.232259773, 65919035.506316185, 141621282.8899413),
    "structure": (10567817.43130708, 18779367.382434256, 49701055.011601955, 94724695.56945272),
    "shape": (7821439.730215091, 12088754.914742034, 45422904.459942624, 58572937.9844722),
    "ORC": (3682104.667699888, 5532633.030255598, 20712199.810186543, 24744039.35115656),
    "value_identical": (
        5197855.741264546,
        8159594.510562022,
        25652926.523718845,
        49986141.778536566,
    ),
    "value_similar": (3894038.0370221464, 8217592.704549573, 19723602.214682326, 38563528.27729812),
    "structure+identical": (
        3556676.5933925565,
        5733764.152783319,
        19385386.798601214,
        33423002.566886496,
    ),
    "shape+similar": (
        2184331.295318945,
        3997160.2140923413,
        13892473.330867155,
        16908133.520023093,
    ),
}
"""Nanojoules of the same."""


@pytest.mark.parametrize("network", ["Vgg16", "Res18", "Res50", "WRN"])
@pytest.mark.parametrize("mode", list(MODES))
def test_every_part_and_layer_is_the_published_simulators(network, mode, shared):
    given = json.loads((shared / "published" / "results_256.json").read_text())
    given = given["results"][network][mode]
    found = simulate(network, mode)
    assert found.latency_ns == pytest.approx(given["latency_ns"], rel=1e-9, abs=0)
    assert found.energy_nj == pytest.approx(given["energy_nJ"], rel=1e-9, abs=0)
    assert found.adder_nj == pytest.approx(given["adder_energy_not_counted_nJ"], rel=1e-9, abs=0)
    for name, part in PARTS.items():
        assert found.parts[part] == pytest.approx(given[name], rel=1e-9, abs=0), name
    assert found.tiles == given["tiles"]
    sizes = tuple(given[name] for name in ("inbuf_kb", "outbuf_kb", "outbuf_tile_kb"))
    assert found.buffers_kb == sizes
    assert len(found.layers) == len(given["layers"])
    for layer, expected in zip(found.layers, given["layers"], strict=True):
        assert layer.kind == expected["type"]
        assert layer.latency_ns == pytest.approx(expected["latency"], rel=1e-9, abs=0), layer.name
        assert layer.energy_nj == pytest.approx(expected["energy"], rel=1e-9, abs=0), layer.name


@pytest.mark.parametrize("mode", list(MODES))
def test_latency_and_energy_are_those_of_the_published_simulator(mode):
    found = [simulate(network, mode) for network in networks()]
    latency, energy = (tuple(getattr(each, name) for each in found) for name in UNITS)
    assert latency == pytest.approx(LATENCY_NS[mode], rel=1e-9, abs=0)
    assert energy == pytest.approx(ENERGY_NJ[mode], rel=1e-9, abs=0)


def test_the_headline_is_the_papers():
    found = headline()
    assert found.speed == pytest.approx(1.644094, abs=1e-6)
    assert found.energy == pytest.approx(1.506041, abs=1e-6)
    assert found.energy_with_adders == pytest.approx(1.5056, abs=5e-5)
    assert [round(row["speed"], 4) for row in found.rows] == [1.7535, 1.5903, 1.6223, 1.6103]
    assert [round(row["energy"], 4) for row in found.rows] == [1.6857, 1.3841, 1.4909, 1.4634]
    assert math.isclose(found.speed, PAPER_SPEED, abs_tol=0.005)
    assert math.isclose(found.energy, PAPER_ENERGY, abs_tol=0.005)


def test_other_sizes_of_crossbars_give_other_headlines():
    found = {size: headline(Settings(crossbar_size=size)) for size in (64, 128, 256, 512)}
    assert len({each.speed for each in found.values()}) == 4
    # A crossbar of 128 rows is read by one DAC to a row: 2 levels of demultiplexers as at 256;
    # 4 levels of multiplexers (128 = 8 * 8 * 2) as at 256 (8 * 8 * 4); 512 has one more.
    small, large = (
        simulate("Vgg16", "naive", Settings(crossbar_size=size)).layers[1].parts
        for size in (128, 512)
    )
    assert small["multiplexer"] / small["adc"] == pytest.approx(
        4 * 0.032744 * 1944 * 12e-9 / (8 / 1.2 * 0.6425e-3)
    )
    assert large["multiplexer"] / large["adc"] == pytest.approx(
        5 * 0.032744 * 1944 * 12e-9 / (8 / 1.2 * 0.6425e-3)
    )


def test_parts_add_up_to_the_energy_and_layers_to_the_network():
    found = simulate("Res18", "shape+similar")
    assert sum(found.parts.values()) == pytest.approx(found.energy_nj)
    assert sum(layer.latency_ns for layer in found.layers) == pytest.approx(found.latency_ns)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crossbar_size": 100}, "crossbar_size must be a multiple of 8, not 100"),
        ({"crossbar_size": 16}, "crossbar_size must be 32 to 1024, not 16"),
        ({"frequency_mhz": 0.0}, "frequency_mhz must be above 0, not 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)


def test_unknown_names_and_networks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"expected one of Vgg16, .* found network 'Alex'"):
        simulate("Alex", "naive")
    with pytest.raises(InputError, match=r"expected one of naive, .* found mode 'prap'"):
        simulate("WRN", "prap")
    with pytest.raises(InputError, match="expected Res50 in at most 4096 tiles, found"):
        simulate("Res50", "naive", Settings(crossbar_size=32, groups=1))
