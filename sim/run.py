"""A job through its tier, and what is told of it."""

from sim import bulk, network, protocol, waves
from sim.job import Job
from sim.network import NetworkResult
from sim.results import CosimResult, shown


def run_layers(job: Job) -> CosimResult:
    """Simulate a job of a tier that runs an engine, layer after layer."""
    if job.window is not None or job.record_difference:
        waves.require()  # before anything is built
    return bulk.simulate(job) if job.tier == "bulk" else protocol.simulate(job)


def run_network(job: Job) -> NetworkResult:
    """Simulate a job of the tier that runs the accelerator."""
    return network.simulate(job)


def lines(result: CosimResult) -> list[str]:
    """Say in a line what the first difference is, with its waveform and what was planted."""
    if result.difference is None:
        return []
    line = str(result.difference)
    if result.waveform is not None:
        line += f" (waveform: {shown(result.waveform)})"
    if result.planted:
        line += f" [planted: {result.planted}]"
    return [line]
