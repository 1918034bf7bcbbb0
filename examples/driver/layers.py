"""Run the digits network through the shell of one engine, layer by layer, in a simulation.

    python examples/driver/layers.py

For hardware that is an engine and no accelerator (run.py): the driver loads each layer's program
and cells, starts, waits for the interrupt and reads the outputs. The steps between two layers are
the host's; here the golden model computes them. The logits are compared with the golden model's.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from prap_hw.deliver.load import padded_input
from prap_hw.deliver.packets import engine_image
from prap_hw.driver import Driver
from refmodel import digits, golden
from refmodel.config import SMALL, EngineConfig
from refmodel.exchange.onnx.load import load_onnx
from refmodel.network.images import Preprocess
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program

PAUSES = 0.2
"""Share of the cycles in which a channel pauses."""


def infer(
    driver: Driver, program: Program, config: EngineConfig, codes: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Give the logits of input codes [N, H, W, C], the layers computed by the hardware.

    The second value is a line to each layer.
    """
    lines = []

    def layer_on_hardware(layer: LayerProgram, inputs: np.ndarray) -> np.ndarray:
        driver.load(engine_image(layer, config))
        outputs = []
        for image in inputs:
            found = driver.run(padded_input(layer, image).tobytes())
            outputs.append(np.frombuffer(found, np.uint8).reshape(layer.out_shape))
        lines.append(f"{layer.name}: {driver.counters()['cycles']} cycles")
        return np.stack(outputs)

    tensors = golden.run_program(program, codes, layer_fn=layer_on_hardware)
    return tensors[program.output], lines


def main() -> int:
    """Make the network, build the simulation, and run this file in it."""
    from prap_hw.app import workflow
    from sim import shell

    images = digits.digits_images()
    preprocess = Preprocess(scale=digits.PIXEL_SCALE, layout="nhw")
    network = load_onnx(digits.network_path("prap"))
    program = workflow.compile_floats(
        network, images.calibration_x, preprocess, scheme="prap", settings=digits.SETTINGS
    )
    config = sizes.engine_config_for(program.layers, SMALL)
    codes = golden.quantise_input(program, preprocess.apply(images.x[:1], network.input_shape))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        program.save(folder / "program.prap")
        np.save(folder / "codes.npy", codes)
        values = {name: getattr(config, name) for name in config.__dataclass_fields__}
        (folder / "job.json").write_text(json.dumps({**values, "trace": False}))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        found = shell.run(shell.build(EngineConfig(**{**values, "trace": False})), folder, "layers")
        print((folder / "result.txt").read_text() if (folder / "result.txt").exists() else found)
    return 0 if set(found.values()) == {None} else 1


if __name__ == "__main__":
    sys.exit(main())

if "PRAP_JOB" in os.environ:
    import cocotb
    from cocotb.clock import Clock
    from cocotb.task import bridge

    from sim.benches.shell_ports import CocotbTransport, Ports

    @cocotb.test(timeout_time=1, timeout_unit="sec")
    async def the_network_runs(dut) -> None:
        """Run in the simulator: the clock, the ports, and the driver as a thread."""
        folder = Path(os.environ["PRAP_JOB"])
        config = EngineConfig(**json.loads((folder / "job.json").read_text()))
        program = Program.load(folder / "program.prap")
        codes = np.load(folder / "codes.npy")
        Clock(dut.aclk, 2, unit="ns", impl="gpi").start()
        ports = Ports(dut)
        await ports.reset()
        ports.pause(PAUSES, seed=1)

        def host() -> tuple[np.ndarray, list[str]]:
            return infer(Driver(CocotbTransport(ports)), program, config, codes)

        logits, lines = await bridge(host)()
        expected = golden.run_program(program, codes)[program.output]
        different = int((logits != expected).sum())
        lines.append(f"logits: {logits.ravel().tolist()}")
        lines.append(f"{different} differences from the golden model")
        lines.append(f"{int(dut.cycle.value)} cycles with all loads")
        (folder / "result.txt").write_text("\n".join(lines))
        assert not different
        assert not ports.broken()
