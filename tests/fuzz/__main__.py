"""``python -m tests.fuzz``: damaged files for some minutes, in processes with limits.

A finding is an exception other than InputError, a message that is not one line, more than ten
seconds of processor time for one file, more than 2 GB of memory (also where that is caught), or
the end of the process. Findings are told apart by exception and place; the smallest file of each
is kept in ``build/fuzz``, with the traceback beside it. The exit code is 1 if there are any.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 10
"""Processor time that one file may take."""

MEMORY = 2 << 30
"""Bytes of address space of a process that reads files."""

STALE = 60
"""Seconds without a file after which a process is taken to hang outside Python."""

SLICE = 30
"""Seconds that one process lives, so that the kinds of files take turns."""

TURNS = (
    *("network", "tflite", "program", "picture", "network", "images"),
    *("tflite", "network", "preprocess", "program"),
)


class Hang(BaseException):
    """The processor time of one file is over; what is on trial must not catch it."""


class _Over(BaseException):
    """The time of this process is over."""


def _worker(kind: str, seed: int, seconds: float, files: int, folder: Path) -> None:
    """Read damaged files of a kind; write counts and findings into ``folder``."""
    import hypothesis
    import hypothesis.errors
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.fuzz.damage import File
    from tests.fuzz.judge import NAMES, judge
    from tests.fuzz.readers import STRATEGIES, make_corpus

    def alarm(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS} s")

    folder.mkdir(parents=True, exist_ok=True)
    path, stats = folder / NAMES[kind], folder / "stats.json"
    written = 0.0
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    # The corpus is made before memory is limited.
    make_corpus()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, alarm)

    def read(file: File) -> None:
        if time.monotonic() > end or (files and counts.total() >= files):
            raise _Over
        path.write_bytes(file.content)
        try:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                counts[judge(kind, path)] += 1
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except (Exception, Hang) as error:
            counts["findings"] += 1
            _keep(folder.parent / "findings", kind, error, file.content)
        nonlocal written
        if time.monotonic() - written > 0.5:
            stats.write_text(json.dumps(counts))
            written = time.monotonic()

    number = seed
    try:
        while True:
            run = given(STRATEGIES[kind])(read)
            run = settings(
                max_examples=1000,
                phases=[Phase.generate],
                database=None,
                deadline=None,
                derandomize=False,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )(run)
            hypothesis.seed(number)(run)()
            number += 1_000_003
    except (_Over, hypothesis.errors.HypothesisException):
        # What ends a run in the middle, hypothesis may take for a strategy that is not repeatable.
        if time.monotonic() <= end and not files:
            raise
        stats.write_text(json.dumps(counts))


def _keep(folder: Path, kind: str, error: BaseException, content: bytes) -> None:
    """Keep a file unless a smaller one of the same finding is there."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "fuzz" not in frame.filename
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    ours = [frame for frame in frames if "refmodel" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    text = f"{type(error).__name__} in {place}, called from {where}"
    if type(error).__name__ == "MisbehaviourError":
        text = f"{type(error).__name__}: {str(error)[:60]}"
    name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{name}.bin"
    if kept.exists() and kept.stat().st_size <= len(content):
        return
    kept.write_bytes(content)
    trace = "".join(traceback.format_exception(error))
    (folder / f"{name}.txt").write_text(f"{text}\n\n{trace[-6000:]}")


def _slice(kind: str, seed: int, seconds: float, files: int, folder: Path) -> Counter[str]:
    """Run one process, watch it, and give what it counted."""
    command = [sys.executable, "-m", "tests.fuzz", "--worker", kind, "--seed", str(seed)]
    command += ["--seconds", f"{seconds:.0f}", "--out", str(folder)]
    command += ["--files", str(files)]
    # One thread: each takes address space, which is what is limited.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        while process.poll() is None:
            time.sleep(0.2)
            stats = folder / "stats.json"
            last = stats.stat().st_mtime if stats.exists() else time.time()
            late = time.monotonic() - began > seconds + STALE
            if time.time() - last > STALE or late:
                process.kill()
                process.wait()
    stats = folder / "stats.json"
    counts = Counter(json.loads(stats.read_text() or "{}") if stats.exists() else {})
    if process.returncode:
        counts["findings"] += 1
        said = (folder.parent / f"{folder.name}.log").read_text()[-3000:]
        kept = [path for path in folder.iterdir() if path.name != "stats.json"]
        content = kept[0].read_bytes() if kept else b""
        problem = RuntimeError(f"the process ended with {process.returncode}: {said}")
        _keep(folder.parent / "findings", f"{kind}-died", problem, content)
    return counts


def fuzz(
    seconds: float,
    workers: int,
    seed: int,
    out: Path,
    files: int = 0,
    kinds: tuple[str, ...] = TURNS,
) -> int:
    """Fuzz in several processes; print the counts and give the exit code."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    print(f"fuzz: seed {seed}, {seconds:.0f} s, {workers} processes", flush=True)
    end = time.monotonic() + seconds
    order = iter(sorted(set(kinds))) if files else cycle(kinds)
    turns, totals, lock = order, dict[str, Counter[str]](), threading.Lock()
    numbers = iter(range(1 << 30))

    def work() -> None:
        while (left := end - time.monotonic()) > 3:
            with lock:
                kind, number = next(turns, None), next(numbers)
            if kind is None:
                return
            part = left if files else min(SLICE, left, max(5, seconds / len(kinds)))
            counts = _slice(kind, seed * 1_000_000 + number, part, files, out / f"slice{number}")
            with lock:
                totals.setdefault(kind, Counter()).update(counts)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for kind, counts in sorted(totals.items()):
        tried = counts.total()
        print(
            f"fuzz: {kind}: {tried:,} files, {counts['refused']:,} refused, "
            f"{counts['accepted']:,} accepted, {counts['findings']:,} findings"
        )
    found = sorted((out / "findings").glob("*.txt"))
    for path in found:
        print(f"fuzz: finding: {path.read_text().splitlines()[0]} ({path.with_suffix('.bin')})")
    total = sum((counts for counts in totals.values()), Counter())
    print(f"fuzz: {total.total():,} files, {len(found)} different findings")
    return 1 if found or total["findings"] or not total.total() else 0


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="wall time (300)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--seed", type=int, default=0, help="0 takes one from the clock")
    parser.add_argument("--files", type=int, default=0, help="so many of each kind, once (0: all)")
    parser.add_argument("--kinds", help=f"of {', '.join(sorted(set(TURNS)))}, with commas (all)")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given: Any = parser.parse_args(arguments)
    if given.worker:
        _worker(given.worker, given.seed, given.seconds, given.files, given.out)
        return 0
    seed = given.seed or int(time.time()) % 100_000
    kinds = tuple(given.kinds.split(",")) if given.kinds else TURNS
    if not set(kinds) <= set(TURNS):
        parser.error(f"expected kinds out of {', '.join(sorted(set(TURNS)))}, found {given.kinds}")
    return fuzz(given.seconds, given.workers, seed, given.out, given.files, kinds)


if __name__ == "__main__":
    sys.exit(main())
