"""The page of a folder that `prap compress` wrote: all that is known of its network."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prap_hw.app import pricing, workflow
from prap_hw.app.console import Report, silent
from prap_hw.app.report.page import write_report
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.images import Preprocess, load_images

COSIM_FILE = "cosim.json"
"""Figures of `prap cosim --json`, taken where they lie in the folder."""

ACCURACY_FILE = "accuracy.json"
"""Figures of `prap evaluate --json`, likewise."""

MOST_SAMPLES = 10


def report_folder(
    folder: workflow.Paths,
    out: workflow.Paths,
    *,
    images: workflow.Paths | Sequence[workflow.Paths] | None = None,
    limit: int | None = None,
    device: workflow.Paths | Sequence[workflow.Paths] = (),
    trials: int | None = None,
    accuracy: workflow.Paths | None = None,
    cosim: workflow.Paths | None = None,
    technology: workflow.Paths | None = pricing.DEFAULT_TECHNOLOGY,
    config: workflow.EngineOptions | EngineConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Write the report of a compressed network.

    Parameters
    ----------
    folder
        A folder that `prap compress` wrote.
    out
        The HTML file to write.
    images
        Labelled images; the accuracy is measured on them.
    limit
        Images used at most.
    device, trials
        Device files or names of packaged ones, and chips drawn of each, for the accuracy; see
        :func:`prap_hw.app.workflow.evaluate`.
    accuracy
        Figures of `prap evaluate --json` instead of ``images``; None: ``accuracy.json`` in the
        folder, where it is there.
    cosim
        Figures of `prap cosim --json`; None: ``cosim.json`` in the folder, where it is there.
    technology
        Technology file or name of a packaged one, by which costs are worked out; None: no costs.
    config
        The engine; what is not chosen is as in the one that the folder was compressed for.
    report
        Is told of progress.

    Returns
    -------
    dict
        The figures of the page; see :func:`prap_hw.app.report.page.render_report`.
    """
    folder, out = workflow.folder_of(folder), Path(out)
    program = workflow.load_program(folder)
    summary = workflow.summary_of(folder)
    fitted = workflow.folder_engine(folder, program, config)
    predictions = workflow.predict(program, fitted, report=report)
    layers = [
        workflow.layer_figures(layer, fitted, prediction)
        for layer, prediction in zip(program.layers, predictions, strict=True)
    ]
    scheme = str(program.about.get("scheme", "dense"))
    name = str(summary.get("network", folder.name))
    weights = sum(layer.patterns for layer in program.layers)
    count = len(layers)
    figures: dict[str, Any] = {
        "layers": layers,
        "lead": f"{name}, scheme {scheme}: {count} layer{'s' if count > 1 else ''}, "
        f"{weights:,} weight patterns, {sum(layer['ous'] for layer in layers):,} OUs.",
        "versions": workflow.versions(),
        "config": dataclasses.asdict(fitted),
        "notes": _notes(summary),
    }
    if images is not None:
        figures |= workflow.evaluate(
            folder, images, limit=limit, device=device, trials=trials, config=fitted, report=report
        )
    else:
        found = _json_of(accuracy, folder / ACCURACY_FILE, ("images",))
        if found and "snr" not in found:
            found = _json_of(accuracy, folder / ACCURACY_FILE, ("images", "accuracy"))
        kept = ("images", "accuracy", "snr", "devices")
        figures |= {key: found[key] for key in kept if key in found}
    samples: list[dict[str, Any]] = []
    simulated = _json_of(cosim, folder / COSIM_FILE, ("compared", "layers"))
    if simulated:
        figures |= _simulated(simulated, layers, str(cosim or folder / COSIM_FILE))
        sizes = Preprocess.from_dict(program.preprocess).sizes
        samples = _samples(images, simulated, sizes)
    if technology is not None:
        figures["costs"] = pricing.cost_figures(program, fitted, technology)
    report("write the report", 0, 1)
    write_report(out, figures, program.layers, fitted, title=f"PRAP-PIM: {name}", samples=samples)
    report("write the report", 1, 1)
    return figures


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about how the network was compressed."""
    calibration = summary.get("calibration")
    if not isinstance(calibration, Mapping):
        return []
    text = (
        f"Calibrated with {calibration['images']} images of {calibration['file']}; ranges of "
        f"activations: {calibration['activations']}; a weight scale to each "
        f"{'output' if calibration['weights'] == 'channel' else 'layer'}; moments "
        f"{'matched' if calibration.get('moments') else 'not matched'} after mapping."
    )
    carried = summary.get("carried") or []
    return [text] + (
        [f"{len(carried)} layers have the mapping that they were fine-tuned for."]
        if carried
        else []
    )


def _json_of(given: workflow.Paths | None, beside: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Figures of a file that was named, or lies in the folder; nothing where there is neither."""
    path = Path(given) if given is not None else beside
    if given is None and not path.is_file():
        return {}
    found = workflow.json_object(path)
    missing = [key for key in keys if key not in found]
    if missing:
        raise InputError(
            f"expected figures with {' and '.join(keys)}, found no {missing[0]} in {path}"
        )
    return found


def _simulated(
    found: Mapping[str, Any], layers: list[dict[str, Any]], place: str
) -> dict[str, Any]:
    """Put the figures of a co-simulation beside those of the layers."""
    theirs = list(found["layers"])
    if "sample" in found:  # of some positions: the whole layers were predicted beside it
        predicted = {layer["name"]: layer["cycles_predicted"] for layer in layers}
        for layer in found["sample"]["layers"]:
            if predicted.get(layer["name"]) != layer["cycles"]:
                raise InputError(
                    f"expected a co-simulation of this network and engine, found "
                    f"{layer['cycles']:,} cycles predicted for {layer['name']} in {place}"
                )
        theirs = []
    if theirs:  # tier network has figures of the whole network alone
        ours = [(layer["name"], layer["cycles_predicted"]) for layer in layers]
        for layer, (name, cycles) in zip(theirs, ours, strict=False):
            if (layer["name"], layer["cycles_predicted"]) != (name, cycles):
                raise InputError(
                    f"expected a co-simulation of this network and engine, with {cycles:,} cycles "
                    f"predicted for layer {name}, found {layer['cycles_predicted']:,} for "
                    f"{layer['name']} in {place}"
                )
        for ours_of, layer in zip(layers, theirs, strict=False):
            ours_of |= {k: layer[k] for k in ("cycles_simulated", "stalls") if k in layer}
    return {key: found[key] for key in ("compared", "differences") if key in found}


def _samples(
    images: workflow.Paths | Sequence[workflow.Paths] | None,
    found: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Images that went through the hardware, where they are pictures."""
    answers = found.get("answers") or []
    if images is None or not answers:
        return []
    x, y = load_images(images, **sizes)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (3, 4)):
        return []
    return [
        {"pixels": x[i], "label": None if y is None else int(y[i]), "answer": answer}
        for i, answer in enumerate(answers[: min(len(x), MOST_SAMPLES)])
        if answer is not None and np.issubdtype(x.dtype, np.integer)
    ]
