"""The program ``prap``: its verbs in order, and what becomes of what they raise."""

import os
import sys
from importlib import metadata
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from prap_hw.app import console
from prap_hw.app.cli.options import Command, Debug, Verb
from prap_hw.app.cli.outcome import BAD_INPUT, INTERRUPTED, OUR_FAULT, Debugging
from prap_hw.app.cli.verbs import (
    compare,
    compress,
    cosim,
    demo,
    devices,
    finetune,
    fpga,
    golden_cases,
    hardware,
    headline,
    measure,
    price,
    report,
    sweep,
)
from refmodel.errors import InputError, missing_extra

VERBS: tuple[Verb, ...] = (
    demo.demo,
    compress.compress,
    finetune.finetune,
    measure.inspect,
    measure.evaluate,
    devices.effects,
    devices.ranges,
    price.price,
    report.report,
    compare.compare,
    sweep.sweep,
    cosim.cosim,
    hardware.verilog,
    hardware.area,
    fpga.fpga,
    fpga.board,
    headline.headline,
    golden_cases.golden,
)
"""All verbs, in the order of the help."""

app = typer.Typer(
    name="prap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 differences found, 2 bad input or usage, 3 a fault of prap,"
    " 130 interrupted.",
)


def _show_version(value: bool) -> None:
    if value:
        print(f"prap {metadata.version('prap-pim')}")
        raise Exit(0)


@app.callback()
def _top(
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """From a trained network to verified RTL of a ReRAM accelerator with weight pattern reuse."""


for _verb in VERBS:
    app.command(_verb.name, cls=Command, epilog=_verb.epilog)(_verb.function)


def _call(arguments: list[str] | None) -> object:
    """Run a verb; where it lacks a package, name the extra that brings it."""
    try:
        return app(args=arguments, prog_name="prap", standalone_mode=False)
    except ModuleNotFoundError as problem:
        raise missing_extra(problem.name or "") or problem from problem


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        Arguments behind ``prap``; those of this process by default.

    Returns
    -------
    int
        The exit code.
    """
    Debugging.reset()
    try:
        result = _call(arguments)
        sys.stdout.flush()
    except InputError as problem:
        Debugging.trace()
        console.error(str(problem))
        return BAD_INPUT
    except TyperException as problem:
        Debugging.trace()
        message = problem.format_message()
        if message:  # prap alone shows the help, which needs no error below it
            console.error(message)
        return BAD_INPUT
    except (KeyboardInterrupt, Abort):
        Debugging.trace()
        console.error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (prap ... | head): end quietly, as typer does within a verb.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        Debugging.trace()
        first = (str(problem).splitlines() or [""])[0]
        hint = "" if Debugging.on else "; --debug shows where"
        console.error(f"a fault of prap, {type(problem).__name__}: {first}{hint}")
        return OUR_FAULT
    if result == INTERRUPTED:
        console.error("interrupted")
    return result if isinstance(result, int) else 0


def main() -> None:
    """Be the program ``prap``."""
    # The matrix products here are small: two threads gain little, and where another process has the
    # second core they wait for each other, at a fifth of the speed. Numpy is not loaded yet.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run())
