"""Map the layers of a network one by one, in processes, as soon as their statistics are there."""

from collections.abc import Callable, Mapping

import numpy as np

from refmodel.compression.moments import each_statistics, learning_channels
from refmodel.compression.processes import Tasks
from refmodel.compression.quantize import QuantNetwork
from refmodel.compression.schemes import (
    InputStatistics,
    LayerMapping,
    LayerSetting,
    map_layer,
    network_settings,
)
from refmodel.compression.schemes.base import CompactMapping
from refmodel.compression.store import Mappings, Work
from refmodel.network.graph import FloatNetwork, Floats


def map_streamed(
    network: FloatNetwork,
    inputs: Floats | None,
    quant: QuantNetwork,
    *,
    scheme: str,
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    carried: Mapping[str, LayerMapping] | None = None,
    workers: int = 1,
    work: Work | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mappings:
    """Map all layers of a network, and hold little more than one at a time.

    Parameters
    ----------
    network, quant
        The network in floating point, and quantised for any images.
    inputs
        Calibration images as network inputs, for schemes that learn from them; None: they do not.
    scheme, settings, ou_rows
        As :func:`refmodel.compression.compile.compile_network` takes them.
    carried
        Mappings of layers that are not mapped any more.
    workers
        Processes.
    work
        Where mappings are kept, and taken from if they are there; None: in memory.
    progress
        Called with the layers done and their number.
    """
    layers = quant.layers
    chosen = network_settings(layers, scheme, settings, ou_rows)
    result = Mappings([layer.name for layer in layers], work)
    number = {layer.name: index for index, layer in enumerate(layers)}
    for name, mapping in (carried or {}).items():
        result.hold(number[name], mapping)
    open_ = [layer.name for index, layer in enumerate(layers) if not result.kept(index)]
    learnt = {}
    if inputs is not None:
        channels = learning_channels(quant, scheme, settings)
        learnt = {name: count for name, count in channels.items() if name in open_}
    done = len(layers) - len(open_)

    def tell() -> None:
        if progress is not None:
            progress(done, len(layers))

    def finished(index: int, mapping: CompactMapping | None) -> None:
        nonlocal done
        if mapping is not None:
            result.put(index, mapping)
        done += 1
        tell()

    tell()
    with Tasks(workers) as tasks:

        def submit(name: str, known: InputStatistics | None = None) -> None:
            index = number[name]
            layer = layers[index]

            def task() -> CompactMapping | None:
                found = CompactMapping.of(
                    map_layer(
                        layer.weight, layer.groups, scheme, chosen[name], ou_rows, layer.gain, known
                    )
                )
                if work is None:
                    return found
                result.put(index, found)  # from here, so that it need not be sent
                return None

            tasks.add(task, lambda found: finished(index, found), size=layer.weight.size)

        # The largest first, so that processes end together.
        for name in sorted(open_, key=lambda name: -layers[number[name]].weight.size):
            if name not in learnt:
                submit(name)
        if learnt and inputs is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # refused when ranges are taken
                each_statistics(network, inputs, learnt, submit, workers=workers)
    return result
