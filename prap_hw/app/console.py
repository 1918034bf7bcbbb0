"""Output of the command line: progress on stderr, tables on stdout, errors in one line.

Tables fit in 100 columns and are plain text where stdout is not a terminal. Progress is a bar on a
terminal, and elsewhere one line per finished stage, and one now and then within a long one.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 100
"""Columns of a table where stdout is not a terminal."""

NAME_WIDTH, NAME_START = 28, 8
"""Characters of a layer's name in a table, and those of its start where the middle is left out."""

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
"""Seconds between lines of progress within a stage where there is no terminal."""

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called at the start (done = 0), on the way, and at the end."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing: what the functions of the library do unless told otherwise."""


def console() -> Console:
    """A console for stdout: as wide as the terminal, 100 columns where there is none."""
    return Console(
        width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False
    )


def error(message: str) -> None:
    """Print ``prap: error: ...`` on stderr, one line."""
    print(f"prap: error: {' '.join(message.split())}", file=sys.stderr)


def hint(figures: Mapping[str, Any]) -> None:
    """Print the hints of figures on stderr, ``prap: hint: ...``, a line each."""
    for line in figures.get("hints", ()):
        print(f"prap: hint: {line}", file=sys.stderr)


@contextmanager
def progress() -> Iterator[Report]:
    """Show stages as they go: a bar for each on a terminal, else a line when one has finished."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            count = f"{done}/{total}" if total > 1 else ""
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, count=count)
            bars.update(tasks[stage], completed=done, total=total, count=count)

        yield report


class _Lines:
    """Progress without a terminal: ``stage (1.2 s)`` when a stage is done.

    While a stage takes long, ``stage: 3 of 20 (25 s)`` now and then, with growing pauses.
    """

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start = self._started.setdefault(stage, now)
        if done >= total:
            del self._started[stage]
            self._told.pop(stage, None)
            self._print(f"{stage} ({now - start:.1f} s)")
        elif now - self._told.get(stage, start) >= min(
            LONGEST_PAUSE, FIRST_PAUSE + (now - start) / 4
        ):
            self._told[stage] = now
            self._print(f"{stage}: {done} of {total} ({now - start:.0f} s)")

    @staticmethod
    def _print(line: str) -> None:
        print(f"prap: {line}", file=sys.stderr, flush=True)


def figure(value: object) -> str:
    """Write one value of a table: thousands apart, ratios with two digits, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten names for a table, in their order.

    A name of more than ``NAME_WIDTH`` characters keeps its start and its end, "..." between, unless
    two names would then be the same: both of them stay as they are.
    """
    short = {
        name: name
        if len(name) <= NAME_WIDTH
        else f"{name[:NAME_START]}...{name[NAME_START + 3 - NAME_WIDTH :]}"
        for name in names
    }
    common = {each for each, count in Counter(short.values()).items() if count > 1}
    return [name if short[name] in common else short[name] for name in names]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table: numbers to the right, text to the left.

    Parameters
    ----------
    title
        Printed above it.
    columns
        Headings; a line break in one is kept.
    rows
        Values as :func:`figure` writes them.
    """
    result = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    result.pad_edge, result.collapse_padding = False, True
    for i, heading in enumerate(columns):
        numeric = any(isinstance(row[i], int | float) for row in rows)
        result.add_column(
            heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        result.add_row(*map(figure, row))
    return result


LAYER_COLUMNS = {
    "name": "layer",
    "patterns_kept": "kept",
    "patterns_reused": "reused",
    "patterns_dropped": "dropped",
    "ous_dense": "OUs\ndense",
    "ous": "OUs",
    "index_bits": "index\nbits",
    "cycles_predicted": "cycles\npredicted",
    "cycles_simulated": "cycles\nsimulated",
    "cycles_bound": "cycles\nbound",
}
"""Columns of the table of layers: key of a layer's figures, heading."""


def carried_line(summary: Mapping[str, Any]) -> str:
    """Say that mappings came with the network."""
    count, layers = len(summary["carried"]), len(summary["layers"])
    return (
        f"mappings of {count} of {layers} layers came with {summary['network']}, "
        f"fine-tuned for {summary['scheme']}"
    )


def layer_table(layers: Sequence[Mapping[str, Any]], *, cycles: bool = True) -> Table:
    """Make the table of layers: patterns, OUs, index bits, cycles; no column for absent figures.

    Parameters
    ----------
    cycles
        False leaves the cycles out, where :func:`cycle_table` has them.
    """
    keys = [key for key in LAYER_COLUMNS if any(layer.get(key) is not None for layer in layers)]
    if not cycles:
        keys = [key for key in keys if not key.startswith("cycles")]
    names = short_names([layer["name"] for layer in layers])
    rows = [
        [name, *(layer.get(key) for key in keys[1:])]
        for name, layer in zip(names, layers, strict=True)
    ]
    if len(layers) > 1:
        total: list[object] = ["all"]
        total += [sum(layer.get(key) or 0 for layer in layers) for key in keys[1:]]
        rows.append(total)
    title = "Layers (cycles for one image)" if cycles else "Layers"
    return table(title, [LAYER_COLUMNS[key] for key in keys], rows)


STALL_COLUMNS = {
    "waiting for inputs": "no\ninput",
    "partial-sum ring full": "ring\nfull",
    "crossbar port busy": "port\nbusy",
    "start and end": "start,\nend",
}
"""Cause of cycles without a conversion request, heading."""


BOUNDS = {"conversion": "convert", "gather": "gather", "merge": "merge", "output": "output"}
"""Resources that can be the bound, in short."""


def cycle_table(layers: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> Table:
    """Make the table of cycles: the bound and what sets it, simulated cycles, ratio, stalls.

    ``unpredicted`` is what the simulation took more than the prediction. The last columns are
    cycles in which no conversion was requested, by cause, large numbers in millions.

    Parameters
    ----------
    layers, total
        As :func:`prap_hw.app.workflow.cosim` gives them; layers that did not run have dashes.
    """

    def row(name: str, bound_by: str, of: Mapping[str, Any]) -> list[object]:
        simulated, stalls = of.get("cycles_simulated"), of.get("stalls", {})
        off = None if simulated is None else simulated - of["cycles_predicted"]
        start = [name, bound_by, of["cycles_bound"], simulated, off, of.get("cycles_ratio")]
        return [*start, *(_short(stalls.get(cause)) for cause in STALL_COLUMNS)]

    rows = []
    names = short_names([layer["name"] for layer in layers])
    for name, layer in zip(names, layers, strict=True):
        bounds = layer["bounds"]
        rows.append(row(name, BOUNDS[max(bounds, key=lambda name: bounds[name])], layer))
    if len(layers) > 1:
        rows.append(row("all", "", total))
    columns = ["layer", "bound\nby", "bound", "simulated", "unpre-\ndicted", "ratio"]
    return table(
        "Cycles of one image; ratio = (simulated - start) / bound; stalls by cause",
        [*columns, *STALL_COLUMNS.values()],
        rows,
    )


SETTING_COLUMNS = {
    "scheme": "scheme",
    "channels": "channels\nin a group",
    "positions": "positions\nkept",
    "keep": "share\nkept",
    "structure_keep": "outputs\nkept",
    "patterns": "patterns K",
    "terms": "terms T",
}
"""Columns of the table of chosen settings: field of a setting, heading."""

SETTING_FIELDS = {
    "dictionary": ("patterns", "terms"),
    "structured": ("structure_keep",),
    "orc": ("keep",),
}
"""Settings that a choice decides; schemes without an entry: shape of groups and share kept."""


COSTS = {
    "ous": "OU activations",
    "cycles": "predicted cycles",
    "weighted": "conversions and weighted merges",
    "energy": "energy",
}
"""Costs that a budget counts, in words."""


def choice_tables(budget: Mapping[str, Any]) -> list[Table | str]:
    """Say what a budget chose: the settings of each layer, the ratio, the loss where one was asked.

    Parameters
    ----------
    budget
        Fields of a :class:`refmodel.compression.budget.Budget` and of the
        :class:`refmodel.compression.budget.Choice`.
    """
    shown = {"scheme"}
    for each in budget["settings"].values():
        shown |= set(SETTING_FIELDS.get(each["scheme"], ("channels", "positions", "keep")))
    keys = [key for key in SETTING_COLUMNS if key in shown]
    settings = budget["settings"]
    rows = [
        [name, *(each[key] for key in keys)]
        for name, each in zip(short_names(list(settings)), settings.values(), strict=True)
    ]
    of = COSTS[budget["of"]]
    if budget["of"] == "energy":
        of += f" in {budget['technology']}, {budget['cost'] * 1e6:.4g} uJ"
    line = f"chosen: {budget['ratio']:.2f} times less than dense ({of})"
    if budget["loss"] is not None:
        line += f", {budget['loss']:.2f} points lost on the calibration images"
    headings = [SETTING_COLUMNS[key] for key in keys]
    return [table("Chosen settings", ["layer", *headings], rows), line]


KINDS = {"codes": "ADC codes", "partial_sums": "partial sums"}
"""Kinds of compared values in words, where the name is not one."""


METRIC_COLUMNS = {
    "name": "layer",
    "sparsity": "zero",
    "ous": "OUs",
    "crossbars": "cross-\nbars",
    "occupancy": "cells\nused",
    "index_bits": "index\nbits",
    "index_share": "of\nsaved",
    "ou_activations": "OUs\nrun",
    "conversions": "con-\nverted",
    "merges": "merges",
    "cycles": "cycles",
}
"""Columns of the table of metrics: name in :class:`refmodel.predict.metrics.Metrics`, heading. The
share of zero weights; cells used, of all in the crossbars; index bits, and their share of the bits
saved."""


def _short(value: object) -> object:
    """Large numbers in millions."""
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1e6:,.2f} M"
    return value


def metrics_table(layers: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> Table:
    """Make the table of metrics; large numbers in millions, so that it fits the width."""
    listed = (*layers, total) if len(layers) > 1 else layers
    names = short_names([each["name"] for each in listed])
    rows = [
        [name, *(_short(each.get(key)) for key in METRIC_COLUMNS if key != "name")]
        for name, each in zip(names, listed, strict=True)
    ]
    return table("Metrics (events of one image)", list(METRIC_COLUMNS.values()), rows)


def compared_table(compared: Mapping[str, Mapping[str, int]]) -> Table:
    """Make the table of compared values: kind, expected, compared, different."""
    return table(
        "Hardware against golden model",
        ["values", "expected", "compared", "different"],
        [
            [KINDS.get(kind, kind), c["expected"], c["values"], c["different"]]
            for kind, c in compared.items()
        ],
    )


def operation_table(operations: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of an accelerator's operations: words loaded before each, border, cycles.

    With several engines also the cycles of one engine, where known, and how many times as many.
    """
    keys = ["words", "filled", "cycles"]
    headings = ["tensor", "operation", "words", "border\nbytes", "cycles\npredicted"]
    several = "cycles_one_engine" in operations[0]
    if several:
        keys.append("cycles_one_engine")
        headings += ["on one\nengine", "speed-up"]
    names = short_names([each["name"] for each in operations])
    rows = [
        [name, each["kind"], *(each[key] for key in keys)]
        for name, each in zip(names, operations, strict=True)
    ]
    rows.append(["all", "", *(sum(each[key] for each in operations) for key in keys)])
    if several:
        rows = [[*row, f"{row[-1] / row[-2]:.2f}"] for row in rows]
    return table("Operations (cycles for one image)", headings, rows)


def operations_line(operations: Sequence[Mapping[str, Any]], network: Mapping[str, Any]) -> str:
    """Say how the cycles of the operations make up those of an image.

    The image is in memory before the start; between two operations registers are loaded, a word a
    cycle, and the next one is started.
    """
    run = [each for each in operations if each["kind"] != "image"]
    image = sum(each["cycles"] for each in operations if each["kind"] == "image")
    cycles, words = (sum(each[key] for each in run) for key in ("cycles", "words"))
    starts = network["cycles_predicted"] - cycles - words
    line = f"{network['cycles_predicted']:,} cycles, start to end = {cycles + image:,} of all rows"
    if image:
        line += f" - {image:,} of the image, written before the start"
    return f"{line} + {words:,} to load the words + {starts:,} to start {len(run)} operations"


def network_line(network: Mapping[str, Any]) -> str:
    """Say how many cycles an image took on the accelerator, from start to the last output."""
    simulated = sorted(set(network["cycles_simulated"]))
    found = f"{simulated[0]:,}" if len(simulated) == 1 else f"{simulated[0]:,} to {simulated[-1]:,}"
    line = (
        f"an image: {network['cycles_predicted']:,} cycles predicted, {found} simulated; "
        f"activation memory: {network['activation_bytes']:,} bytes"
    )
    if network["engines"] > 1:
        line += f"; {network['engines']} engines"
    if "speed_up" in network:
        line += (
            f", {network['speed_up']:.2f} times as fast as one, which takes "
            f"{network['cycles_one_engine']:,} cycles as predicted"
        )
    return line


MOST_ANSWERS = 10
"""Images whose classes are printed."""


def simulation_line(simulation: Mapping[str, Any], runs: int) -> str:
    """Say how many cycles were simulated, how fast, and what was taken from earlier runs.

    Parameters
    ----------
    runs
        Images of layers, of all layers together.
    """
    time = "CPU time" if simulation["tier"] == "bulk" else "wall time, start and comparison in it"
    line = f"simulated: {simulation['cycles']:,} cycles"
    if simulation["cycles"]:
        line += f", {simulation['cycles_per_second']:,} a second of {time}"
    if simulation["kept"]:
        line += f"; {simulation['kept']} of {runs} images of layers kept from earlier runs"
    return line


def answers_line(answers: Sequence[int | None], labels: Sequence[int] | None) -> str:
    """Say which classes the hardware gave to the images, and how many are those of the labels."""
    shown = ["none" if each is None else str(each) for each in answers[:MOST_ANSWERS]]
    line = f"classes: {', '.join(shown)}{', ...' if len(answers) > MOST_ANSWERS else ''}"
    if labels is None:
        return line
    right = sum(one == other for one, other in zip(answers, labels, strict=True))
    return f"{line}; {right} of {len(answers)} as labelled"


def sample_table(sample: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of a sample: positions of each layer, its cycles, and those of the whole."""
    names = short_names([each["name"] for each in sample])
    rows = [
        [
            name,
            each["simulated"],
            each["positions"],
            layer["cycles_predicted"],
            layer.get("cycles_simulated"),
            each["cycles"],
        ]
        for name, each, layer in zip(names, sample, layers, strict=True)
    ]
    headings = ["positions\nsimulated", "of", "cycles\npredicted", "cycles\nsimulated"]
    return table(
        "Sample (the last column: the whole layer, predicted by the same model)",
        ["layer", *headings, "whole\nlayer"],
        rows,
    )


def device_line(device: Mapping[str, Any]) -> str:
    """Say which chip stood at the crossbar port, of the RTL and of the golden model."""
    return (
        f"crossbars: chip {device['chip']} of {device['name']}, in Python at the open port, "
        f"{device['adc_bits']}-bit codes"
    )


def accuracy_table(accuracy: Mapping[str, float], images: int) -> Table:
    """Make the table of accuracies, beside the number of images that one point is."""
    names = {
        "float": "float",
        "int8": "8 bits",
        "prap": "8 bits, prap",
        "tuned": "float, on patterns",
    }
    rows = [
        [names.get(name, name), f"{100 * value:.2f} %", round(value * images), images]
        for name, value in accuracy.items()
        if value is not None
    ]
    return table(
        f"Accuracy (one point is {images / 100:.1f} images)",
        ["arithmetic", "accuracy", "right", "images"],
        rows,
    )


def snr_table(snr: Mapping[str, float | None], images: int) -> Table:
    """Make the table of outputs that are no classes: their error against the float network."""
    rows = [
        ["8 bits" if name == "int8" else f"8 bits, {name}",
         "no difference" if value is None else f"{value:.2f} dB", images]
        for name, value in snr.items()
    ]  # fmt: skip
    title = "Outputs against the float network (no classifier: no accuracy)"
    return table(title, ["arithmetic", "signal to noise", "images"], rows)


def area_table(components: Mapping[str, Mapping[str, int]]) -> Table:
    """Make the table of what each component takes of an FPGA."""
    rows = [[name, *counts.values()] for name, counts in components.items()]
    return table("Cells of each component", ["component", *components["total"]], rows)


def history_table(history: Sequence[Mapping[str, float]]) -> Table:
    """Make the table of epochs: loss, and accuracy on the images as they were changed."""
    rows = [
        [number, each["loss"], f"{100 * each['accuracy']:.2f} %"]
        for number, each in enumerate(history, 1)
    ]
    return table("Fine-tuning (training images)", ["epoch", "loss", "accuracy"], rows)


def device_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of devices: the accuracy of their chips, its mean and standard deviation.

    Parameters
    ----------
    found
        Entry ``devices`` of :func:`prap_hw.app.workflow.evaluate`, accuracies as shares of 1. The
        table has them in percent, the standard deviation in percentage points, and conversions
        that clipped in a million of all.
    """
    rows = []
    for each in found:
        seeds, pairs = each["seeds"], each["cells"] == "pairs"
        chips = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        bits = each["adc_bits"]
        codes = f"{bits} bit{'s' if bits > 1 else ''}{' and sign' if pairs else ''}"
        spread = None if each["spread"] is None else f"{100 * each['spread']:.2f} points"
        ends = min(each["accuracy"]), each["mean"], max(each["accuracy"])
        shares = [f"{100 * value:.2f} %" for value in ends]
        clipped = 1e6 * sum(each["clipped"]) / max(1, len(seeds) * each["conversions"])
        share = f"{clipped:,.0f}" if clipped >= 100 else f"{clipped:.3g}"
        rows.append([each["name"], each["cells"], codes, chips, *shares, spread, share])
    columns = ["device", "cells", "codes", "chips", "lowest", "mean", "highest", "spread"]
    columns.append("clipped,\nof 1e6")
    return table("Accuracy on chips", columns, rows)


def interval_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how sure the mean of each device's chips is, where they are several and differ."""
    return [
        f"{each['name']}: mean {100 * each['mean']:.2f} % ± {100 * each['interval']:.2f} points, "
        f"95 % interval of {len(each['seeds'])} chips"
        for each in found
        if each["interval"]
    ]


def programming_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what programming a chip takes, of devices whose file has energy or time for it."""
    lines = []
    for each in found:
        cost = each["programming"]
        if not (cost["energy_nj"] or cost["time_ms"]):
            continue
        writes = cost["writes"] / max(1, cost["cells"])
        lines.append(
            f"{each['name']}: {cost['cells']:,} cells, {writes:.2f} writes to each, "
            f"{cost['energy_nj'] / 1e3:,.4g} uJ and {cost['time_ms']:,.4g} ms one after the other"
        )
    return lines
