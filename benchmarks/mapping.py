"""Time and memory of mapping a published network under each scheme, with random weights.

    python benchmarks/mapping.py ../shared/published/networks.json            # VGG16
    python benchmarks/mapping.py ../shared/published/networks.json --model Res50 --scheme prap

Every scheme runs in a process of its own on one core, so that its peak memory is its own. Beside
the times stands the machine's rate of float32 matrix products in the same run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

MODES = {
    "dense": "",
    "structured": "structure",
    "orc": "ORC",
    "shape": "shape",
    "identical": "value_identical",
    "structured+identical": "structure+identical",
    "similar": "value_similar",
    "prap": "shape_and_value_similar",
}
"""Names that the published lists have for the schemes."""


def settings(network: dict[str, Any], scheme: str) -> list[Any]:
    """Layer settings of a published network."""
    from refmodel.compression.schemes import LayerSetting

    if scheme == "dense":
        return [LayerSetting() for _ in network["weight_name"]]
    lists = network["modes"][MODES[scheme]]
    structure = network["modes"]["structure"]["best_keep_ratio"]
    result = []
    for index, kernel in enumerate(network["kernel_size"]):
        channels = lists["channel_number"][index]
        positions = lists["pattern_value_number"][index]
        keep = lists["best_keep_ratio"][index]
        if scheme == "shape":  # its lists have no ratio: the share that C_g and V come to
            keep = min(1.0, positions / kernel**2 if kernel > 1 else 8 / channels)
        result.append(
            LayerSetting(
                scheme=scheme,
                channels=channels,
                positions=positions,
                keep=keep,
                structure_keep=structure[index] if scheme == "structured+identical" else 1.0,
            )
        )
    return result


def measure(network: dict[str, Any], scheme: str) -> tuple[float, float, float]:
    """Seconds of all layers, of the slowest one, and peak memory in MB."""
    import numpy as np

    from refmodel.compression.schemes import map_layer

    rng = np.random.default_rng(0)
    seconds = []
    for index, setting in enumerate(settings(network, scheme)):
        kernel = network["kernel_size"][index]
        shape = (network["out_channel"][index], network["in_channel"][index], kernel, kernel)
        weight = rng.standard_normal(shape, dtype=np.float32)
        start = time.process_time()
        map_layer(weight, 1, scheme, setting)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return sum(seconds), max(seconds), peak


def matrix_rate() -> float:
    """10^9 multiply-adds a second of float32 matrix products."""
    import numpy as np

    size, times = 1024, 5
    a = np.ones((size, size), np.float32)
    product = a @ a
    start = time.process_time()
    for _ in range(times):
        np.matmul(a, a, out=product)
    return times * size**3 / (time.process_time() - start) / 1e9


def main() -> None:
    """Print one line for each scheme."""
    parser = argparse.ArgumentParser(description="Time the mapping of a published network.")
    parser.add_argument("networks", type=Path, help="the published networks.json")
    parser.add_argument("--model", default="Vgg16")
    parser.add_argument("--scheme", choices=MODES, help="this one only, in this process")
    arguments = parser.parse_args()
    if arguments.scheme is None:
        print(f"{arguments.model}, random weights; CPU seconds, one core")
        for scheme in MODES:
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--scheme", scheme],
                env=os.environ | ONE_CORE,
                check=True,
            )
        return
    network = json.loads(arguments.networks.read_text())["models"][arguments.model]["main"]
    total, slowest, peak = measure(network, arguments.scheme)
    print(
        f"{arguments.scheme:22}{total:7.2f} s   slowest layer {slowest:6.2f} s   "
        f"{peak:5.0f} MB   matrix products {matrix_rate():5.1f} G/s"
    )


if __name__ == "__main__":
    main()
