"""The folder for an integrator: Verilog, register map, driver, FuseSoC core, README.

The texts depend on the configuration and on the pinned tools alone, as the Verilog does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, resources
from string import Template

from amaranth.lib import data

from prap_hw.common.layouts import Layouts, Space, TileLayouts
from prap_hw.deliver import bench, blackbox
from prap_hw.deliver.load import command_words
from prap_hw.deliver.packets import item_bytes
from prap_hw.deliver.verilog import (
    ACCELERATOR,
    ACCELERATOR_SHELL,
    SHELL,
    TILE_TOP,
    TOP,
    accelerator_shell_verilog,
    accelerator_verilog,
    engine_verilog,
    shell_verilog,
    tile_verilog,
)
from prap_hw.driver.driver import MAJOR
from prap_hw.driver.packets import MAGIC, Kind
from prap_hw.shell import register_map
from prap_hw.shell.core import (
    CoreLimits,
    accelerator_limits,
    configuration_hash,
    configuration_words,
    engine_limits,
)
from prap_hw.shell.host_shell import IDENTITY
from refmodel.config import EngineConfig
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.sizing import accelerator_config_for
from refmodel.program.program import Program

CORE = "prap_pim.core"
"""The FuseSoC core file."""

TESTBENCH = {"accelerator_shell": "prap_testbench", "shell": "prap_engine_testbench"}
"""Modules that an integrator's test bench can begin with, by the part that they instantiate."""

DRIVER = ("__init__.py", "driver.py", "packets.py", "registers.py")
"""Files of the driver, which stand by themselves."""

SPACES = {
    "REGISTER": "layer register, by number",
    "DESCRIPTOR": "gather descriptor",
    "POSITION": "kernel position of a segment",
    "OFFSET": "channel and length of a segment",
    "HEADER": "group header",
    "WORD": "reuse word, step * lanes + lane",
    "TABLE": "address offset of a kernel position",
    "OUTPUT": "bias, multiplier and shift of an output",
    "COMMAND": "word of the sequencer's list",
    "LOOKUP": "code of a table that outputs go through: table * 256 + output",
    "SHARE": "of several engines, which have a share in an output: a bit each",
}
"""Memories that program words of the host are for."""

RESIDENT = 8
"""Layers of the size that an engine holds, for which an accelerator has room unless it is sized for
a program."""

ALIVE = 4
"""Tensors of that size, for which its activation memory has room: as many as a residual block has
at once, and one more."""

LIST_OF_A_LAYER = 128
"""Words of its list for each of these layers: registers, kernel positions, a run."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of what is delivered.

    Attributes
    ----------
    engine
        The engine by itself, and each of a tile.
    network
        Each engine of the accelerator.
    commands
        Words that the accelerator's list may have.
    engines
        Engines of the tile, and of the accelerator.
    """

    engine: EngineConfig
    network: EngineConfig
    commands: int
    engines: int = 1

    @property
    def configurations(self) -> dict[str, dict[str, int]]:
        """Values of the identity registers of the two shells."""
        return {
            "accelerator": configuration_words(
                self.network, engines=self.engines, commands=self.commands
            ),
            "engine": configuration_words(self.engine),
        }


