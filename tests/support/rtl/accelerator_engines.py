"""The accelerator with several engines, against the golden model and the prediction."""

from typing import Any

from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.prediction import predict_network
from tests.support.nets.accelerator_nets import codes, program
from tests.support.rtl.accelerator_host import Host, Net, expected

# Engines, network, options of its compilation, sizes of an engine.
CASES: dict[str, tuple[int, str, dict[str, Any], dict[str, Any]]] = {
    "waist, 2 engines": (2, "waist", {"scheme": "dense"}, {}),
    "waist, 4 engines": (4, "waist", {"scheme": "dense"}, {}),
    "waist, 5 engines, 4 lanes": (5, "waist", {}, {"merge_lanes": 4}),
    "chain, 3 engines": (3, "chain", {"scheme": "dense"}, {"ou_cols": 16, "adcs": 16}),
    "residual, fused, 2 engines": (2, "residual", {"residual": "fused"}, {}),
    "residual, fused, 4 engines": (4, "residual", {"residual": "fused"}, {}),
    "residual, separate, 2 engines": (2, "residual", {"scheme": "dense"}, {}),
    "residual, dictionary, 4 engines, 2 lanes": (
        4,
        "residual",
        {"residual": "fused", "scheme": "dictionary"},
        {"merge_lanes": 2, "crossbar_latency": 7},
    ),
    "residual, dictionary, 3 engines, 4 positions": (
        3,
        "residual",
        {"residual": "fused", "scheme": "dictionary"},
        {"position_lanes": 4},
    ),
    "pools, 2 engines": (2, "pools", {}, {"cell_bits": 2, "dac_bits": 2}),
    "branches, 4 engines": (4, "branches", {"scheme": "orc"}, {}),
}


SHORT = ("waist, 4 engines",)


def differences(net: Net, count: int = 2) -> set[str]:
    """Run images one after the other; what differs: ``codes``, ``cycles``, ``counters``."""
    images = codes(net.program, count)
    wanted = predict_network(net.image, net.program.layers, net.config)
    found = set()
    for result, values in zip(Host(net).run_images(images), expected(net, images), strict=True):
        counters = {"cycles": wanted.cycles, "stall_port": 0, **wanted.events}
        found |= {"codes"} if result.outputs != values else set()
        found |= {"cycles"} if result.cycles != wanted.cycles else set()
        found |= {"counters"} if result.counters != counters else set()
    return found


def net_of(name: str, folder) -> Net:
    engines, kind, options, sizes = CASES[name]
    return Net.of(program(kind, folder, **options), engines, **sizes)


def check_codes_counters_and_cycles_are_as_predicted(name, tmp_path):
    assert differences(net_of(name, tmp_path)) == set()


def busy(image: NetworkImage) -> list[int]:
    """Engines that take part, layer by layer."""
    return [
        sum(part is not None for part in operation.parts)
        for operation in image.operations
        if operation.layer is not None
    ]


def check_outputs_that_nobody_takes_for_long_are_all_there(tmp_path):
    """Positions of one output: as many as the buffer of sums holds wait there."""
    net = net_of("waist, 2 engines", tmp_path)
    images = codes(net.program, 1)
    wanted = predict_network(net.image, net.program.layers, net.config)
    (result,) = Host(net, held=wanted.cycles + 50).run_images(images)
    assert [result.outputs] == expected(net, images)
