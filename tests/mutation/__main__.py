"""`make mutate`: mutants of the hardware, and whether its tests notice them."""

import argparse
import hashlib
import json
import queue
import sys
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from tests.mutation.judge import Tree, Verdict, stages
from tests.mutation.mutants import Edit, draw, files

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "mutation"
REASONS = Path(__file__).with_name("reasons.toml")


class Kept:
    """Verdicts in a file, a line of JSON to each.

    A verdict holds for the text of the mutated file and of the tests nearest to it; what else has
    changed since is not looked at, so that a long run outlives small changes.
    """

    def __init__(self, path: Path, *, fresh: bool = False):
        self.path = path
        self.verdicts: dict[str, Verdict] = {}
        if fresh:
            path.unlink(missing_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a run was ended while it wrote
            path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            found = json.loads(line)
            name = found.pop("key")
            self.verdicts[name] = Verdict(**found)

    def add(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        self.verdicts[key] = verdict
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **asdict(verdict)}) + "\n")


def key(edit: Edit, text: str, root: Path = ROOT) -> str:
    """What a verdict is kept under: the edit, its file, and the tests nearest to it."""
    state = hashlib.sha256(text.encode())
    for name in stages(edit, root)[0]:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            state.update(file.read_bytes())
    return f"{edit.start} {edit.name} {state.hexdigest()[:16]}"


def reasons(path: Path = REASONS) -> dict[tuple[str, str, str, str], str]:
    """Return why survivors are equivalent, by file, kind, what stood there, what took its place."""
    with path.open("rb") as file:
        found = tomllib.load(file).get("survivor", [])
    return {
        (each["path"], each["kind"], " ".join(each["old"].split()), each["new"]): each["why"]
        for each in found
    }


def reason(edit: Edit, given: Mapping[tuple[str, str, str, str], str]) -> str | None:
    """Return why a survivor is equivalent, or None."""
    return given.get((edit.path, edit.kind, " ".join(edit.old.split()), " ".join(edit.new.split())))


def table(found: Iterable[tuple[Edit, Verdict]], given: Mapping) -> tuple[list[str], list[str]]:
    """Lines of the table by file, and of the survivors that nothing explains."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    open_ones, lines = [], []
    for edit, verdict in found:
        outcome: str = verdict.outcome
        if outcome == "survived":
            why = reason(edit, given)
            outcome = "equivalent" if why else "survived"
            lines.append(f"{edit.name}: {why or 'NOT EXPLAINED'}")
            if not why:
                open_ones.append(edit.name)
        counts[edit.path][outcome] += 1
    rows = [
        "| file | mutants | killed | equivalent | survived | killed, % |",
        "|---|---|---|---|---|---|",
    ]
    total: dict[str, int] = defaultdict(int)
    for path, here in sorted(counts.items()):
        for name, count in here.items():
            total[name] += count
        rows.append(_row(f"`{path}`", here))
    rows.append(_row("all", total))
    rows += ["", *lines] if lines else []
    left = [f"{total[name]} {name}" for name in ("no change", "no hardware") if total[name]]
    rows += ["", f"Not counted: {' and '.join(left)}."] if left else []
    return rows, open_ones


def _row(name: str, here: Mapping[str, int]) -> str:
    killed, equal, open_ones = (here.get(k, 0) for k in ("killed", "equivalent", "survived"))
    count = killed + equal + open_ones
    share = f"{100 * killed / (killed + open_ones):.1f}" if killed + open_ones else "-"
    return f"| {name} | {count} | {killed} | {equal} | {open_ones} | {share} |"


def run(todo: Iterable[tuple[str, Edit]], kept: Kept, workers: int, until: float) -> None:
    """Try mutants in as many copies of the tree as there are workers, and keep the verdicts."""
    waiting: queue.SimpleQueue[tuple[str, Edit]] = queue.SimpleQueue()
    for item in todo:
        waiting.put(item)
    problems: list[BaseException] = []
    lock = threading.Lock()
    trees = [Tree(ROOT, FOLDER / f"tree-{number}") for number in range(workers)]

    def work(tree: Tree) -> None:
        try:
            while time.monotonic() < until and not problems:
                name, edit = waiting.get_nowait()
                verdict = tree.judge(edit)
                with lock:
                    kept.add(name, verdict)
                    by = f" by {verdict.by}" if verdict.by else ""
                    print(
                        f"mutate: {verdict.outcome}{by}: {edit.name}", file=sys.stderr, flush=True
                    )
        except queue.Empty:
            pass
        except BaseException as problem:  # told of below, in the thread that the user sees
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(tree,), daemon=True) for tree in trees]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        problems.append(KeyboardInterrupt())
        for tree in trees:
            tree.stop()
    if problems:
        raise problems[0]


def main(arguments: list[str] | None = None) -> int:
    """Try what was not tried yet, and print the table; 1 where a survivor is not explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--most", type=int, default=400, help="mutants (400)")
    parser.add_argument("--seed", type=int, default=1, help="the same gives the same (1)")
    parser.add_argument("--only", default="", help="files whose path has this")
    parser.add_argument("--workers", type=int, default=2, help="copies of the tree at work (2)")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin none after so long"
    )
    parser.add_argument("--fresh", action="store_true", help="try again what was tried")
    given = parser.parse_args(arguments)
    texts = files(ROOT)
    mutants = [e for e in draw(texts, given.most, given.seed) if given.only in e.path]
    kept = Kept(FOLDER / "verdicts.jsonl", fresh=given.fresh)
    named = {key(edit, texts[edit.path]): edit for edit in mutants}
    todo = [(name, edit) for name, edit in named.items() if name not in kept.verdicts]
    print(f"mutate: seed {given.seed}, {len(mutants)} mutants, {len(todo)} to try", file=sys.stderr)
    try:
        run(todo, kept, given.workers, time.monotonic() + given.seconds)
    except KeyboardInterrupt:
        print("mutate: interrupted; the same command goes on", file=sys.stderr)
        return 130
    tried = [(edit, kept.verdicts[name]) for name, edit in named.items() if name in kept.verdicts]
    rows, open_ones = table(tried, reasons())
    print("\n".join(rows))
    if len(tried) < len(named):
        print(f"\n{len(named) - len(tried)} of {len(named)} mutants were not tried yet.")
    return 1 if open_ones or len(tried) < len(named) else 0


if __name__ == "__main__":
    sys.exit(main())
