"""Where ``prap`` begins: what goes wrong is one line from the first moment on."""

import sys
from importlib import util
from pathlib import Path

from refmodel.errors import InputError, missing_extra


def check_sim() -> None:
    """Check that the package ``sim`` is the one that belongs to this ``prap_hw``.

    Its name is a common one; another distribution or a folder of the user's may have it, too.

    Raises
    ------
    InputError
        Another ``sim`` comes first on the path, or there is none.
    """
    expected = Path(__file__).resolve().parents[1] / "sim" / "__init__.py"
    spec = util.find_spec("sim")
    origin = (
        None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()))
    )
    if origin is None or Path(origin).resolve() != expected:
        raise InputError(
            f"expected the package sim of prap-pim at {expected.parent}, found "
            f"{origin or 'none'}: install prap-pim in an environment of its own"
        )


def main() -> None:
    """Be the program ``prap``."""
    try:
        check_sim()
        from prap_hw.app.cli.program import main as verbs

        verbs()
    except KeyboardInterrupt:
        sys.stderr.write("prap: error: interrupted\n")
        sys.exit(130)
    except InputError as problem:
        sys.stderr.write(f"prap: error: {problem}\n")
        sys.exit(2)
    except ModuleNotFoundError as problem:
        missing = missing_extra(problem.name or "")
        if missing is None:
            raise
        sys.stderr.write(f"prap: error: {missing}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
