"""Compression, for ``prap compress``: from an ONNX file to a folder with a program."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow import hints
from prap_hw.app.workflow.accuracy import is_classifier
from prap_hw.app.workflow.engines import EngineOptions, check_layers, engine
from prap_hw.app.workflow.figures import layer_figures
from prap_hw.app.workflow.folders import (
    NETWORK_FILE,
    PROGRAM_FILE,
    SUMMARY_FILE,
    Paths,
    check_pictures,
    names_of,
    versions,
)
from refmodel import api, files
from refmodel.api import predict
from refmodel.compression import processes, store
from refmodel.compression.budget import Budget, choose
from refmodel.compression.quantize import Activations, Residual, Weights
from refmodel.compression.schemes import LayerSetting
from refmodel.compression.tuned import scheme_of
from refmodel.config import EngineConfig
from refmodel.cost import Technology
from refmodel.errors import InputError
from refmodel.network.augment import augment as augmented
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess, load_images
from refmodel.predict.metrics import network_metrics
from refmodel.program import sizes

LARGE = 4_000_000
"""Weights from which a network is compressed in several processes unless a number is given."""


def compress(
    network: Paths,
    calibration: Paths | Sequence[Paths],
    out: Paths,
    *,
    scheme: str | None = None,
    settings: Mapping[str, LayerSetting] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    layout: str = "auto",
    resize: int | None = None,
    crop: int | None = None,
    limit: int = 256,
    activations: Activations = "minmax",
    percentile: float = 99.99,
    weights: Weights = "layer",
    residual: Residual = "separate",
    moments: bool = True,
    augment: str | None = None,
    budget: Budget | None = None,
    replace: bool = False,
    config: EngineOptions | EngineConfig | None = None,
    workers: int | None = 1,
    report: Report = silent,
) -> dict[str, Any]:
    """Quantise, prune and compile a network; write the folder that the other verbs take.

    Parameters
    ----------
    network
        A file of ONNX or TensorFlow Lite.
    calibration
        Images as :func:`refmodel.network.images.load_images` reads them; their labels are used for
        a budget of a loss alone.
    out
        Folder to write: ``program.prap``, ``network.onnx`` (the network with all
        of its weights), ``summary.json``.
    scheme
        A name in ``refmodel.compression.schemes.SCHEMES``. None: the one that the network was
        fine-tuned for, where it was, else ``prap``.
    settings
        Layer name pattern to setting, for layers that shall not have the scheme's default, nor the
        mapping that came with a network that was fine-tuned for the scheme.
    mean, std, scale, layout, resize, crop
        How pixels become network inputs; see :class:`refmodel.network.images.Preprocess`.
    limit
        Calibration images used at most: the first of the file.
    activations, percentile, weights, residual
        Choice of the ranges of activations, granularity of the weight scales, and treatment of
        residual additions; see :func:`refmodel.compression.quantize.quantize`.
    moments
        Whether moments are matched after mapping: :mod:`refmodel.compression.moments`.
    augment
        How calibration images are changed: :func:`refmodel.network.augment.augment`.
    budget
        Chooses the settings of the layers: :func:`refmodel.compression.budget.choose`. Mappings
        that came with the network are not used then.
    replace
        Whether a folder that this function wrote before is replaced.
    config
        The engine to compile for: its OUs' rows cut the weights into patterns, the other sizes are
        those for which cycles are predicted. It is sized to the network.
    workers
        Processes that map layers, and images that go through a layer at a time; None: as many as
        there are processors for a network of more than :data:`LARGE` weights, otherwise 1. What is
        written does not depend on it.
    report
        Is told of progress.

    An interrupted run leaves what it has finished in ``work_folder(out)``, and the same call goes
    on from there; a run that ends removes the folder.

    Returns
    -------
    dict
        ``network``, ``scheme``, ``carried`` (names of the layers whose mapping came with the
        network), ``preprocess`` (how pixels became inputs, and what ``images`` they were),
        ``hints`` (sentences on what may be wrong with that), ``layers`` (see
        :func:`layer_figures`), ``engine``, ``metrics`` (``layers`` and ``total``, see
        :class:`refmodel.predict.metrics.Metrics`).
    """
    from refmodel.exchange.load import copy_as_onnx, load_network

    network, out = Path(network), Path(out)
    base = engine(config)
    files.check_free(out, replace=replace, marker=PROGRAM_FILE)
    report("read the network", 0, 1)
    floats = load_network(network)
    check_layers(floats)
    workers = settled_workers(workers, floats)
    scheme = scheme or scheme_of(floats)
    sizes_given: dict[str, Any] = {"resize": resize, "crop": crop}
    check_pictures(calibration, **sizes_given)
    images, labels = load_images(calibration, **sizes_given)
    preprocess = Preprocess.for_images(
        images, mean=mean, std=std, scale=scale, layout=layout, **sizes_given
    )
    count = len(images)
    images = images[:limit]
    pixels = hints.described(images)
    # A folder keeps how the images that it was made with became inputs.
    used = preprocess.for_input(images, floats.input_shape, source=names_of(calibration))
    hint = None
    if mean is None and std is None and scale is None and is_classifier(floats):
        hint = hints.training_hint(floats, images, labels, preprocess)
    if augment is not None:
        fitting = preprocess.for_input(images, floats.input_shape, source=names_of(calibration))
        images = augmented(images, augment, layout=fitting.layout)
    report("read the network", 1, 1)
    options: dict[str, Any] = {
        "activations": activations,
        "percentile": percentile,
        "weights": weights,
        "residual": residual,
    }
    key = store.digest(
        store.sources(),
        network.read_bytes(),
        *(node.weight for node in floats.nodes if isinstance(node, Matrix)),
        images,
        "" if labels is None else labels[:limit],
        repr((scheme, settings, preprocess, limit, base, moments, budget, options)),
        repr(budget and budget.technology and Technology.load(budget.technology)),
    )
    work = store.Work(work_folder(out), key)
    try:
        chosen = None
        if budget is not None:
            chosen = choose(
                floats,
                preprocess.apply(images, floats.input_shape, source=names_of(calibration)),
                budget,
                labels=None if labels is None else labels[:limit],
                scheme=scheme,
                settings=settings,
                ou_rows=base.ou_rows,
                config=base,
                progress=report,
                workers=workers,
                work=work,
                residual=residual,
            )
            settings = {**(settings or {}), **chosen.settings}
            floats = dataclasses.replace(floats, tuned=None)
        program = compile_floats(
            floats,
            images,
            preprocess,
            scheme=scheme,
            settings=settings,
            ou_rows=base.ou_rows,
            packed=base.patterns_per_ou > 1,
            moments=moments,
            source=names_of(calibration),
            report=report,
            workers=workers,
            work=work,
            **options,
        )
        del floats
    except InputError:
        work.remove()
        raise
    fitted = sizes.engine_config_for(program.layers, base)
    predictions = predict(program, fitted, report=report)
    summary = {
        "network": network.name,
        "sha256": hashlib.sha256(network.read_bytes()).hexdigest(),
        "scheme": scheme,
        "carried": list(program.about.get("carried", ())),
        "calibration": {
            "file": names_of(calibration),
            "images": min(limit, count),
            "activations": activations,
            "weights": weights,
            "moments": moments,
        }
        | ({"residual": residual} if residual != "separate" else {})
        | ({"augment": augment} if augment is not None else {})
        | ({"percentile": percentile} if activations == "percentile" else {}),
        **(
            {}
            if budget is None or chosen is None
            else {"budget": dataclasses.asdict(budget) | dataclasses.asdict(chosen)}
        ),
        "preprocess": used.to_dict() | {"images": pixels},
        "hints": [] if hint is None else [hint],
        "versions": versions(),
        "engine": dataclasses.asdict(fitted),
        "layers": [
            layer_figures(layer, fitted, prediction)
            for layer, prediction in zip(program.layers, predictions, strict=True)
        ],
        "metrics": network_metrics(program, fitted, predictions).to_dict(),
    }
    with files.new_folder(out, replace=replace, marker=PROGRAM_FILE) as draft:
        program.save(draft / PROGRAM_FILE)
        copy_as_onnx(network, draft / NETWORK_FILE)
        files.write_json(draft / SUMMARY_FILE, summary)
    work.remove(others=True)
    return summary


def work_folder(out: Paths) -> Path:
    """Folder beside ``out`` in which :func:`compress` keeps what it has finished, while it runs."""
    out = Path(out)
    return out.with_name(f"{out.name}.work")


def settled_workers(workers: int | None, network: FloatNetwork) -> int:
    """Workers for a network, where None asks for what suits it."""
    if workers is not None:
        return workers
    weights = sum(node.weight.size for node in network.nodes if isinstance(node, Matrix))
    return processes.available() if weights > LARGE else 1


def compile_floats(
    floats: FloatNetwork,
    images: NDArray,
    preprocess: Preprocess,
    *,
    scheme: str | None = None,
    settings: Mapping[str, LayerSetting] | None = None,
    source: str = "the calibration images",
    report: Report = silent,
    **options: Any,
) -> api.Program:
    """Quantise a float network with calibration images and compile it: see `refmodel.compress`."""
    return api.compress(
        floats,
        images,
        scheme=scheme,
        settings=settings,
        preprocess=preprocess,
        source=source,
        report=report,
        **options,
    )


def default_scheme(network: Paths) -> str:
    """The scheme that :func:`compress` takes for a network where it is told none."""
    from refmodel.exchange.load import load_network

    return scheme_of(load_network(network))
