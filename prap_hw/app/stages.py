"""From a network to what it costs, in stages that comparisons and sweeps share.

:func:`compiled` compiles under a scheme, at default settings or at budgets; :func:`events_of`
counts events and predicts cycles on an accelerator; neither knows a price.
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
from prap_hw.app.workflow.accuracy import check_classifier
from prap_hw.app.workflow.engines import check_layers
from prap_hw.app.workflow.folders import check_pictures
from refmodel import api
from refmodel.compression.budget import Budget, BudgetOf, choose_each
from refmodel.compression.schemes import SCHEMES
from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.cost.events import LayerEvents, NetworkEvents, network_events, with_latency
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork
from refmodel.network.images import Preprocess, load_images
from refmodel.predict.accelerator import accelerator_config_for
from refmodel.predict.tile import tile_config_for
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for

COUNTS = (
    "patterns", "kept", "reused", "dropped", "ous_dense", "ous", "ou_activations", "index_bits",
)  # fmt: skip
"""Figures of a layer that depend on its program alone; ``ou_activations`` are of an image."""

BUDGETED = ("dictionary", "prap", "similar", "identical", "orc", "structured")
"""Schemes that can keep to a budget: :data:`refmodel.compression.budget.CHOOSABLE`."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, its images, and how pixels become its inputs.

    Attributes
    ----------
    network
        A file of ONNX or TensorFlow Lite.
    calibration
        Calibration images, a file or an idx pair.
    images
        Labelled images for the accuracy; empty: none is measured.
    mean, std, scale, layout, resize, crop
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
    resize: int | None = None
    crop: int | None = None
    calibration_limit: int = 256
    limit: int | None = None

    @cached_property
    def floats(self) -> FloatNetwork:
        """The network in floating point."""
        from refmodel.exchange.load import load_network

        return load_network(self.network)

    @cached_property
    def calibrating(self) -> NDArray:
        """The calibration images that are used, as pixels."""
        check_pictures(self.calibration, resize=self.resize, crop=self.crop)
        x, _ = load_images(list(self.calibration), resize=self.resize, crop=self.crop)
        return x[: self.calibration_limit]

    @cached_property
    def preprocess(self) -> Preprocess:
        """How pixels become inputs, settled by the calibration images."""
        return Preprocess.for_images(
            self.calibrating,
            mean=self.mean,
            std=self.std,
            scale=self.scale,
            layout=self.layout,
            resize=self.resize,
            crop=self.crop,
        )

    @cached_property
    def labelled(self) -> tuple[NDArray[np.float32], NDArray] | None:
        """Labelled images as network inputs, and the labels; None where no images were given."""
        if not self.images:
            return None
        check_classifier(self.floats, "the accuracy on images")
        x, y = load_images(list(self.images), resize=self.resize, crop=self.crop)
        if y is None:
            raise InputError(
                f"expected images with labels, found none in {workflow.names_of(self.images)}"
            )
        source = workflow.names_of(self.images)
        inputs = self.preprocess.apply(x[: self.limit], self.floats.input_shape, source=source)
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
        The cost that budgets count.
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
    try:
        check_layers(subject.floats)
    except InputError as problem:
        return dict.fromkeys(budgets, problem)
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
            raise InputError(
                f"expected a scheme of {', '.join(BUDGETED)} with a budget, found {scheme}"
            )
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
            result[each] = InputError(
                f"expected a budget that {scheme} can keep, found {each:g} times fewer {of}"
            )
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
    latency: int = 1,
    engines: int = 1,
) -> dict[str, Any]:
    """Count the events of one image and predict its cycles, as JSON values.

    The network runs on an accelerator that holds all of it, pooling and sums included; where there
    is none that can, its layers run one after the other on an engine or tile, and a host does the
    rest, which is not counted.

    Parameters
    ----------
    program
        The compiled network.
    config
        The engine; it is sized to the network, or to the parts of it that each engine has.
    latency
        Cycles of the crossbar, which a technology decides.
    engines
        Engines that each layer is dealt out to.

    Returns
    -------
    dict
        ``events``, which :func:`restored` turns back, ``counts`` (:data:`COUNTS`, of the network),
        ``layers`` (of each ``name``, ``crossbars`` and :data:`COUNTS`), ``host``: why there is no
        accelerator, else None.
    """
    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    base = config or EngineConfig()
    if program.layers:
        base = dataclasses.replace(base, ou_rows=program.layers[0].ou_rows)
    base = with_latency(base, latency)
    host = None
    try:
        sized = accelerator_config_for(program, base, engines)
    except InputError as problem:
        host = str(problem)
        sized = (
            engine_config_for(program.layers, base)
            if engines == 1
            else tile_config_for(program.layers, engines, base)
        )
    found = network_events(program, sized, engines)
    layers = [_counts(layer, sized) for layer in program.layers]
    crossbars = {each.name: each.crossbars for each in found.layers}
    counts = {name: sum(layer[name] for layer in layers) for name in COUNTS}
    return {
        "events": dataclasses.asdict(found),
        "counts": counts,
        "layers": [each | {"crossbars": crossbars[each["name"]]} for each in layers],
        "host": host,
    }


def _counts(layer: LayerProgram, config: EngineConfig) -> dict[str, Any]:
    """Figures of a layer that no engine's number changes."""
    ous = sizes.ou_count(layer, config)
    return {
        "name": layer.name,
        "patterns": layer.patterns,
        "kept": layer.kept,
        "reused": layer.reused,
        "dropped": layer.dropped,
        "ous_dense": layer.ous_dense,
        "ous": ous,
        "ou_activations": ous * layer.positions,
        "index_bits": sizes.index_bits(layer, config)["total"],
    }


def restored(found: Mapping[str, Any]) -> NetworkEvents:
    """Turn ``events`` of :func:`events_of` back, from JSON as well."""
    values = dict(found["events"])
    values["config"] = EngineConfig(**values["config"])
    values["layers"] = tuple(LayerEvents(**layer) for layer in values["layers"])
    return NetworkEvents(**values)
