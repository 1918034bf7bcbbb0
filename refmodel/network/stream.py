"""A network computed layer by layer over all images, in bounded memory.

:meth:`refmodel.network.graph.FloatNetwork.trace` takes a few images through all layers. What
compares a layer on all images before it goes on, as matching of moments does, takes all images
through a layer instead, a few at a time, and has to keep what it computed for the next. A
:class:`Spool` keeps it: in memory up to a limit, beyond that in a file without a name.
"""

import contextvars
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from refmodel.network.graph import FloatNetwork, Floats, Node

SPOOL_BYTES = 256 << 20
"""Bytes of activations that are kept in memory, about; what is more goes to a file."""


class Spool:
    """Arrays that are put away and taken back, some of them in a temporary file.

    Space in the file is used again by arrays of the same size.

    Parameters
    ----------
    limit
        Bytes that stay in memory.
    """

    def __init__(self, limit: int = SPOOL_BYTES) -> None:
        self.left = limit
        self._file: IO[bytes] | None = None
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def put(self, values: Floats) -> "Kept":
        """Put an array away; it must not be changed afterwards."""
        if values.nbytes <= self.left:
            self.left -= values.nbytes
            return Kept(self, values, None, values.nbytes)
        if self._file is None:
            # Closed, and with it gone, where the spool is.
            self._file = tempfile.TemporaryFile(prefix="prap-")  # noqa: SIM115
        free = self._free.get(values.nbytes)
        place = free.pop() if free else self._end
        if place == self._end:
            self._end += values.nbytes
        self._file.seek(place)
        self._file.write(np.ascontiguousarray(values).data)
        return Kept(self, (values.shape, values.dtype), place, values.nbytes)

    def read(self, place: int, shape: tuple[int, ...], dtype: Any, size: int) -> Floats:
        """Read an array back from the file."""
        assert self._file is not None
        result: Floats = np.empty(shape, dtype)
        self._file.seek(place)
        found = self._file.readinto(result.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        if found != size:
            raise OSError(f"expected {size} bytes of the spool, found {found}")
        return result

    def release(self, place: int | None, size: int) -> None:
        """Give the space of an array free."""
        if place is None:
            self.left += size
        else:
            self._free.setdefault(size, []).append(place)

    def close(self) -> None:
        """Drop the file."""
        if self._file is not None:
            self._file.close()


class Kept:
    """An array in a spool."""

    def __init__(self, spool: Spool, held: Any, place: int | None, size: int) -> None:
        self._spool, self._held, self._place, self._size = spool, held, place, size

    def get(self) -> Floats:
        """Take the array, which stays where it is."""
        assert self._held is not None
        if self._place is None:
            return self._held
        shape, dtype = self._held
        return self._spool.read(self._place, shape, dtype, self._size)

    def drop(self) -> None:
        """Forget the array."""
        self._spool.release(self._place, self._size)
        self._held = None


Tensor = list[Kept]
"""A tensor of all images, by the chunks that they are taken in."""


@contextmanager
def spooled(limit: int | None = None) -> Iterator[Spool]:
    """Give a spool that is closed in the end."""
    spool = Spool(SPOOL_BYTES if limit is None else limit)
    try:
        yield spool
    finally:
        spool.close()


def put_images(network: FloatNetwork, images: Floats, spool: Spool) -> Tensor:
    """Cut network inputs into chunks that its nodes can take, and put them away."""
    return [spool.put(chunk) for chunk in network.chunks(images)]


def drop(tensor: Iterable[Kept]) -> None:
    """Forget a tensor."""
    for kept in tensor:
        kept.drop()


class Threads:
    """Computes chunks in order, several at a time where there are workers.

    The products of matrices and other work of numpy on whole arrays run beside each other.
    """

    def __init__(self, workers: int = 1) -> None:
        self._pool = ThreadPoolExecutor(workers) if workers > 1 else None
        self._workers = workers

    def map(self, function: Callable[..., Floats], items: list[list[Floats]]) -> list[Floats]:
        """Apply a function to the inputs of some chunks."""
        if self._pool is None or len(items) == 1:
            return [function(*inputs) for inputs in items]
        # numpy's settings of errors go with the context.
        futures = [
            self._pool.submit(contextvars.copy_context().run, function, *inputs) for inputs in items
        ]
        return [future.result() for future in futures]

    def apply(self, node: Node, inputs: list[Tensor]) -> Iterator[Floats]:
        """Compute a node, chunk after chunk."""
        count = len(inputs[0])
        for start in range(0, count, self._workers):
            block = range(start, min(start + self._workers, count))
            yield from self.map(
                node.apply, [[tensor[number].get() for tensor in inputs] for number in block]
            )

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def threads(workers: int) -> Iterator[Threads]:
    """Give threads that end in the end."""
    found = Threads(workers)
    try:
        yield found
    finally:
        found.close()


def walk(
    network: FloatNetwork,
    images: Floats,
    *,
    before: Callable[[Node, list[Tensor]], None] | None = None,
    after: Callable[[str, Floats], None] | None = None,
    node_of: Callable[[Node], Node] | None = None,
    workers: int = 1,
) -> None:
    """Compute a network node after node, each on all images.

    Parameters
    ----------
    network, images
        The network, and its inputs (N, *input_shape).
    before
        Called before each node with the node and its inputs.
    after
        Called with the name of a tensor and its values on some images, chunk after chunk.
    node_of
        Gives the node that is computed in a node's place.
    workers
        Chunks that are computed at a time.
    """
    left = network.consumers()
    with spooled() as spool, threads(workers) as pool:
        tensors = {network.input: put_images(network, images, spool)}
        if after is not None:
            for kept in tensors[network.input]:
                after(network.input, kept.get())
        for node in network.nodes:
            inputs = [tensors[name] for name in node.inputs]
            if before is not None:
                before(node, inputs)
            found = tensors[node.output] = []
            for values in pool.apply(node if node_of is None else node_of(node), inputs):
                if after is not None:
                    after(node.output, values)
                found.append(spool.put(values))
            for name in node.inputs:
                left[name] -= 1
                if not left[name]:
                    drop(tensors.pop(name))
            if not left[node.output]:
                drop(tensors.pop(node.output))
