"""The comparing side: what an image must leave behind by the golden model, and what differs."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict import cycles
from refmodel.predict.cycles import EVENTS
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from sim.results import KINDS
from sim.words import Fields, join, pack, pack_lanes, unpack, unpack_lanes, words_of

CHUNK_BYTES = 64 << 20
"""Golden values held at once, about."""


def predict(program: Program, config: EngineConfig, images: int) -> dict[str, Any]:
    """Work out what a co-simulation must show, from the program alone.

    Returns
    -------
    ``layers``: per layer its name, the prediction of one image, and ``records``, the words of each
    kind; ``expected``: values of each kind over all layers and images.
    """
    layers = []
    expected = dict.fromkeys(KINDS, 0)
    for layer in program.layers:
        prediction = dataclasses.asdict(cycles.predict(layer, config))
        layers.append(
            {"name": layer.name, **prediction, "records": expected_records(layer, config)}
        )
    for step in program.steps:
        if step.op == "layer":
            counts = expected_values(program.layers[step.params["index"]], config)
            for kind in KINDS:
                expected[kind] += counts[kind] * images
    return {"images": images, "layers": layers, "expected": expected}


def counter_differences(
    counters: Mapping[str, int], cycles: int, predicted: Mapping[str, Any], *, stalled: bool = False
) -> list[tuple[str, str, int]]:
    """Compare a run's cycles, and its counters, with the prediction.

    With stalls, cycles are at least the predicted ones, and waits are any.

    Returns
    -------
    Kind, expected and got of each difference.
    """
    found: list[tuple[str, str, int]] = []
    if stalled:
        if cycles < predicted["cycles"]:
            found.append(("cycles", f"{predicted['cycles']} or more", cycles))
    elif cycles != predicted["cycles"]:
        found.append(("cycles", str(predicted["cycles"]), cycles))
    if counters["cycles"] != cycles:
        found.append(("counter cycles", str(cycles), counters["cycles"]))
    names = list(EVENTS)
    if not stalled:
        names += ["stall_gather", "stall_slots"]
    for name in names:
        if counters[name] != predicted[name]:
            found.append((f"counter {name}", str(predicted[name]), counters[name]))
    return found


def record_words(config: EngineConfig, fields: Mapping[str, Fields]) -> dict[str, int]:
    """64-bit words of each kind's record."""
    wide = {
        "requests": words_of(sum(fields["request"]["digits"])),
        "codes": words_of(config.adcs * config.lane_bits),
    }
    return {kind: wide.get(kind, 1) for kind in KINDS}


