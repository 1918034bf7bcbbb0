"""Run a network through the accelerator's AXI shell with the driver, in a simulation.

    python examples/driver/run.py
    python examples/driver/run.py build/rn20-fused-dict --images FILE.npz --merge-lanes 4 --pauses 0

The driver (`prap_hw/driver`) is what a board would have. It loads the network once, program and
cells; then, to each image, it sends the codes, starts, waits for the interrupt and reads the
logits. `cocotbext-axi` stands at the ports, with pauses on every channel. The logits are compared
with the golden model's.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from prap_hw.driver import Driver, Image


def infer(driver: Driver, image: Image, inputs: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Load a network and run images through it.

    Parameters
    ----------
    inputs
        Codes, uint8 [N, ...]: an image each.

    Returns
    -------
    Outputs, uint8 [N, outputs]; a line to each image.
    """
    outputs, lines = [], []
    began = time.monotonic()
    driver.load(image)
    lines.append(f"loaded in {time.monotonic() - began:.1f} s")
    for number, codes in enumerate(inputs):
        began = time.monotonic()
        outputs.append(np.frombuffer(driver.run(codes.tobytes()), np.uint8))
        cycles = driver.counters()["cycles"]
        lines.append(f"image {number}: {cycles} cycles, {time.monotonic() - began:.1f} s")
    return np.stack(outputs), lines


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run a network through the accelerator's shell.")
    add = parser.add_argument
    add("folder", nargs="?", type=Path, help="what prap compress wrote; else the packaged digits")
    add("--images", type=Path, help="images for it: npz, npy or IDX; the packaged digits have some")
    add("--count", type=int, default=1, help="images to run, from the first (1)")
    add("--pauses", type=float, default=0.2, help="share of the cycles in which a channel pauses")
    add("--preset", default="default", help="sizes of the engine (default)")
    add("--adcs", type=int, help="converters")
    add("--merge-lanes", type=int, help="reuse words merged in a cycle")
    add("--position-lanes", type=int, help="output positions to a read of an index word")
    add("--engines", type=int, default=1, help="engines (1)")
    chosen = parser.parse_args()
    if (chosen.folder is None) != (chosen.images is None):
        parser.error("expected a folder and --images, or neither")
    return chosen


def main() -> int:
    """Make the packets and what should come of them, build the simulation, run this file in it."""
    from prap_hw.app import workflow
    from prap_hw.deliver.load import command_words
    from prap_hw.deliver.packets import accelerator_image
    from refmodel import digits, golden
    from refmodel.exchange.onnx.load import load_onnx
    from refmodel.network.images import Preprocess, load_images
    from refmodel.predict.accelerator.plan import network_image
    from refmodel.predict.accelerator.prediction import predict_network
    from refmodel.predict.accelerator.sizing import accelerator_config_for
    from sim import shell

    chosen = arguments()
    if chosen.folder is None:
        images = digits.digits_images()
        preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
        network = load_onnx(digits.network_path("prap"))
        program = workflow.compile_floats(
            network, images.calibration_x, preprocess, scheme="prap", settings=digits.SETTINGS
        )
        x = preprocess.apply(images.x[: chosen.count], network.input_shape)
        codes = golden.quantise_input(program, x)
    else:
        program = workflow.load_program(chosen.folder)
        x, _ = load_images(chosen.images)
        codes = workflow.input_codes(program, x[: chosen.count], source=str(chosen.images))
    options = {
        "preset": chosen.preset,
        "adcs": chosen.adcs,
        "merge_lanes": chosen.merge_lanes,
        "position_lanes": chosen.position_lanes,
        "ou_rows": program.layers[0].ou_rows,
    }
    config = replace(
        accelerator_config_for(program, workflow.rtl_engine(options), chosen.engines), trace=False
    )
    plan = network_image(program, config, chosen.engines)
    image = accelerator_image(program, plan, config)
    predicted = predict_network(plan, program.layers, config).cycles
    print(f"{len(program.layers)} layers; {predicted} cycles predicted for an image")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "program.bin").write_bytes(image.program)
        (folder / "cells.bin").write_bytes(image.cells)
        np.save(folder / "inputs.npy", codes)
        expected = golden.run_program(program, codes)[program.output]
        np.save(folder / "expected.npy", expected.reshape(len(codes), -1).astype(np.uint8))
        job = {
            "input_bytes": image.input_bytes,
            "output_bytes": image.output_bytes,
            "config_hash": image.config_hash,
        }
        about = {"image": job, "pauses": chosen.pauses, "cycles": predicted}
        (folder / "job.json").write_text(json.dumps(about))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        model = shell.build(config, len(command_words(program, plan, config)), chosen.engines)
        found = shell.run(model, folder, "run")
        result = folder / "result.txt"
        print(result.read_text() if result.exists() else found)
    return 0 if set(found.values()) == {None} else 1


if __name__ == "__main__":
    sys.exit(main())

if "PRAP_JOB" in os.environ:
    import cocotb
    from cocotb.clock import Clock
    from cocotb.task import bridge

    from sim.benches.shell_ports import CocotbTransport, Ports

    @cocotb.test()
    async def the_network_runs(dut) -> None:
        """Run in the simulator: the clock, the ports, and the driver as a thread."""
        folder = Path(os.environ["PRAP_JOB"])
        job = json.loads((folder / "job.json").read_text())
        image = Image(
            program=(folder / "program.bin").read_bytes(),
            cells=(folder / "cells.bin").read_bytes(),
            **job["image"],
        )
        inputs, expected = np.load(folder / "inputs.npy"), np.load(folder / "expected.npy")
        # A run that is held up takes longer than was predicted; one of twice the time hangs.
        timeout = 2 * job["cycles"] / CocotbTransport.CYCLES
        Clock(dut.aclk, 2, unit="ns", impl="gpi").start()
        ports = Ports(dut)
        await ports.reset()
        ports.pause(job["pauses"], seed=1)

        def host() -> tuple[np.ndarray, list[str]]:
            return infer(Driver(CocotbTransport(ports), timeout=timeout), image, inputs)

        logits, lines = await bridge(host)()
        different = int((logits != expected).sum())
        lines += [f"logits: {row.tolist()}" for row in logits]
        lines.append(f"{different} differences from the golden model")
        lines.append(f"{int(dut.cycle.value)} cycles with all loads")
        (folder / "result.txt").write_text("\n".join(lines))
        assert not different
        assert not ports.broken()
