"""The page: tables and pictures of a network, and of a run of it, in one HTML file.

:func:`write_report` takes figures (what ``demo.json`` holds, or what
:func:`prap_hw.app.report.network.network_figures` gathers of a folder) and the layer programs that
they were made with. Nothing on the page is loaded from elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context

from prap_hw.app.console import KINDS
from prap_hw.app.report.charts import draw_cycles, draw_images, draw_parts, draw_stalls
from prap_hw.app.report.content import Occupancy, kept_shapes, occupancy
from prap_hw.app.report.pictures import (
    MOST_CELLS,
    MOST_SHAPES,
    draw_crossbars,
    draw_reuse,
    draw_shapes,
)
from prap_hw.app.report.style import STYLE
from refmodel.config import EngineConfig
from refmodel.files import new_file
from refmodel.program.layer import LayerProgram
from refmodel.program.sizes import gathers_of_slots

FEW_LAYERS = 8
"""Layers up to which a page shows everything unfolded, and all crossbars in one picture."""

MOST_CROSSBARS = 8
"""Crossbars of a layer that are drawn; one where there are more than FEW_LAYERS layers."""


@dataclass(frozen=True, kw_only=True)
class _LayerView:
    """One layer as the template shows it."""

    name: str
    text: str
    shapes: Markup | None
    shape_count: int
    reuse: Markup | None
    crossbars: Markup | None
    use: Occupancy


def _kind_of(layer: LayerProgram) -> str:
    """Say what a layer is, in words."""
    height, width, channels = layer.in_shape
    if layer.kernel == (1, 1) and (height, width) == (1, 1):
        return f"fully connected, {channels} → {layer.out_shape[2]}"
    return (
        f"{'×'.join(map(str, layer.kernel))} convolution, {channels} → {layer.out_shape[2]} "
        f"channels, {layer.out_shape[0]}×{layer.out_shape[1]} positions"
    )


def _layer_views(programs: Sequence[LayerProgram], config: EngineConfig) -> Iterator[_LayerView]:
    """Draw the layers one after the other; of many, with smaller pictures."""
    many = len(programs) > FEW_LAYERS
    most = max(8_000, MOST_CELLS * FEW_LAYERS // max(len(programs), FEW_LAYERS))
    for layer in programs:
        largest = int(gathers_of_slots(layer).max())
        rows = f"{largest} OUs to the largest pattern" if largest > 1 else "one OU to a pattern"
        use = occupancy(layer, config, 1 if many else MOST_CROSSBARS)
        yield _LayerView(
            name=layer.name,
            text=f"{_kind_of(layer)}; scheme {layer.scheme}, {len(layer.group_kept)} groups, "
            f"{rows}",
            shapes=draw_shapes(layer),
            shape_count=len(kept_shapes(layer)),
            reuse=draw_reuse(layer, most),
            crossbars=draw_crossbars([(layer.name, use)], f"a crossbar of layer {layer.name}")
            if many
            else None,
            use=use,
        )


def _number(value: Any, digits: int = 0) -> str:
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"


def quantity(value: float | None, unit: str) -> str:
    """Write a quantity with three digits and a prefix: 0.00123 of ``J`` is 1.23 mJ."""
    if value is None:
        return "–"
    if value == 0:
        return f"0 {unit}"
    prefixes = {0: "", -1: "m", -2: "µ", -3: "n", -4: "p", -5: "f", 1: "k", 2: "M", 3: "G"}
    power = 0
    while abs(value) < 0.9995 and power > -5:
        value, power = value * 1000, power - 1
    while abs(value) >= 999.5 and power < 3:
        value, power = value / 1000, power + 1
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {prefixes[power]}{unit}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("prap_hw.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "quantity": quantity}
    return environment


def render(template: str, **values: Any) -> str:
    """Fill one of the package's templates."""
    return _environment().get_template(template).render(**values)


def render_report(
    figures: Mapping[str, Any],
    programs: Sequence[LayerProgram],
    config: EngineConfig,
    *,
    title: str = "PRAP-PIM demo",
    samples: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Make the page.

    Parameters
    ----------
    figures
        ``layers``, of each what :func:`prap_hw.app.workflow.layer_figures` gives; and, shown where
        they are there, ``lead`` (a sentence below the title), ``images`` and ``accuracy``,
        ``compared`` and ``differences`` of a co-simulation, ``costs``
        (:func:`prap_hw.app.pricing.cost_figures`), ``devices``, ``command``, ``seconds``,
        ``versions``, ``seeds``, ``config``, ``host_ops``, ``notes`` (a list of sentences), and in
        each layer ``bounds``, ``cycles_simulated`` and ``stalls``.
    programs
        The layers' programs, in the order of ``figures["layers"]``.
    config
        Sizes of the engine that ran them.
    title
        Heading of the page.
    samples
        Images that went through the hardware; see :func:`prap_hw.app.report.charts.draw_images`.
    """
    layers = list(figures["layers"])
    compared = figures.get("compared") or {}
    costs = figures.get("costs")
    simulated = [layer.get("cycles_simulated") for layer in layers]
    with rc_context(STYLE):
        views = list(_layer_views(programs, config))
        few = len(programs) <= FEW_LAYERS
        uses = [(view.name, view.use) for view in views]
        return render(
            "report.html.j2",
            title=title,
            figures=figures,
            layers=layers,
            few=few,
            totals=_totals(layers),
            different=sum(kind["different"] for kind in compared.values()),
            values=sum(kind["values"] for kind in compared.values()),
            missing=sum(kind["expected"] - kind["values"] for kind in compared.values()),
            simulated=any(each is not None for each in simulated),
            cycles_equal=simulated == [layer["cycles_predicted"] for layer in layers],
            cycles_figure=draw_cycles(layers),
            stalls_figure=draw_stalls(layers),
            crossbar_figure=draw_crossbars(uses, "crossbars of all layers") if few else None,
            samples=list(samples),
            compared={KINDS.get(kind, kind): counts for kind, counts in compared.items()},
            samples_figure=draw_images(samples) if samples else None,
            views=views,
            engine=config,
            most_shapes=MOST_SHAPES,
            costs=costs,
            cost_figures=_cost_pictures(costs) if costs else [],
        )


def _totals(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the layers of what are numbers."""
    return {
        key: sum(layer.get(key) or 0 for layer in layers)
        for key in layers[0]
        if isinstance(layers[0][key], int)
    }


def _cost_pictures(costs: Mapping[str, Any]) -> list[tuple[Markup, str]]:
    """Pictures of the costs by part, with the words below each."""
    energies = [
        (row["name"], {k: 1e6 * v for k, v in row["energy"].items()}) for row in costs["layers"]
    ]
    whole = [("energy of an image", {k: 1e6 * v for k, v in costs["energy"].items()})]
    result = [
        (
            draw_parts(whole, unit="µJ", title="energy by part"),
            "Energy of one image, by part of the machine.",
        ),
        (
            draw_parts(energies, unit="µJ", title="energy by part and layer"),
            "The same layer by layer.",
        ),
    ]
    if costs.get("area"):
        area = [("area", dict(costs["area"]))]
        result.append((draw_parts(area, unit="mm²", title="area by part"), "Area, by part."))
    return result


def write_report(
    path: Path,
    figures: Mapping[str, Any],
    programs: Sequence[LayerProgram],
    config: EngineConfig,
    *,
    title: str = "PRAP-PIM demo",
    samples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of :func:`render_report` to a file, whole or not at all."""
    page = render_report(figures, programs, config, title=title, samples=samples)
    with new_file(path) as draft:
        draft.write_text(page, encoding="utf-8")