def expected_records(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """How many words of each kind one image of a layer must give, from the program alone."""
    requests = len(golden.requests(layer, config).ou) * layer.positions
    outputs = layer.out_shape[2] * layer.positions
    return {
        "requests": requests,
        "codes": requests,
        "partial_sums": int(layer.group_kept.sum()) * layer.positions,
        "accumulators": outputs,
        "outputs": outputs,
    }


def expected_values(layer: LayerProgram, config: EngineConfig) -> dict[str, int]:
    """How many values of each kind one image must give: a response has ``adcs`` codes."""
    records = expected_records(layer, config)
    return records | {"codes": records["codes"] * config.adcs}


def compare(
    layer: LayerProgram,
    codes: np.ndarray,
    config: EngineConfig,
    fields: dict[str, Any],
    records: dict[str, np.ndarray],
    slots_done: int,
    compared: dict[str, dict[str, int]],
    *,
    device: golden.Crossbars | None = None,
) -> list[dict[str, Any]]:
    """Compare what one image left behind with the golden model, part after part.

    Parameters
    ----------
    device
        The chip of the golden model; ideal cells where None.

    Returns
    -------
    The first difference of each kind, in the order of :data:`KINDS`.
    """
    firsts: dict[str, dict[str, Any]] = {}
    each = {
        kind: count // layer.positions for kind, count in expected_records(layer, config).items()
    }
    parts = expected_words(layer, codes, config, fields, slots_done, device)
    for part, expected in parts:
        for kind in KINDS:
            want, start = expected[kind], part.start * each[kind]
            end = start + len(want) if part.stop < layer.positions else None
            got = records[kind][start:end]
            _count(kind, want, got, start, each[kind], compared, firsts, config)
    request = golden.requests(layer, config)
    for kind, difference in firsts.items():
        difference["index"] = _by_position(
            kind, difference["index"], layer, config, each.get(kind, 1)
        )
        _describe(kind, difference, layer, config, fields, request, each[kind])
    return [firsts[kind] for kind in KINDS if kind in firsts]


def expected_words(
    layer: LayerProgram,
    codes: np.ndarray,
    config: EngineConfig,
    fields: dict[str, Any],
    slots_done: int,
    device: golden.Crossbars | None,
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Words that one image must leave behind, part after part; ``slots_done`` is where the ring is.

    Returns
    -------
    Iterator of positions and, by kind, their words: uint64 [n, words].
    """
    request = golden.requests(layer, config)
    crossbar, rest = np.divmod(request.ou, config.ous_per_crossbar)
    row_block, col_block = np.divmod(rest, config.col_blocks)
    places = pack(
        fields["request"],
        crossbar=crossbar,
        row_block=row_block,
        col_block=col_block,
        select=request.chunk,
    )
    slots_each = int(layer.group_kept.sum())
    output = np.arange(layer.out_shape[2])
    words = record_words(config, fields)
    bytes_each = len(request.ou) * (layer.ou_rows + 2 * config.adcs + 32)
    # Whole blocks of positions.
    step = max(1, CHUNK_BYTES // bytes_each // config.position_lanes) * config.position_lanes
    for first in range(0, layer.positions, step):
        part = slice(first, min(first + step, layer.positions))
        trace = golden.run_layer_serial(layer, codes[None], config, device=device, positions=part)
        count = part.stop - first
        asked_order = golden.request_order(layer, config, count)
        sum_order = golden.psum_order(layer, config, count)
        block = np.arange(first, part.stop)[:, None] // config.position_lanes
        slots = slots_done + slots_each * block + np.arange(slots_each)
        asked = pack_lanes(
            trace.digits[0],
            config.dac_bits,
            offset=fields["request"]["digits"][0],
            words=words["requests"],
        )
        asked[..., 0] |= places
        given = trace.codes[0]
        if config.pairs:
            given = given.astype(np.int64) & (1 << config.lane_bits) - 1
        codes_each = pack_lanes(given, config.lane_bits, words=words["codes"])
        sums = pack(fields["psum"], slot=slots % config.slots, sum=trace.psums[0])
        expected = {
            "requests": asked.reshape(-1, words["requests"])[asked_order],
            "codes": codes_each.reshape(-1, words["codes"])[asked_order],
            "partial_sums": sums.reshape(-1)[sum_order],
            "accumulators": pack(fields["acc"], output=output, acc=trace.accumulators[0]),
            "outputs": pack(
                fields["output"],
                code=trace.outputs[0],
                channel=output,
                last=output == layer.out_shape[2] - 1,
            ),
        }
        yield part, {kind: expected[kind].reshape(-1, words[kind]) for kind in KINDS}


def _count(
    kind: str,
    want: np.ndarray,
    got: np.ndarray,
    start: int,
    each: int,
    compared: dict[str, dict[str, int]],
    firsts: dict[str, dict[str, Any]],
    config: EngineConfig,
) -> None:
    """Count values and differences of one kind in one part; note the first."""
    both = min(len(want), len(got))
    wrong = want[:both] ^ got[:both]
    values, different = len(got), abs(len(got) - len(want))
    if kind == "codes":
        values, different = values * config.adcs, different * config.adcs
        different += int(np.count_nonzero(unpack_lanes(wrong, config.lane_bits, config.adcs)))
        # Bits beyond the codes are no code, but must be 0 too.
    else:
        different += int(np.count_nonzero(wrong.any(1)))
    compared[kind]["values"] += values
    compared[kind]["different"] += different
    if not different or kind in firsts:
        return
    at = int(np.flatnonzero(wrong.any(1))[0]) if wrong.any() else both
    firsts[kind] = {
        "kind": kind,
        "index": start + at,
        "record": start + at,
        "want": join(want[at : at + 1])[0] if at < len(want) else None,
        "found": join(got[at : at + 1])[0] if at < len(got) else None,
    }


def _by_position(
    kind: str, index: int, layer: LayerProgram, config: EngineConfig, each: int
) -> int:
    """Place of a record among those of its kind, position by position."""
    orders = {
        "requests": golden.request_order,
        "codes": golden.request_order,
        "partial_sums": golden.psum_order,
    }
    if kind not in orders or index >= each * layer.positions:
        return index
    lanes = config.position_lanes
    first = index // (each * lanes) * lanes
    order = orders[kind](layer, config, min(lanes, layer.positions - first))
    return first * each + int(order[index - first * each])


_FIELDS = {
    "requests": "request",
    "partial_sums": "psum",
    "accumulators": "acc",
    "outputs": "output",
}


def _code(bits: int, config: EngineConfig) -> str:
    """A code as text; with pairs it has a sign."""
    return str(bits - (bits >> config.code_bits << config.lane_bits) if config.pairs else bits)


def _describe(
    kind: str,
    difference: dict[str, Any],
    layer: LayerProgram,
    config: EngineConfig,
    fields: dict[str, Any],
    request: golden.Requests,
    each: int,
) -> None:
    """Say in words where a difference is and what it is."""
    position, within = divmod(difference.pop("index"), each)
    if position >= layer.positions:
        position, within = layer.positions - 1, within + each * (position + 1 - layer.positions)
    difference["position"] = list(divmod(position, layer.out_shape[1]))
    want, found = difference.pop("want"), difference.pop("found")
    lane = None
    if kind == "codes":
        mask = (1 << config.lane_bits) - 1
        wrong = 0 if want is None or found is None else want ^ found
        lane = next((j for j in range(config.adcs) if wrong >> j * config.lane_bits & mask), 0)
        texts = [
            "nothing" if word is None else _code(word >> lane * config.lane_bits & mask, config)
            for word in (want, found)
        ]
    else:
        layout = fields[_FIELDS[kind]]
        parts = [
            None if word is None else unpack(layout, word, ("sum", "acc")) for word in (want, found)
        ]
        names = [n for n in layout if None in parts or parts[0][n] != parts[1][n]]  # type: ignore[index]
        texts = [
            "nothing" if part is None else ", ".join(_show(n, part[n], layout) for n in names)
            for part in parts
        ]
    difference["expected"], difference["got"] = texts
    if kind in ("requests", "codes"):
        where = f"request {within}"
        if within < len(request.ou):
            ou, digit, chunk = request.ou[within], request.digit[within], request.chunk[within]
            where += f" (OU {ou}, digit {digit}, column group {chunk})"
        if lane is not None:
            where += f", ADC {lane}"
    else:
        where = f"{'slot' if kind == 'partial_sums' else 'output'} {within}"
    difference["ordinal"] = int(within)
    difference["where"] = where


def _show(name: str, value: int, layout: dict[str, Any]) -> str:
    if name == "digits":
        return f"digits {value:0{layout[name][1]}b}"
    return f"{name} {value}"
