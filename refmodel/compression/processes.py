"""Tasks in processes of their own, forked, so that they find their arrays where they are.

A forked process shares what is in memory and sends its result through a pipe. Where processes
cannot be forked, or there is one worker, tasks run where they are. Results do not depend on the
number of workers.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Self

MOST_SIZE = 1 << 25
"""Sizes of tasks (weights, say) that run beside each other, at most; a larger one runs alone."""


def available() -> int:
    """Processors that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def can_fork() -> bool:
    """Whether processes can be forked safely: on Linux."""
    return hasattr(os, "fork") and os.uname().sysname == "Linux"


class Tasks:
    """Runs tasks, up to ``workers`` of them at a time; a context, left when all are done.

    An exception of a task is raised where the next one is added, or at the end; what still runs is
    ended then.

    Parameters
    ----------
    workers
        Processes; 1: tasks run at once, in this one.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers if can_fork() else 1
        self._live: dict[Any, tuple[Any, int, Callable[[Any], None]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            while kind is None and self._live:
                self._take()
        finally:
            for process, *_ in self._live.values():
                process.terminate()
            for connection, (process, *_) in self._live.items():
                process.join()
                connection.close()
            self._live.clear()

    def add(self, task: Callable[[], Any], done: Callable[[Any], None], *, size: int = 0) -> None:
        """Run a task as soon as there is room.

        Parameters
        ----------
        task
            Is called without arguments; what it returns must be picklable.
        done
            Is called here with the result.
        size
            The task's share of :data:`MOST_SIZE`.
        """
        if self.workers == 1:
            done(task())
            return
        while self._live and (
            len(self._live) >= self.workers
            or size + sum(each for _, each, _ in self._live.values()) > MOST_SIZE
        ):
            self._take()
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(task, sender, self._inner(size)), daemon=False)
        with warnings.catch_warnings():
            # Threads that show progress do not matter: the task prints nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        sender.close()
        self._live[receiver] = process, size, done

    def _inner(self, size: int) -> int:
        """Workers that a task may have by itself: all where it runs alone."""
        return self.workers if size > MOST_SIZE else 1

    def _take(self) -> None:
        """Wait for tasks that end, and take their results."""
        for connection in wait(list(self._live)):
            assert isinstance(connection, Connection)
            process, _, done = self._live.pop(connection)
            try:
                failed, result = connection.recv()
            except EOFError:
                process.join()
                raise RuntimeError(
                    f"a process of prap ended before its task, with code {process.exitcode}"
                ) from None
            finally:
                connection.close()
            process.join()
            if failed:
                raise result
            done(result)


_inner = 1


def inner() -> int:
    """Workers that the task of this process may use in turn; 1 outside of tasks."""
    return _inner


def _run(task: Callable[[], Any], sender: Connection, workers: int) -> None:
    """Be the process of a task; an interrupt is for the one that waits."""
    global _inner
    _inner = workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So that what this task has started in turn is ended as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        result = False, task()
    except Exception as error:
        result = True, error
    sender.send(result)
    sender.close()


def each(task: Callable[[Any], Any], items: Sequence[Any], workers: int = 1) -> list[Any]:
    """Apply a function to items, in processes, and give the results in order."""
    results: list[Any] = [None] * len(items)
    with Tasks(min(workers, len(items))) as tasks:
        for number, item in enumerate(items):
            tasks.add(lambda item=item: task(item), lambda found, n=number: _set(results, n, found))
    return results


def _set(results: list[Any], number: int, found: Any) -> None:
    results[number] = found