def sizes(engine: EngineConfig, *, program: Program | None = None, engines: int = 1) -> Sizes:
    """Size an accelerator that goes with an engine.

    Parameters
    ----------
    engine
        The engine by itself.
    program
        Program that the accelerator holds as a whole; memories are the next powers of two. None:
        the accelerator has room for :data:`RESIDENT` layers of the size that the engine holds one
        of, in each of its engines, and for :data:`ALIVE` tensors.
    engines
        Engines of the tile, and of the accelerator.

    Raises
    ------
    InputError
        The accelerator cannot run the program, or no engine holds all layers of it.
    """
    if program is not None:
        network = replace(accelerator_config_for(program, engine, engines), trace=engine.trace)
        words = len(command_words(program, network_image(program, network, engines), network))
        commands = 1 << (words - 1).bit_length()
        return Sizes(engine=engine, network=network, commands=commands, engines=engines)
    most = {"crossbars": 1 << 16, "activation_bytes": 1 << 24, "max_params": 1 << 20}
    found = {
        name: RESIDENT * getattr(engine, name)
        for name in ("crossbars", "max_gathers", "max_segments", "max_groups", "max_words")
    }
    found |= {
        "max_params": RESIDENT * engine.params,
        "activation_bytes": ALIVE * engine.activation_bytes,
    }
    found = {name: min(value, most.get(name, 1 << 24)) for name, value in found.items()}
    network = replace(engine, network=True, **found)
    commands = RESIDENT * LIST_OF_A_LAYER
    return Sizes(engine=engine, network=network, commands=commands, engines=engines)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module that is delivered.

    Attributes
    ----------
    key
        Its name within the FuseSoC core.
    module, verilog
        The top module, and its Verilog.
    config
        Sizes of its engines.
    what
        Description of the module, in words.
    box, macro
        With open ports: the black box, and the module that connects the two.
    configuration
        Values of its host shell's identity registers, by name; None for a module without a shell.
    """

    key: str
    module: str
    verilog: str
    config: EngineConfig
    what: str
    box: str
    macro: str
    configuration: dict[str, int] | None = None

    @property
    def ports(self) -> list[tuple[bool, int, str]]:
        """Ports that are no crossbar's: whether each is an input, its bits, its name."""
        found = blackbox.module_ports(self.verilog, self.module)
        return [port for port in found if not port[2].startswith("crossbar__")]

    def macro_verilog(self) -> str:
        """The part with black boxes at its open ports."""
        clocking = {"clock": "aclk", "reset": "core_reset"} if self.configuration else {}
        return blackbox.macro(
            self.config, self.verilog, module=self.module, name=self.macro, box=self.box, **clocking
        )


def parts(given: Sizes, *, open_port: bool = False) -> list[Part]:
    """Write the Verilog of everything; the first part is the one that most will want."""
    engine, network = given.engine, given.network
    commands, engines = given.commands, given.engines
    return [
        Part(
            key="accelerator_shell",
            module=ACCELERATOR_SHELL[open_port],
            verilog=accelerator_shell_verilog(network, commands, engines, open_port=open_port),
            config=network,
            what="the accelerator, which runs a network, behind AXI4-Lite and AXI4-Stream; "
            f"engines: {engines}",
            box=blackbox.NETWORK,
            macro="prap_accelerator_shell_macro",
            configuration=given.configurations["accelerator"],
        ),
        Part(
            key="shell",
            module=SHELL[open_port],
            verilog=shell_verilog(engine, open_port=open_port),
            config=engine,
            what="one engine, which runs a layer, behind the same ports",
            box=blackbox.NAME,
            macro="prap_shell_macro",
            configuration=given.configurations["engine"],
        ),
        Part(
            key="accelerator",
            module=ACCELERATOR[open_port],
            verilog=accelerator_verilog(network, commands, engines, open_port=open_port),
            config=network,
            what="the accelerator alone, with plain streams, for those who bring a shell",
            box=blackbox.NETWORK,
            macro="prap_accelerator_macro",
        ),
        Part(
            key="tile",
            module=TILE_TOP[open_port],
            verilog=tile_verilog(engine, engines, open_port=open_port),
            config=engine,
            what=f"a tile of engines that run a layer, with plain streams; engines: {engines}",
            box=blackbox.NAME,
            macro="prap_tile_macro",
        ),
        Part(
            key="engine",
            module=TOP[open_port],
            verilog=engine_verilog(engine, open_port=open_port),
            config=engine,
            what="the engine alone, with plain streams",
            box=blackbox.NAME,
            macro=blackbox.MACRO,
        ),
    ]


