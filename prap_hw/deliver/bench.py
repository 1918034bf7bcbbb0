"""A bench that checks itself: a network, images and outputs as memory files, for any simulator.

It stands in the delivered folder of an accelerator that was sized to a network, and needs neither
Python nor cocotb. Images are drawn with a fixed seed; outputs are the golden model's.
"""

from collections.abc import Iterable
from importlib import resources
from string import Template

import numpy as np

from prap_hw.deliver.packets import accelerator_image
from prap_hw.driver.packets import BEAT, MAGIC, Kind
from prap_hw.shell import register_map
from prap_hw.shell.core import configuration_hash, configuration_words
from refmodel import golden
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import predict_network
from refmodel.program.program import Program

NAME = "prap_network_testbench"
"""Module and file of the bench."""

DATA = ("program", "cells", "images", "outputs")
"""What the memory files hold."""

IMAGES = 2
"""Images that the bench runs: the second shows that the first has left nothing behind."""

SEED = 14
"""Of the images."""

Ports = list[tuple[bool, int, str]]


def file_of(what: str) -> str:
    """Name of a memory file."""
    return f"prap_network_{what}.mem"


def checksum(data: bytes) -> int:
    """FNV-1a of 32 bits, as the bench computes it."""
    found = 0x811C9DC5
    for byte in data:
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found


def _lines(data: bytes, size: int) -> str:
    """Words of so many bytes, the first byte lowest, a line of hexadecimal digits each."""
    words: Iterable[int] = (
        int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)
    )
    return "".join(f"{word:0{2 * size}x}\n" for word in words)


def signals(ports: Ports) -> str:
    """Declare a signal for each port: inputs are variables that a bench sets, outputs are wires."""
    return "\n".join(
        f"    {'logic' if into else 'wire'} {f'[{bits - 1}:0] ' if bits > 1 else ''}{port}"
        f"{' = 0' if into else ''};"
        for into, bits, port in ports
    )


def connections(ports: Ports) -> str:
    """Connect each port to the signal of its name."""
    return ",\n".join(f"        .{port}({port})" for _, _, port in ports)


def network_bench(
    program: Program,
    config: EngineConfig,
    *,
    commands: int,
    engines: int,
    module: str,
    ports: Ports,
) -> dict[str, str]:
    """Write the bench and its memory files: name to text.

    Parameters
    ----------
    config, commands, engines
        Sizes of the accelerator.
    module, ports
        Its shell: the name, and whether each port is an input, its bits, its name.
    """
    plan = network_image(program, config, engines)
    image = accelerator_image(program, plan, config, commands=commands)
    predicted = predict_network(plan, program.layers, config)
    shape = program.tensors[program.input]["shape"]
    codes = np.random.default_rng(SEED).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
    found = golden.run_program(program, codes)[program.output]
    data = {
        "program": image.program,
        "cells": image.cells,
        "images": codes.tobytes(),
        "outputs": np.asarray(found, np.uint8).tobytes(),
    }
    registers = register_map.load()
    addresses = {
        "hash": "CONFIG_HASH",
        "control": "CONTROL",
        "status": "STATUS",
        "error": "ERROR",
        "item": "ERROR_ITEM",
        "input": "INPUT_BYTES",
        "output": "OUTPUT_BYTES",
        "cycles": "COUNT_CYCLES",
    }
    values = {
        f"{key}_address": f"12'h{registers[name].address:03X}" for key, name in addresses.items()
    }
    values |= {f"{what}_file": file_of(what) for what in DATA}
    values |= {f"{what}_sum": f"32'h{checksum(data[what]):08X}" for what in DATA}
    configuration = configuration_words(config, engines=engines, commands=commands)
    template = resources.files("prap_hw") / "deliver" / "templates" / "network_testbench.txt"
    text = Template(template.read_text("utf-8")).substitute(
        values,
        about=f"{len(program.layers)} layers, engines: {engines}",
        testbench=NAME,
        module=module,
        top=module,
        signals=signals(ports),
        connected=connections(ports),
        program_beats=len(image.program) // BEAT,
        cell_beats=len(image.cells) // BEAT,
        images=IMAGES,
        image_bytes=image.input_bytes,
        output_bytes=image.output_bytes,
        cycles=predicted.cycles,
        settle=predicted.image,
        hash=f"32'h{configuration_hash(configuration):08X}",
        activations_header=f"32'h{MAGIC | Kind.ACTIVATIONS << 16:08X}",
    )
    return {
        f"{NAME}.sv": text,
        **{file_of(what): _lines(data[what], BEAT if what in DATA[:2] else 1) for what in DATA},
    }
