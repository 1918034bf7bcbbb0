"""Tools that the machine must have beside Python packages, each with its Debian package.

``make setup`` runs it as a script before there is an environment, so what that needs is standard
library only.
"""

import ctypes.util
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

PROGRAMS = (
    ("perl", "perl", "starts Verilator"),
    ("make", "make", "builds the simulation"),
)
"""Programs that are called by name: name, Debian package, purpose."""

COMPILERS = ("c++", "g++", "clang++")
"""C++ compilers, any one of which will do; ``CXX`` names another."""


def _has_compiler() -> bool:
    # CXX may carry arguments ("ccache g++"): its first word is the program.
    chosen = os.environ.get("CXX", "").split()
    names = chosen[:1] if chosen else COMPILERS
    return any(shutil.which(name) for name in names)


def _has_shared_libpython() -> bool:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = {sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LDLIBRARY")}
    folders = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib", sys.base_prefix]
    shared = [str(name) for name in names if name and not str(name).endswith(".a")]
    if any((Path(str(folder)) / name).exists() for folder in folders if folder for name in shared):
        return True
    return ctypes.util.find_library(f"python{version}") is not None


def missing() -> list[str]:
    """Say what is missing, one phrase each; an empty list where nothing is.

    Returns
    -------
    list of str
        ``NAME (what it does; Debian: apt install PACKAGE)``.
    """
    found = [
        f"{name} ({purpose}; Debian: apt install {package})"
        for name, package, purpose in PROGRAMS
        if shutil.which(name) is None
    ]
    if not _has_compiler():
        found.append("a C++ compiler (builds the simulation; Debian: apt install g++)")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        found.append(f"Python's venv (Debian: apt install python{version}-venv)")
    if not _has_shared_libpython():
        package = f"libpython{version}"
        found.append(f"libpython (cocotb loads it; Debian: apt install {package})")
    return found


def require() -> None:
    """Raise InputError where something is missing, before anything is built."""
    from refmodel.errors import InputError

    gone = missing()
    if gone:
        raise InputError(f"missing {'; '.join(gone)}")


def main() -> int:
    """Print what is missing on stderr; 2 where something is, else 0."""
    gone = missing()
    for phrase in gone:
        print(f"prap: error: missing {phrase}", file=sys.stderr)
    return 2 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
