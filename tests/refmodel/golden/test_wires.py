"""Resistance of wires: what reaches each column of an operation unit, against a dense circuit."""

import numpy as np
import pytest

from refmodel.golden.devices.device import Device
from refmodel.golden.devices.effects import wires
from tests.support.layers.chips import chip


def dense_circuit(
    conductance: np.ndarray, wordline: float, bitline: float, before: int, after: int
) -> np.ndarray:
    """Currents of all bitlines for a volt on each wordline: Kirchhoff's law at every node.

    Nodes of wordlines first, then those of bitlines; one dense matrix of all.
    """
    rows, columns = conductance.shape
    count = rows * columns
    laplacian = np.zeros((2 * count, 2 * count))
    sources = np.zeros((2 * count, rows))

    def join(a: int, b: int, value: float) -> None:
        for one, other in ((a, b), (b, a)):
            laplacian[one, one] += value
            laplacian[one, other] -= value

    for i in range(rows):
        for j in range(columns):
            word, bit = i * columns + j, count + i * columns + j
            join(word, bit, conductance[i, j])
            if j:
                join(word, word - 1, 1 / wordline)
            else:
                laplacian[word, word] += 1 / (before * wordline)
                sources[word, i] += 1 / (before * wordline)
            if i:
                join(bit, bit - columns, 1 / bitline)
            if i == rows - 1:
                laplacian[bit, bit] += 1 / (after * bitline)
    voltages = np.linalg.solve(laplacian, sources)
    return voltages[-columns:].T / (after * bitline)


@pytest.mark.parametrize("shape", [(2, 3), (8, 8), (5, 4)])
def test_wires_are_those_of_the_dense_circuit(shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    cells = rng.random((3, *shape))
    before, after = np.array([1, 7, 30]), np.array([12, 1, 5])
    found = wires.effective(cells, 0.01, 0.02, before, after)
    expected = [
        dense_circuit(each, 0.01, 0.02, *places)
        for each, *places in zip(cells, before, after, strict=True)
    ]
    assert found == pytest.approx(np.array(expected), rel=1e-9, abs=1e-12)
    # A wire without resistance is one with very little.
    for pair in ((0.0, 0.02), (0.01, 0.0)):
        little = [max(each, 1e-9) for each in pair]
        expected = [
            dense_circuit(each, little[0], little[1], *places)
            for each, *places in zip(cells, before, after, strict=True)
        ]
        assert wires.effective(cells, *pair, before, after) == pytest.approx(
            np.array(expected), rel=1e-5
        )
    # Reading it upside down, or from the wrong side, is something else.
    other = wires.effective(cells[:, ::-1], 0.01, 0.02, before, after)[:, ::-1]
    assert other != pytest.approx(found, rel=1e-3)


def test_wires_superpose_and_lose_current():
    rng = np.random.default_rng(1)
    cells = (0.05 + 0.95 * rng.integers(0, 2, (4, 8, 8))).astype(np.float64)
    places = np.full(4, 3)
    found = wires.effective(cells, 0.001, 0.001, places, places)
    assert (found.sum(1) < cells.sum(1)).all()
    assert found == pytest.approx(cells, rel=0.2)
    assert (wires.effective(cells, 0.0, 0.0, places, places) == cells).all()


def test_a_chip_knows_where_its_operation_units_lie():
    # 16 by 16 OUs of a crossbar of 128: OU 37 is row block 2, column block 5.
    device = Device(on_off_ratio=10.0, wire_wordline=1e-3, wire_bitline=2e-3)
    on = np.ones((1, 8, 8), np.uint8)
    found = chip(device).cells(on, 0, np.array([37]))
    expected = dense_circuit(np.ones((8, 8)), 1e-3, 2e-3, 5 * 8 + 1, 128 - (2 * 8 + 7))
    assert found[0] == pytest.approx((expected - 0.1) / 0.9, abs=1e-4)
