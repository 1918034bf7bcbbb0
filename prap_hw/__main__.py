"""Where ``prap`` begins: an interruption is one line from the first moment on."""

import sys


def main() -> None:
    """Be the program ``prap``."""
    try:
        from prap_hw.app.cli.program import main as verbs

        verbs()
    except KeyboardInterrupt:
        sys.stderr.write("prap: error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
