"""The first steps of tiers that run layer after layer: check a job, and write the prediction."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from refmodel import files
from refmodel.golden.layer import check_codes
from refmodel.program import sizes
from sim import comparison, record
from sim.job import Job


def prepared(job: Job) -> tuple[Job, dict[str, Any]]:
    """Check codes and layers, and write the prediction into the job's folder.

    Returns
    -------
    The job, with trace ports at its engine and the absolute path of its folder; what
    :func:`sim.comparison.predict` gives.
    """
    program = job.program
    check_codes(job.codes, tuple(program.tensors[program.input]["shape"]), program.input)
    config = dataclasses.replace(job.config, trace=True)
    for layer in program.layers:
        sizes.check_fits(layer, config)
    folder = Path(job.folder).absolute()
    files.make_folder(folder)
    record.forget(folder)
    predicted = comparison.predict(program, config, len(job.codes))
    (folder / "predicted.json").write_text(json.dumps(predicted, indent=1) + "\n")
    return dataclasses.replace(job, config=config, folder=folder), predicted
