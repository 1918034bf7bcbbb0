"""Layers mapped and matched one by one: kept small, in processes, taken up again."""

import dataclasses
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import refmodel
from refmodel import golden
from refmodel.compression import mapped, processes, store
from refmodel.compression.compile import compile_layer
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import SCHEMES, LayerMapping, map_layer
from refmodel.compression.schemes.base import CompactMapping, mapping
from refmodel.errors import InputError
from refmodel.golden import layer as layer_module
from refmodel.network import stream
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from refmodel.program import sizes
from refmodel.program.program import Program
from tests.support.nets.moment_nets import images, network

PLAIN = Preprocess(scale=1.0, layout="nchw")


def compressed(net: FloatNetwork, path: Path, **options) -> bytes:
    """Bytes of a compressed network."""
    scheme = options.pop("scheme", "prap")
    program = refmodel.compress(net, images(1), scheme=scheme, preprocess=PLAIN, **options)
    program.save(path)
    return path.read_bytes()


def arrays(program: Program) -> list[np.ndarray]:
    return [
        value
        for layer in program.layers
        for value in vars(layer).values()
        if isinstance(value, np.ndarray)
    ]


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_mapping_that_was_kept_compiles_to_the_same_program(scheme):
    for layer in quantize(network(), images(1)).layers[1:]:
        whole = map_layer(layer.weight, 1, scheme, None, gain=layer.gain)
        small = store.unpacked(store.packed(CompactMapping.of(whole)))
        assert np.array_equal(small.weight_q8, whole.weight_q8)
        assert np.array_equal(small.effective32(layer.weight), whole.effective32(layer.weight))
        assert np.array_equal(small.sums(), whole.sums())
        before, after = (compile_layer(layer, each, 8) for each in (whole, small))
        for name, value in vars(before).items():
            assert np.array_equal(value, getattr(after, name)), name


def test_mutant_mappings_with_a_lost_sign_are_found():
    layer = quantize(network(), images(1)).layers[1]
    whole = map_layer(layer.weight, 1, "dictionary", None, gain=layer.gain)
    small = store.unpacked(store.packed(CompactMapping.of(whole)))
    for group in small.groups:
        sign = group.sign
        assert sign is not None
        object.__setattr__(group, "sign", np.abs(sign))
    assert not np.array_equal(small.weight_q8, whole.weight_q8)


