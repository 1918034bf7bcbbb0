"""From a network to what it costs, in stages that comparisons and sweeps share.

:func:`compiled` compiles under a scheme, at default settings or at budgets; :func:`events_of`
predicts cycles and events of an engine, or of a tile of several; neither knows a price.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prap_hw.app import workflow
from prap_hw.app.console import Report, silent
from refmodel import api
from refmodel.compression.budget import Budget, BudgetOf, choose_each
from refmodel.compression.schemes import SCHEMES
from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork
from refmodel.network.images import Preprocess, load_images
from refmodel.predict import cycles
from refmodel.predict.deal import deal
from refmodel.predict.events import add_events, layer_events
from refmodel.predict.metrics import layer_metrics
from refmodel.predict.tile import predict_tile, tile_config_for
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program

COUNTS = (
    "patterns", "kept", "reused", "dropped", "ous_dense", "ous", "crossbars", "cells_programmed",
    "cells_crossbars", "index_bits", "weight_bits", "ou_activations", "conversions", "merges",
)  # fmt: skip
"""Figures of :class:`refmodel.predict.metrics.Metrics` that a layer of :func:`events_of` has."""

BUDGETED = ("dictionary", "prap", "similar", "identical", "orc", "structured")
"""Schemes that can keep to a budget: :data:`refmodel.compression.budget.CHOOSABLE`."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, its images, and how pixels become its inputs.

    Attributes
    ----------
    network
        An ONNX file.
    calibration
        Calibration images, a file or an idx pair.
    images
        Labelled images for the accuracy; empty: none is measured.
    mean, std, scale, layout
        See :class:`refmodel.network.images.Preprocess`.
    calibration_limit, limit
        Calibration images, and labelled images, used at most.
    """

    network: str
    calibration: tuple[str, ...]
    images: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: str = "auto"
    calibration_limit: int = 256
    limit: int | None = None

    @cached_property
    def floats(self) -> FloatNetwork:
        """The network in floating point."""
        from refmodel.exchange.onnx_import import load_onnx

        return load_onnx(self.network)

    @cached_property
    def calibrating(self) -> NDArray:
        """The calibration images that are used, as pixels."""
        return load_images(list(self.calibration))[0][: self.calibration_limit]

    @cached_property
    def preprocess(self) -> Preprocess:
        """How pixels become inputs, settled by the calibration images."""
        return Preprocess.for_images(
            self.calibrating, mean=self.mean, std=self.std, scale=self.scale, layout=self.layout
        )

    @cached_property
    def labelled(self) -> tuple[NDArray[np.float32], NDArray] | None:
        """Labelled images as network inputs, and the labels; None where no images were given."""
        if not self.images:
            return None
        x, y = load_images(list(self.images))
        if y is None:
            raise InputError(
                f"expected images with labels, found none in {workflow.names_of(self.images)}"
            )
        source = workflow.names_of(self.images)
        inputs = self.preprocess.apply(
            x[: self.limit], self.floats.input_shape, source=source
        )
        return inputs, y[: self.limit]


def compiled(
    subject: Subject,
    scheme: str,
    budgets: Sequence[float | None] = (None,),
    *,
    of: BudgetOf = "ous",
    config: EngineConfig | None = None,
    report: Report = silent,
) -> dict[float | None, api.Program | InputError]:
    """Compile a network under a scheme, at default settings (None) and at budgets.

    Parameters
    ----------
    subject
        The network and its calibration images.
    scheme
        A name in ``SCHEMES``.
    budgets
        Times less than dense that the network shall cost; None: default settings, or the mapping
        that came with the network.
    of
        What budgets count.
    config
        The engine; its OUs' rows cut the weights into patterns.
    report
        Is told of progress.

    Returns
    -------
    dict
        To each budget its program, or why there is none.
    """
    if scheme not in SCHEMES:
        raise InputError(f"expected a scheme of {', '.join(SCHEMES)}, found {scheme!r}")
    base = config or EngineConfig()
    times = [each for each in budgets if each is not None]
    result: dict[float | None, api.Program | InputError] = {}

    def compile_with(floats: FloatNetwork, settings: Mapping[str, Any] | None) -> api.Program:
        return workflow.compile_floats(
            floats,
            subject.calibrating,
            subject.preprocess,
            scheme=scheme,
            settings=settings,
            ou_rows=base.ou_rows,
            source=workflow.names_of(subject.calibration),
            report=report,
        )

    if None in budgets:
        result[None] = _or_refusal(lambda: compile_with(subject.floats, None))
    if not times:
        return result
    untuned = dataclasses.replace(subject.floats, tuned=None)
    try:
        if scheme not in BUDGETED:
            raise InputError(f"expected a scheme of {', '.join(BUDGETED)} with a budget, found {scheme}")
        inputs = subject.preprocess.apply(subject.calibrating, untuned.input_shape)
        choices = choose_each(
            untuned,
            inputs,
            [Budget(times=each, of=of) for each in times],
            scheme=scheme,
            ou_rows=base.ou_rows,
            config=base,
            progress=report,
            reachable_only=True,
        )
    except InputError as problem:
        return result | dict.fromkeys(times, problem)
    for each, choice in zip(times, choices, strict=True):
        if choice is None:
            result[each] = InputError(f"expected a budget that {scheme} can keep, found {each:g} times fewer {of}")
        else:
            settings = choice.settings
            result[each] = _or_refusal(lambda settings=settings: compile_with(untuned, settings))
    return result


def _or_refusal(make: Callable[[], api.Program]) -> api.Program | InputError:
    try:
        return make()
    except InputError as problem:
        return problem


def events_of(
    program: Program,
    config: EngineConfig | None = None,
    *,
    engines: int = 1,
    report: Report = silent,
) -> dict[str, Any]:
    """Predict cycles and events of one image, layer by layer.

    Parameters
    ----------
    program
        The compiled network.
    config
        The engine; it is sized to the network, or to the parts of it that each engine has.
    engines
        Engines of a tile that each layer is dealt out to.

    Returns
    -------
    dict
        ``engine`` (fields of the sized EngineConfig), ``engines``, ``cycles``, ``layers``: of each
        ``name``, ``cycles``, ``bound``, ``positions``, ``bounds`` (work of each resource),
        ``events`` (:mod:`refmodel.predict.events`), and the figures named in COUNTS.
    """
    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    base = config or EngineConfig()
    if program.layers and base.ou_rows != program.layers[0].ou_rows:
        base = dataclasses.replace(base, ou_rows=program.layers[0].ou_rows)
    sized = (
        workflow.engine_for(program, base)
        if engines == 1
        else tile_config_for(program.layers, engines, base)
    )
    layers = []
    for number, layer in enumerate(program.layers):
        report("predict cycles", number, len(program.layers))
        layers.append(
            _layer_on_engine(layer, sized) if engines == 1 else _layer_on_tile(layer, sized, engines)
        )
    report("predict cycles", len(program.layers), len(program.layers))
    return {
        "engine": dataclasses.asdict(sized),
        "engines": engines,
        "cycles": sum(layer["cycles"] for layer in layers),
        "layers": layers,
    }


def _counts(layer: LayerProgram, config: EngineConfig, prediction: cycles.Prediction) -> dict[str, int]:
    found = layer_metrics(layer, config, prediction)
    return {name: getattr(found, name) for name in COUNTS}


def _layer_on_engine(layer: LayerProgram, config: EngineConfig) -> dict[str, Any]:
    prediction = cycles.predict(layer, config)
    figures = workflow.layer_figures(layer, config, prediction)
    return {
        "name": layer.name,
        "cycles": prediction.cycles,
        "bound": prediction.bound,
        "positions": prediction.positions,
        "bounds": figures["bounds"],
        "events": layer_events(layer, config),
        **_counts(layer, config, prediction),
    }


def _layer_on_tile(layer: LayerProgram, config: EngineConfig, engines: int) -> dict[str, Any]:
    from refmodel.predict.events import tile_events

    parts = deal(layer, engines, config)
    prediction = predict_tile(parts, config)
    counts = [
        _counts(part, config, one)
        for part, one in zip(parts, prediction.engines, strict=True)
        if part is not None and one is not None
    ]
    whole = add_events(counts)
    # Of a part these are the layer's.
    whole |= {name: getattr(layer, name) for name in ("patterns", "kept", "reused", "dropped", "ous_dense")}
    busy = [each for each in prediction.engines if each is not None]
    return {
        "name": layer.name,
        "cycles": prediction.cycles,
        "bound": prediction.bound,
        "positions": prediction.positions,
        "bounds": {
            "conversion": max(each.conversion for each in busy) * prediction.positions,
            "gather": max(each.gather for each in busy) * prediction.positions,
            "merge": max(each.merge for each in busy) * prediction.positions,
            "output": prediction.outputs * prediction.positions,
        },
        "events": tile_events(parts, config),
        **whole,
    }


def totals(found: Mapping[str, Any]) -> dict[str, int]:
    """Add up the figures of :data:`COUNTS` and the cycles of what :func:`events_of` gives."""
    return {
        name: sum(layer[name] for layer in found["layers"]) for name in (*COUNTS, "cycles")
    }
