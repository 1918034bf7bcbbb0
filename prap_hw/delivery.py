"""What an integrator is given beside the engine: shell, register map, driver, FuseSoC core, README.

The texts depend on the configuration and on the pinned tools alone, as the Verilog does.
"""

import json
from importlib import metadata, resources
from string import Template

from prap_hw import blackbox, register_map
from prap_hw.core import configuration_hash, configuration_words
from prap_hw.driver.driver import MAJOR
from prap_hw.driver.packets import MAGIC, Kind
from prap_hw.host_shell import IDENTITY
from prap_hw.layouts import Layouts
from prap_hw.packets import item_bytes
from prap_hw.verilog import SHELL, TOP, shell_verilog
from refmodel.config import EngineConfig

CORE = "prap_pim.core"
"""The FuseSoC core file."""

SHELL_MACRO = "prap_shell_macro"
"""The shell with the crossbar's black box at its port."""

TESTBENCH = "prap_testbench"
"""The module that an integrator's test bench can begin with."""

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
}


def top_module(*, open_port: bool) -> str:
    """The module that an integrator instantiates."""
    return SHELL_MACRO if open_port else SHELL[False]


def shell_files(config: EngineConfig, *, open_port: bool = False) -> dict[str, str]:
    """Everything but the engine's own Verilog: place within the folder to text."""
    registers = register_map.load()
    configuration = configuration_words(config)
    shell = shell_verilog(config, open_port=open_port)
    described = {**configuration, "config_hash": configuration_hash(configuration)}
    found = {f"{SHELL[open_port]}.v": shell}
    if open_port:
        found[f"{SHELL_MACRO}.v"] = blackbox.macro(
            config,
            shell,
            module=SHELL[True],
            name=SHELL_MACRO,
            clock="aclk",
            reset="core_reset",
        )
    found |= {
        f"{TESTBENCH}.sv": _testbench(config, shell, open_port=open_port),
        f"{register_map.NAME}.vlt": (resources.files("sim") / "amaranth.vlt").read_text("utf-8"),
        CORE: _core_file(open_port=open_port),
        f"{register_map.NAME}.rdl": register_map.source_text(),
        f"{register_map.NAME}_registers.h": register_map.c_text(registers),
        "registers.md": f"# Registers\n\n{register_map.markdown_text(registers)}",
        "configuration.json": json.dumps(described, indent=2) + "\n",
        "README.md": _readme(config, shell, open_port=open_port),
    }
    package = resources.files("prap_hw") / "driver"
    for name in DRIVER:
        found[f"python/prap_driver/{name}"] = (package / name).read_text("utf-8")
    return found


def _core_file(*, open_port: bool) -> str:
    rtl = [TOP[open_port], SHELL[open_port]]
    if open_port:
        rtl += [blackbox.NAME, blackbox.MACRO, SHELL_MACRO]
    files = "".join(f"      - {name}.v\n" for name in rtl)
    return Template(_template("core.txt")).substitute(
        version=metadata.version("prap-pim"),
        files=files.rstrip("\n"),
        top=top_module(open_port=open_port),
        testbench=TESTBENCH,
        waivers=f"{register_map.NAME}.vlt",
    )


def _testbench(config: EngineConfig, shell: str, *, open_port: bool) -> str:
    ports = [
        port
        for port in blackbox.module_ports(shell, SHELL[open_port])
        if not port[2].startswith("crossbar__")
    ]
    # The inputs are variables that the test sets, the outputs are wires.
    signals = "".join(
        f"    {'logic' if into else 'wire'} {f'[{bits - 1}:0] ' if bits > 1 else ''}{name}"
        f"{' = 0' if into else ''};\n"
        for into, bits, name in ports
    )
    connected = ",\n".join(f"        .{name}({name})" for _, _, name in ports)
    registers = register_map.load()
    return Template(_template("testbench.txt")).substitute(
        testbench=TESTBENCH,
        top=top_module(open_port=open_port),
        signals=signals.rstrip("\n"),
        connected=connected,
        identity_address=f"12'h{registers['IDENTITY'].address:03X}",
        identity=f"32'h{IDENTITY:08X}",
        version_address=f"12'h{registers['VERSION'].address:03X}",
        major=f"16'd{MAJOR}",
        hash_address=f"12'h{registers['CONFIG_HASH'].address:03X}",
        hash=f"32'h{configuration_hash(configuration_words(config)):08X}",
    )


def _readme(config: EngineConfig, shell: str, *, open_port: bool) -> str:
    layouts = Layouts(config)
    ports = "\n".join(
        f"| `{name}` | {'in' if into else 'out'} | {bits} |"
        for into, bits, name in blackbox.module_ports(shell, SHELL[open_port])
        if not name.startswith("crossbar__")
    )
    sizes = "\n".join(
        f"| `{name}` | {value} |" for name, value in configuration_words(config).items()
    )
    word = ", ".join(
        f"{field.offset + field.width - 1}:{field.offset} {name}" for name, field in layouts.load
    )
    spaces = "\n".join(
        f"| {number} | `{name}` | {what} |" for number, (name, what) in enumerate(SPACES.items())
    )
    place = "\n".join(
        f"| {field.offset + field.width - 1}:{field.offset} | `{name}` |"
        for name, field in layouts.cells
    )
    macro = _template("macro.txt") if open_port else _template("emulated.txt")
    return Template(_template("readme.txt")).substitute(
        version=metadata.version("prap-pim"),
        top=top_module(open_port=open_port),
        shell=SHELL[open_port],
        engine=TOP[open_port],
        testbench=TESTBENCH,
        macro=Template(macro).substitute(box=blackbox.NAME, macro=SHELL_MACRO).rstrip("\n"),
        ports=ports,
        sizes=sizes,
        spaces=spaces,
        place=place,
        word=word,
        magic=f"0x{MAGIC:04X}",
        program=Kind.PROGRAM.value,
        cells=Kind.CELLS.value,
        activations=Kind.ACTIVATIONS.value,
        word_beats=item_bytes(layouts.load.size) // 8,
        row_beats=item_bytes(layouts.cells.size) // 8,
        activation_bytes=config.activation_bytes,
    )


def _template(name: str) -> str:
    return (resources.files("prap_hw") / "delivered" / name).read_text("utf-8")
