"""Fine-tuning as a function, for ``prap finetune``: an ONNX file in, a fine-tuned ONNX file out."""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow import Paths, engine, float_accuracy, names_of, versions
from prap_hw.app.workflow.engines import EngineOptions, check_layers
from prap_hw.app.workflow.folders import check_pictures
from refmodel import files
from refmodel.compression.budget import Budget, choose
from refmodel.compression.schemes import LayerSetting
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.augment import augment
from refmodel.network.images import Preprocess, load_images

if TYPE_CHECKING:
    from refmodel.train import Recipe

CHECKPOINT = ".checkpoint"
"""Ending of the file of a run that is under way, beside the one that it writes."""


def require_torch() -> None:
    """Raise InputError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "expected PyTorch for fine-tuning, found none: pip install 'prap-pim[train]'"
        )


def finetune(
    network: Paths,
    data: Paths | Sequence[Paths],
    out: Paths,
    *,
    scheme: str = "prap",
    settings: Mapping[str, LayerSetting] | None = None,
    budget: Budget | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float | None = None,
    layout: str = "auto",
    resize: int | None = None,
    crop: int | None = None,
    config: EngineOptions | EngineConfig | None = None,
    calibration: int = 1024,
    recipe: "Recipe | None" = None,
    test: Paths | Sequence[Paths] | None = None,
    on: str = "auto",
    fresh: bool = False,
    replace: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Fine-tune an ONNX network onto a reuse mapping and write it as ONNX, mapping included.

    Parameters
    ----------
    network
        An ONNX file in floating point.
    data
        Training images with labels, as :func:`refmodel.network.images.load_images` reads them.
    out
        File to write. Beside it, while the run is under way, a checkpoint of every finished epoch:
        the same call goes on with it.
    scheme, settings, budget, mean, std, scale, layout, resize, crop
        As for :func:`prap_hw.app.workflow.compress`.
    config
        The engine: its OUs' rows cut the weights into patterns, the other sizes are those for which
        a budget counts.
    calibration
        Images, the first ones, for the budget and for schemes that learn.
    recipe
        How: :class:`refmodel.train.Recipe`.
    test
        Images with labels on which both networks are measured in the end.
    on
        The device on which PyTorch computes: ``auto``, ``cpu``, ``cuda``, ...
    fresh
        Whether a checkpoint that is there is thrown away.
    replace
        Whether a file ``out`` that is there is replaced.
    report
        Is told of progress.

    Returns
    -------
    dict
        ``network`` and ``sha256`` of its file, ``scheme``, ``data``, the number of ``images``,
        ``recipe``, ``versions``, ``history`` (``loss`` and ``accuracy`` on the changed training
        images, per epoch); with a budget ``budget``, its fields and those of
        :class:`refmodel.compression.budget.Choice`, and the ``engine``; with ``test`` ``accuracy``
        of ``float`` and ``tuned``, shares of 1, on so many ``test_images``.

    Raises
    ------
    InputError
        Bad input, as :func:`refmodel.train.finetune` has it; PyTorch is not installed; ``out`` is
        there already.
    """
    require_torch()
    from refmodel.exchange.load import load_network
    from refmodel.exchange.onnx.export import write_onnx
    from refmodel.train import Recipe
    from refmodel.train import finetune as train
    from refmodel.train.tuning import check

    network, out = Path(network), Path(out)
    if out.exists() and not replace:
        raise InputError(f"expected a new file to write, found one there already: {out}")
    recipe = recipe or Recipe()
    base = engine(config)
    report("read network and images", 0, 1)
    floats = load_network(network)
    check_layers(floats)
    sizes: dict[str, Any] = {"resize": resize, "crop": crop}
    check_pictures(data, **sizes)
    images, labels = _labelled(data, sizes)
    preprocess = Preprocess.for_images(
        images, mean=mean, std=std, scale=scale, layout=layout, **sizes
    )
    preprocess = preprocess.for_input(images, floats.input_shape, source=names_of(data))
    check(floats, images, labels, recipe, scheme)
    measured = None
    if test is not None:
        x, y = _labelled(test, sizes)
        measured = preprocess.apply(x, floats.input_shape, source=names_of(test)), y
    report("read network and images", 1, 1)
    figures: dict[str, Any] = {
        "network": network.name,
        "sha256": hashlib.sha256(network.read_bytes()).hexdigest(),
        "scheme": scheme,
        "data": names_of(data),
        "images": len(images),
        "recipe": dataclasses.asdict(recipe)
        | {"rate": recipe.first_rate, "teacher": recipe.teacher_share},
        "versions": versions("torch"),
    }
    if budget is not None:
        chosen = images[:calibration]
        if recipe.augment is not None:
            chosen = augment(chosen, recipe.augment, layout=preprocess.layout)
        found = choose(
            floats,
            preprocess.apply(chosen, floats.input_shape, source=names_of(data)),
            budget,
            labels=labels[:calibration],
            scheme=scheme,
            settings=settings,
            ou_rows=base.ou_rows,
            config=base,
            progress=report,
        )
        settings = {**(settings or {}), **found.settings}
        figures["budget"] = dataclasses.asdict(budget) | dataclasses.asdict(found)
        figures["engine"] = dataclasses.asdict(base)
    checkpoint = out.with_name(out.name + CHECKPOINT)
    if fresh:
        checkpoint.unlink(missing_ok=True)
    tuned = train(
        floats,
        images,
        labels,
        scheme=scheme,
        settings=settings,
        ou_rows=base.ou_rows,
        preprocess=preprocess,
        recipe=recipe,
        calibration=calibration,
        on=on,
        checkpoint=checkpoint,
        report=report,
    )
    figures["history"] = tuned.history
    if measured is not None:
        inputs, y = measured
        figures["test_images"] = len(y)
        figures["accuracy"] = {
            "float": float_accuracy(floats, inputs, y, report=report),
            "tuned": float_accuracy(tuned.network, inputs, y, report=report),
        }
    with files.new_file(out) as draft:
        write_onnx(tuned.network, draft)
    checkpoint.unlink(missing_ok=True)
    return figures


def _labelled(paths: Paths | Sequence[Paths], sizes: Mapping[str, Any]) -> tuple[NDArray, NDArray]:
    """Images and their labels; InputError where there are none."""
    images, labels = load_images(paths, **sizes)
    if labels is None:
        raise InputError(f"expected images with labels, found none in {names_of(paths)}")
    return images, labels
