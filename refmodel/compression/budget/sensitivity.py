"""How far a network's answers move when one of its layers is mapped, for every layer.

Moments of the mapped layer are matched on all images first
(:mod:`refmodel.compression.moments`). Then images go through the network once, some at a time, and
behind each layer that is asked for only what depends on it is computed again with its mapped
weights. The divergence of the answers is a mean over images, so its standard error is known: a
layer is settled, and left out for the images to come, as soon as that is small enough.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.moments import Sums, mapped_node, matched
from refmodel.compression.processes import Tasks
from refmodel.compression.quantize import MatrixLayer
from refmodel.compression.schemes import LayerMapping
from refmodel.compression.store import Work
from refmodel.network.graph import FloatNetwork, Floats, Matrix, Node
from refmodel.network.stream import Tensor, walk

ROUND_IMAGES = 128
"""Images after which it is looked which layers are settled, about."""

TASK_IMAGES = 32
"""Images of a task, at most."""

ERROR = 0.1
"""Standard error of a divergence, as a share of it, with which a layer is settled.

A choice: docs/large-networks.md (Measured) has what a budget comes to with it on ResNet-20.
"""


def log_shares(logits: Floats) -> NDArray[np.float64]:
    """Logarithms of the softmax over (N, F)."""
    values = logits.reshape(len(logits), -1).astype(np.float64)
    values = values - values.max(1, keepdims=True)
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def divergences(reference: NDArray[np.float64], logits: Floats) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of each answer (N,) from a reference of :func:`log_shares`."""
    found = log_shares(logits)
    return (np.exp(reference) * (reference - found)).sum(1)


def divergence(reference: NDArray[np.float64], logits: Floats) -> float:
    """Mean Kullback-Leibler divergence of answers from a reference of :func:`log_shares`."""
    return float(divergences(reference, logits).mean())


def measure(
    network: FloatNetwork,
    images: Floats,
    layers: Sequence[MatrixLayer],
    mappings: Mapping[str, LayerMapping],
    *,
    workers: int = 1,
    work: Work | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Measure the mean divergence of the answers with each layer mapped alone.

    Parameters
    ----------
    network, images
        The network, and its inputs.
    layers
        Its matrix layers.
    mappings
        Mapping of each layer that is asked for, by its name.
    workers
        Processes that take images through the network.
    work
        Where sums over images are kept, and taken from if they are there; None: nowhere.
    progress
        Called with the images done and their number.

    Returns
    -------
    dict
        Layer name to divergence, the same for any number of workers.
    """
    probes = _matched_probes(network, images, layers, mappings, workers)
    behind = {name: _dependents(network, probe) for name, probe in probes.items()}
    chunks = [
        chunk[start : start + TASK_IMAGES]
        for chunk in network.chunks(images)
        for start in range(0, len(chunk), TASK_IMAGES)
    ]
    sums = {name: np.zeros(3) for name in probes}
    """Images, sum of divergences, sum of their squares, of each layer."""
    active, done, number = sorted(probes), 0, 0
    while number < len(chunks) and active:
        own, count = [], 0
        while number < len(chunks) and count < ROUND_IMAGES:
            own.append(number)
            count += len(chunks[number])
            number += 1
        found: dict[int, list[list[float]]] = {}

        def take(chunk: int, moved: list[list[float]], found: dict = found) -> None:
            nonlocal done
            found[chunk] = moved
            done += len(chunks[chunk])
            if progress is not None:
                progress(min(done, len(images) - 1), len(images))

        with Tasks(workers) as tasks:
            for chunk in own:
                name = f"moved{chunk}.json"
                kept = None if work is None else work.read(name)
                if kept is not None:
                    take(chunk, json.loads(kept))
                    continue

                def task(chunk: int = chunk, name: str = name, active: list = active) -> list:
                    moved = _moved(network, chunks[chunk], probes, behind, active)
                    if work is not None:
                        work.write(name, json.dumps(moved).encode())
                    return moved

                tasks.add(task, lambda moved, chunk=chunk: take(chunk, moved))
        for chunk in own:
            for name, moved in zip(active, found[chunk], strict=True):
                sums[name] += moved
        active = [name for name in active if not _settled(sums[name])]
    if progress is not None:
        progress(len(images), len(images))
    return {name: float(total[1] / total[0]) for name, total in sums.items()}


def _settled(sums: NDArray[np.float64]) -> bool:
    """Whether the standard error of a mean is small enough."""
    count, total, squares = sums.tolist()
    if count < 2:
        return False
    mean = total / count
    variance = max(0.0, squares / count - mean * mean) * count / (count - 1)
    return sqrt(variance / count) <= ERROR * abs(mean)


def _matched_probes(
    network: FloatNetwork,
    images: Floats,
    layers: Sequence[MatrixLayer],
    mappings: Mapping[str, LayerMapping],
    workers: int,
) -> dict[str, Matrix]:
    """Give each layer its mapped weights, with the moments of its outputs matched."""
    layer_of = {layer.name: layer for layer in layers}
    probes: dict[str, Matrix] = {}
    found: dict[str, Sums] = {}
    wanted: dict[str, tuple[str, Sums]] = {}

    def before(node: Node, inputs: list[Tensor]) -> None:
        if isinstance(node, Matrix) and node.name in mappings:
            probe = mapped_node(node, layer_of[node.name], mappings[node.name])
            probes[node.name] = probe
            found[node.name] = Sums()
            for kept in inputs[0]:
                found[node.name].add(probe.apply(kept.get()))
            wanted[node.output] = node.name, Sums()

    def after(name: str, values: Floats) -> None:
        if name in wanted:
            wanted[name][1].add(values)

    walk(network, images, before=before, after=after, workers=workers)
    for name, sums in wanted.values():
        probe = probes[name]
        gain, bias = matched(probe.gain, probe.bias, found[name].moments(), sums.moments())
        probes[name] = replace(probe, gain=gain, bias=bias)
    return probes


def _dependents(network: FloatNetwork, probe: Matrix) -> list[Node]:
    """Nodes that depend on a layer's output, in order."""
    changed = {probe.output}
    result = []
    for node in network.nodes:
        if node.output != probe.output and not changed.isdisjoint(node.inputs):
            changed.add(node.output)
            result.append(node)
    return result


def _moved(
    network: FloatNetwork,
    chunk: Floats,
    probes: Mapping[str, Matrix],
    behind: Mapping[str, list[Node]],
    names: Sequence[str],
) -> list[list[float]]:
    """Images, sum of divergences and sum of squares for each of some layers, on some images."""
    tensors = network.trace(chunk)
    reference = log_shares(tensors[network.output])
    result = []
    for name in names:
        probe = probes[name]
        changed = {probe.output: probe.apply(tensors[probe.inputs[0]])}
        for node in behind[name]:
            inputs = [changed.get(each, tensors[each]) for each in node.inputs]
            changed[node.output] = node.apply(*inputs)
        each = divergences(reference, changed.get(network.output, tensors[network.output]))
        result.append([float(len(each)), float(each.sum()), float(np.square(each).sum())])
    return result