def test_a_damaged_mapping_is_told():
    layer = quantize(network(), images(1)).layers[1]
    content = store.packed(CompactMapping.of(map_layer(layer.weight, 1, "prap")))
    with pytest.raises(RuntimeError, match="a mapping that was kept is damaged"):
        store.unpacked(content[: len(content) // 2])


def test_runs_of_outputs_add_up_to_the_whole(monkeypatch):
    layer = quantize(network(), images(1)).layers[1]
    found = map_layer(layer.weight, 1, "dictionary", None, gain=layer.gain)
    program = compile_layer(layer, found, 8)
    codes = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 12), np.uint8)
    config = sizes.engine_config_for([program])

    def results() -> list:
        layer_module._decoded.clear()
        return [
            found.sums(),
            found.effective32(layer.weight),
            *sizes.accumulator_range(program, config),
            golden.nonzero_weights(program),
            golden.accumulators(program, codes),
        ]

    whole = results()
    monkeypatch.setattr(mapping, "RUN_WEIGHTS", 200)
    monkeypatch.setattr(sizes, "BLOCK_WORDS", 70)
    assert len(list(sizes.output_blocks(program))) > 3
    for one, other in zip(whole, results(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("scheme", ["prap", "dictionary"])
def test_workers_and_a_folder_change_nothing(scheme, tmp_path):
    net = network()
    plain = compressed(net, tmp_path / "plain", scheme=scheme)
    work = store.Work(tmp_path / "work", "key")
    several = compressed(net, tmp_path / "several", scheme=scheme, workers=3, work=work)
    assert several == plain
    assert len(list((tmp_path / "work").iterdir())) == 3
    other = store.Work(tmp_path / "work", "other")
    other.write("0.layer", b"")
    (tmp_path / "work" / "mine.json").touch()
    work.remove()
    assert len(list((tmp_path / "work").iterdir())) == 2
    work.remove(others=True)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mine.json"]


def test_what_was_mapped_is_taken_up_by_the_same_run_alone(tmp_path, monkeypatch):
    net, calls = network(), []
    real = mapped.map_layer

    def counted(*arguments, **options) -> LayerMapping:
        calls.append(arguments[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(mapped, "map_layer", counted)
    work = store.Work(tmp_path / "work", "one")
    with pytest.raises(KeyboardInterrupt):
        compressed(net, tmp_path / "first", work=work)
    assert len(list((tmp_path / "work").iterdir())) == 2
    again = compressed(net, tmp_path / "again", work=work)
    assert len(calls) == 4  # one layer was left
    other = compressed(net, tmp_path / "other", work=store.Work(tmp_path / "work", "two"))
    assert len(calls) == 7
    assert again == other
    # A mutant that takes what another run has left is found.
    wrong = store.Work(tmp_path / "work", "one")
    layer = quantize(net, images(1)).layers[1]
    store.Mappings(["", "", ""], wrong).put(1, map_layer(layer.weight, 1, "dense"))
    assert compressed(net, tmp_path / "wrong", work=wrong) != again


def wide_network(layers: int, width: int = 64) -> FloatNetwork:
    """Layers of 37 thousand weights, and few activations."""
    rng = np.random.default_rng(3)
    nodes, before = [], "x"
    for index in range(layers):
        weight = rng.standard_normal((width, width, 3, 3)).astype(np.float32) / np.float32(40)
        nodes.append(
            Matrix(
                name=f"conv{index}",
                inputs=(before,),
                output=f"y{index}",
                shape=(width, 4, 4),
                weight=weight,
                gain=np.ones(width),
                bias=np.zeros(width),
                pads=(1, 1, 1, 1),
            )
        )
        before = f"y{index}"
    return FloatNetwork(nodes=tuple(nodes), input="x", output=before, input_shape=(width, 4, 4))


def peak(net: FloatNetwork) -> float:
    """Most memory while a network is compressed, over that of a layer's weights."""
    x = np.random.default_rng(4).standard_normal((2, *net.input_shape)).astype(np.float32)
    tracemalloc.start()
    try:
        refmodel.compress(net, x, scheme="prap", preprocess=PLAIN)
        return tracemalloc.get_traced_memory()[1] / net.nodes[0].weight.nbytes  # type: ignore
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_memory_is_that_of_a_layer_and_not_of_a_network(monkeypatch):
    peak(wide_network(3, 16))  # what is made once
    few, many = peak(wide_network(3)), peak(wide_network(6))
    assert few < 13
    assert many < few + 8  # three more layers: what their programs take
    # A mutant that keeps the mappings of all layers as they are is found.
    monkeypatch.setattr(CompactMapping, "of", lambda mapping: mapping)
    assert peak(wide_network(6)) > many + 4


def test_activations_go_to_a_file_and_come_back(tmp_path, monkeypatch):
    net = network()
    in_memory = compressed(net, tmp_path / "memory")
    monkeypatch.setattr(stream, "SPOOL_BYTES", 0)
    made = []
    real = stream.tempfile.TemporaryFile
    monkeypatch.setattr(
        stream.tempfile, "TemporaryFile", lambda **kind: made.append(kind) or real(**kind)
    )
    assert compressed(net, tmp_path / "file") == in_memory
    assert made


def test_space_in_the_file_is_used_again():
    spool = stream.Spool(limit=0)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(3):
        values = [rng.standard_normal((4, 5)).astype(np.float32) for _ in range(6)]
        kept = [spool.put(each) for each in values]
        for one, other in zip(values, kept, strict=True):
            assert np.array_equal(one, other.get())
        stream.drop(kept)
    assert spool._end == 6 * values[0].nbytes
    spool.close()


def test_walking_layer_by_layer_is_tracing():
    net, x, found = network(), images(2), {}

    def after(name: str, values: np.ndarray) -> None:
        found.setdefault(name, []).append(values)

    stream.walk(net, x, after=after, workers=2)
    for name, values in net.trace(x).items():
        assert np.array_equal(np.concatenate(found[name]), values)


# Processes


def test_tasks_give_their_results_in_order():
    assert processes.each(lambda n: n * n, range(7), 3) == [n * n for n in range(7)]


def test_what_a_task_raises_is_raised_here():
    def task(number: int) -> int:
        raise InputError(f"expected nothing, found {number}")

    with pytest.raises(InputError, match="expected nothing, found 0"):
        processes.each(task, range(2), 2)


@pytest.mark.skipif(not processes.can_fork(), reason="processes are not forked here")
def test_a_process_that_is_killed_is_told():
    with pytest.raises(RuntimeError, match="a process of prap ended before its task, with code -9"):
        processes.each(lambda _: os.kill(os.getpid(), 9), range(2), 2)


@pytest.mark.skipif(not processes.can_fork(), reason="processes are not forked here")
def test_a_large_task_runs_alone_with_all_workers():
    seen = []
    with processes.Tasks(3) as tasks:
        for size in (1, processes.MOST_SIZE + 1, 1):
            tasks.add(processes.inner, seen.append, size=size)
    assert sorted(seen) == [1, 1, 3]


def test_ranges_of_a_network_that_is_not_finite_are_refused():
    net = network()
    huge = dataclasses.replace(net.nodes[2], gain=np.full(12, 1e38))  # type: ignore[call-arg]
    net = dataclasses.replace(net, nodes=(*net.nodes[:2], huge, *net.nodes[3:]))
    with pytest.raises(InputError, match="found NaN or infinity, in tensor"):
        refmodel.compress(net, 1e4 * images(1), scheme="prap", preprocess=PLAIN)
