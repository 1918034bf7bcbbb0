"""The demo: the whole path on the packaged network of handwritten digits, and a report of it."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

from prap_hw.app import pricing, workflow
from prap_hw.app.console import Report, silent
from refmodel import digits, files, golden
from refmodel.config import EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.images import Preprocess
from refmodel.program import sizes
from refmodel.program.program import Program
from refmodel.program.steps import STEPS
from sim.job import Job

ENGINE = EngineConfig(adcs=8)
"""The engine of the demo, before it is sized to the network."""

REPORT_FILE, FIGURES_FILE = "report.html", "demo.json"

TRAINING_SEED = 2023
"""Arguments that ``examples/digits/train.py`` was run with: split, weights, order and shifts."""

NOTE = (
    "Float is the network as it was trained; prap is the same network, fine-tuned with the "
    "published regulariser and then mapped. All held-out images are counted, and none was seen by "
    "training, fine-tuning or calibration."
)


def run_demo(
    out: Path | str = "build/demo",
    *,
    count: int = 5,
    plant: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Run the demo and write its results.

    Parameters
    ----------
    out
        Folder for ``report.html``, ``demo.json``, ``predicted.json`` (written before the
        simulation starts), the compiled programs, Verilog and simulation.
    count
        Held-out images that go through the hardware.
    plant
        A fault to plant (``code``, ``shift`` or ``index``), to see that the comparison finds it.
    report
        Is told of progress.

    Returns
    -------
    dict
        The figures that ``demo.json`` holds. :func:`prap_hw.app.workflow.faults` says whether all
        is well.
    """
    from prap_hw.app.report.page import write_report
    from sim.builds import verilator

    began = time.monotonic()
    out = Path(out)
    for stale in (REPORT_FILE, FIGURES_FILE):  # a run that fails leaves none of an earlier one
        with contextlib.suppress(OSError):
            (out / stale).unlink()
    images = digits.digits_images()
    preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")

    trained = load_onnx(digits.network_path("float"))
    dense = workflow.compile_floats(
        trained, images.calibration_x, preprocess, scheme="dense", report=report
    )
    program = workflow.compile_floats(
        load_onnx(digits.network_path("prap")),
        images.calibration_x,
        preprocess,
        scheme="prap",
        settings=digits.SETTINGS,
        report=report,
    )
    config = sizes.engine_config_for(program.layers, ENGINE)
    _save(program, out / "prap.prap")
    _save(dense, out / "dense.prap")

    inputs = preprocess.apply(images.x, trained.input_shape)
    accuracy = {
        "float": workflow.float_accuracy(trained, inputs, images.y, report=report),
        "int8": workflow.program_accuracy(
            dense, inputs, images.y, stage="evaluate in 8 bits (dense)", report=report
        ),
        "prap": workflow.program_accuracy(
            program, inputs, images.y, stage="evaluate in 8 bits (prap)", report=report
        ),
    }

    # Predictions are on disk before the simulator is even built.
    predictions = workflow.predict(program, config, report=report)
    predicted = [
        workflow.layer_figures(layer, config, prediction)
        for layer, prediction in zip(program.layers, predictions, strict=True)
    ]
    files.write_json(out / "predicted.json", {"layers": predicted})
    # The very text that is simulated, with its trace ports.
    workflow.write_verilog(out / "verilog", config, trace=True, report=report)

    codes = golden.quantise_input(program, inputs[:count])
    job = Job(
        program=program,
        codes=codes,
        config=config,
        folder=out / "sim",
        fresh=True,
        plant=plant,
        progress=report,
    )
    simulated = workflow.simulate(job, predictions)
    figures = {
        "images": len(images.y),
        "accuracy": accuracy,
        "compared": simulated["compared"],
        "differences": simulated["differences"],
        "answers": simulated["answers"],
        "layers": simulated["layers"],
        "total": simulated["total"],
        "images_simulated": count,
        "command": "prap demo" + (f" --plant {plant}" if plant else ""),
        "versions": workflow.versions() | {"verilator": verilator.find().version},
        "seeds": {"split and training": TRAINING_SEED},
        "config": dataclasses.asdict(config),
        "costs": pricing.cost_figures(program, config),
        "host_ops": host_ops(program),
        "notes": [NOTE],
        "seconds": round(time.monotonic() - began, 1),
    }
    report("write the report", 0, 1)
    samples = [
        {"pixels": pixels, "label": int(label), "answer": answer}
        for pixels, label, answer in zip(
            images.x, images.y, simulated["answers"] or [], strict=False
        )
    ]
    write_report(
        out / REPORT_FILE,
        figures,
        program.layers,
        config,
        title="PRAP-PIM demo",
        samples=samples,
    )
    files.write_json(out / FIGURES_FILE, figures)
    report("write the report", 1, 1)
    return figures


def host_ops(program: Program) -> str:
    """Name what is computed outside the hardware."""
    used = {step.op for step in program.steps}
    found = [kind.words for op, kind in STEPS.items() if op in used]
    return ", ".join(found) + " between layers (golden model)" if found else "nothing"


def _save(program: Program, path: Path) -> None:
    with files.new_file(path) as draft:
        program.save(draft)