def delivered_files(
    given: Sizes, *, program: Program | None = None, open_port: bool = False
) -> dict[str, str]:
    """Everything: place within the folder to text.

    With the program that the sizes are for, and crossbars of its own, the accelerator comes with a
    bench that runs it and checks itself.
    """
    registers = register_map.load()
    written = parts(given, open_port=open_port)
    found = {f"{part.module}.v": part.verilog for part in written}
    if open_port:
        for part in written:
            found[f"{part.box}.v"] = blackbox.black_box(part.config, name=part.box)
            found[f"{part.macro}.v"] = part.macro_verilog()
    described = {
        name: {**sizes, "config_hash": configuration_hash(sizes)}
        for name, sizes in given.configurations.items()
    }
    for part in written:
        if part.configuration is not None:
            name = TESTBENCH[part.key]
            found[f"{name}.sv"] = _testbench(name, part, part.configuration, open_port=open_port)
    network = program is not None and not open_port
    if network:
        assert program is not None
        found |= bench.network_bench(
            program,
            given.network,
            commands=given.commands,
            engines=given.engines,
            module=written[0].module,
            ports=written[0].ports,
        )
    found |= {
        f"{register_map.NAME}.vlt": _template("amaranth.vlt"),
        CORE: _core_file(written, open_port=open_port, network=network),
        f"{register_map.NAME}.rdl": register_map.source_text(),
        f"{register_map.NAME}_registers.h": register_map.c_text(registers),
        "registers.md": f"# Registers\n\n{register_map.markdown_text(registers)}",
        "configuration.json": json.dumps(described, indent=2) + "\n",
        "README.md": _readme(given, written, open_port=open_port, network=network),
    }
    package = resources.files("prap_hw") / "driver"
    for name in DRIVER:
        found[f"python/prap_driver/{name}"] = (package / name).read_text("utf-8")
    return found


def _top(part: Part, *, open_port: bool) -> str:
    """The module to instantiate."""
    return part.macro if open_port else part.module


def _core_file(written: Sequence[Part], *, open_port: bool, network: bool) -> str:
    filesets, targets = "", ""
    for part in written:
        names = [part.module, *([part.box, part.macro] if open_port else [])]
        files = "".join(f"      - {name}.v\n" for name in names)
        values = {
            "key": part.key,
            "suffix": "" if part is written[0] else f"_{part.key}",
            "top": _top(part, open_port=open_port),
            "files": files.rstrip("\n"),
            "testbench": TESTBENCH.get(part.key, ""),
        }
        filesets += Template(_template("core_rtl.txt")).substitute(values)
        targets += Template(_template("core_lint.txt")).substitute(values)
        if part.configuration is not None:
            filesets += Template(_template("core_testbench.txt")).substitute(values)
            targets += Template(_template("core_sim.txt")).substitute(values)
    if network:
        values = {
            "key": written[0].key,
            "testbench": bench.NAME,
            "data": "".join(
                f"      - {name}: {{file_type: user, copyto: {name}}}\n"
                for name in map(bench.file_of, bench.DATA)
            ).rstrip("\n"),
        }
        filesets += Template(_template("core_network_files.txt")).substitute(values)
        targets += Template(_template("core_network_sim.txt")).substitute(values)
    return Template(_template("core.txt")).substitute(
        version=metadata.version("prap-pim"),
        filesets=filesets.rstrip("\n"),
        targets=targets.rstrip("\n"),
        top=_top(written[0], open_port=open_port),
        key=written[0].key,
        waivers=f"{register_map.NAME}.vlt",
    )


def _testbench(name: str, part: Part, configuration: Mapping[str, int], *, open_port: bool) -> str:
    registers = register_map.load()
    return Template(_template("testbench.txt")).substitute(
        testbench=name,
        top=_top(part, open_port=open_port),
        signals=bench.signals(part.ports),
        connected=bench.connections(part.ports),
        identity_address=f"12'h{registers['IDENTITY'].address:03X}",
        identity=f"32'h{IDENTITY:08X}",
        version_address=f"12'h{registers['VERSION'].address:03X}",
        major=f"16'd{MAJOR}",
        hash_address=f"12'h{registers['CONFIG_HASH'].address:03X}",
        hash=f"32'h{configuration_hash(configuration):08X}",
    )


