"""`make formal`: proves every row of the table, and rejects every mutant."""

import argparse
import sys

import pytest

from refmodel.errors import InputError
from tests.formal.prove import Verdict, prove, tools
from tests.formal.table import ROWS, Row
from tests.support.rtl.mutants import Mutant, apply


def verdict(row: Row) -> Verdict:
    """Prove a row."""
    spec = row.spec()
    return prove(spec, spec.inputs, depth=row.depth, induction=row.proved)


def rejected(row: Row) -> list[tuple[str, bool]]:
    """Try each mutant of a row: what it is, and whether it breaks the specification from reset."""
    found = []
    for what, old, new in row.mutants:
        with pytest.MonkeyPatch.context() as patch:
            apply(patch, Mutant(row.module.rpartition(".")[2], what, ((old, new),), ""))
            spec = row.spec()
            done = prove(spec, spec.inputs, depth=row.within, induction=False)
        found.append((what, not done.holds))
    return found


def main() -> int:
    """Print the table; 1 where something was not proved, or a mutant not rejected."""
    parser = argparse.ArgumentParser(prog="python -m tests.formal", description=__doc__)
    parser.add_argument("--only", default="", help="components whose name has this")
    only = parser.parse_args().only
    try:
        tools()
    except InputError as error:
        print(f"formal: error: {error}", file=sys.stderr)
        return 2
    wrong = 0
    print("| component | property | method | seconds | mutants rejected |")
    print("|---|---|---|---|---|")
    for row in ROWS:
        if only not in row.module:
            continue
        done = verdict(row)
        good = done.holds and done.proved == row.proved
        mutants = rejected(row)
        method = f"induction, {row.depth}" if row.proved else f"{row.depth} cycles from reset"
        result = method if good else "NOT PROVED"
        caught = "; ".join(what if found else f"SURVIVED: {what}" for what, found in mutants)
        cells = (f"`{row.module}`", row.what, result, f"{done.seconds:.1f}", caught)
        print(f"| {' | '.join(cells)} |", flush=True)
        wrong += not good or not all(found for _, found in mutants)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