def _readme(given: Sizes, written: Sequence[Part], *, open_port: bool, network: bool) -> str:
    engine = Layouts(given.engine)
    accelerator = Layouts(given.network)
    if given.engines > 1:
        accelerator = TileLayouts(given.network, given.engines)
    top = written[0]
    ports = "\n".join(
        f"| `{name}` | {'in' if into else 'out'} | {bits} |" for into, bits, name in top.ports
    )
    configurations = given.configurations
    rows = zip(
        configurations["accelerator"].items(), configurations["engine"].values(), strict=True
    )
    words = "\n".join(f"| `{name}` | {one} | {other} |" for (name, one), other in rows)
    word = ", ".join(
        f"{field.offset + field.width - 1}:{field.offset} {name}"
        for name, field in accelerator.load
    )
    limits = accelerator_limits(given.network, given.commands, given.engines)
    of_engine = engine_limits(given.engine)
    spaces = "\n".join(
        f"| {Space[name].value} | `{name}` | {what} | {_depth(limits, name)} "
        f"| {_depth(of_engine, name)} |"
        for name, what in SPACES.items()
        if _depth(limits, name)
    )
    places = dict(engine.cells)
    place = "\n".join(
        f"| `{name}` | {_bits(field)} | {_bits(places[name]) if name in places else ''} |"
        for name, field in accelerator.cells
    )
    files = "\n".join(f"| `{part.module}.v` | {part.what} |" for part in written)
    boxes = "\n".join(
        f"| `{part.macro}.v` | `{part.module}` with `{part.box}` |" for part in written
    )
    macro = _template("macro.txt") if open_port else _template("emulated.txt")
    names = {
        "box": blackbox.NAME,
        "network": blackbox.NETWORK,
        "macro": written[0].macro,
        "boxes": boxes,
    }
    return Template(_template("readme.txt")).substitute(
        version=metadata.version("prap-pim"),
        top=_top(top, open_port=open_port),
        layers=_top(written[1], open_port=open_port),
        files=files,
        testbench=TESTBENCH["accelerator_shell"],
        engine_testbench=TESTBENCH["shell"],
        macro=Template(macro).substitute(names).rstrip("\n"),
        network=_network(written[0]) if network else _template("no_network.txt").rstrip("\n"),
        ports=ports,
        sizes=words,
        spaces=spaces,
        place=place,
        word=word,
        magic=f"0x{MAGIC:04X}",
        program=Kind.PROGRAM.value,
        cells=Kind.CELLS.value,
        activations=Kind.ACTIVATIONS.value,
        word_beats=item_bytes(accelerator.load.size) // 8,
        row_beats=item_bytes(accelerator.cells.size) // 8,
        engine_row_beats=item_bytes(engine.cells.size) // 8,
        network_bytes=given.network.activation_bytes,
        activation_bytes=given.engine.activation_bytes,
    )


def _network(part: Part) -> str:
    """What the README says of the bench with a network."""
    files = ", ".join(f"`{bench.file_of(what)}`" for what in bench.DATA)
    text = Template(_template("network.txt")).substitute(
        testbench=bench.NAME, module=part.module, files=files, images=bench.IMAGES
    )
    return text.rstrip("\n")


def _bits(field: data.Field) -> str:
    return f"{field.offset + field.width - 1}:{field.offset}"


def _depth(limits: CoreLimits, name: str) -> str:
    memory = limits.memories.get(Space[name].value)
    return "" if memory is None else str(memory.depth)


def _template(name: str) -> str:
    return (resources.files("prap_hw") / "deliver" / "templates" / name).read_text("utf-8")
