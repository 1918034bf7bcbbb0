"""What a reader may do with a file: refuse it with one line, or give something that works."""

from pathlib import Path

import numpy as np

from refmodel import golden
from refmodel.api import Program
from refmodel.compression import tuned
from refmodel.compression.compile import compile_network, map_network
from refmodel.compression.quantize import QuantNetwork, quantize
from refmodel.errors import InputError
from refmodel.exchange.load import load_network
from refmodel.network.graph import FloatNetwork
from refmodel.network.images import Preprocess, load_images
from refmodel.network.preprocess_file import read_preprocess

NAMES = {
    "network": "net.onnx",
    "images": "images.npz",
    "program": "net.prap",
    "tflite": "net.tflite",
    "preprocess": "pixels.toml",
    "picture": "picture.png",
}
"""Kind of file to the name it is read under."""

WORK = 1 << 24
"""Values up to which what was read is computed with: the readers are on trial here."""


class MisbehaviourError(AssertionError):
    """A reader did what it must not."""


def judge(kind: str, path: Path) -> str:
    """Read a file and use what it holds.

    Returns
    -------
    str
        ``refused`` or ``accepted``.

    Raises
    ------
    MisbehaviourError
        The message is not one clear line, or hides that memory ran out.
    Exception
        Whatever else the reader raises.
    """
    try:
        _use(kind, path)
    except InputError as error:
        _check_message(error)
        return "refused"
    return "accepted"


def _check_message(error: InputError) -> None:
    text = str(error)
    if "\n" in text or not 10 < len(text) < 2000:
        raise MisbehaviourError(f"expected one clear line, found {text[:3000]!r}") from error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | RecursionError):
            raise MisbehaviourError(
                f"expected a limit, found {type(cause).__name__} behind: {text}"
            )
        cause = cause.__cause__ or cause.__context__


def _compile(network: FloatNetwork, quant: QuantNetwork) -> None:
    """Compile a network with the mappings that came with it."""
    assert network.tuned is not None
    options: dict = {"scheme": network.tuned.scheme, "ou_rows": network.tuned.ou_rows}
    carried, settings = tuned.carried(network, quant.layers, **options)
    assert set(carried) == set(network.tuned.mappings)
    mappings = map_network(quant, settings=settings, carried=carried, **options)
    program = compile_network(
        quant, settings=settings, mappings=mappings, carried=list(carried), **options
    )
    for layer, mapping in zip(program.layers, mappings, strict=True):
        # Sums, whatever the groups of the convolution; outputs that are constant have zeros.
        wanted = mapping.weight_q8.reshape(len(mapping.weight_q8), -1).sum(1)
        found = layer.effective_weights().sum((1, 2))
        assert ((found == wanted) | (found == 0)).all()


def _use(kind: str, path: Path) -> None:
    if kind == "images":
        x, y = load_images(path)
        assert x.dtype.kind in "uif"
        assert x.ndim in (2, 3, 4)
        assert y is None or len(x) == len(y)
        return
    if kind == "picture":
        folder = path.with_name("pictures")
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        (folder / "cat" / "a.png").write_bytes(path.read_bytes())
        x, y = load_images(folder, resize=8, crop=8)
        assert x.shape[:3] == (1, 8, 8)
        assert x.dtype == np.uint8
        assert y is not None
        assert y.tolist() == [0]
        return
    if kind == "preprocess":
        content = path.read_bytes()
        if content[:1] == b"{":
            path = path.with_suffix(".json")
            path.write_bytes(content)
        found = Preprocess(**read_preprocess(path))
        assert Preprocess.from_dict(found.settled(np.zeros(1)).to_dict()).mean == found.mean
        return
    if kind in ("network", "tflite"):
        network = load_network(path)
        if sum(node.work() for node in network.nodes) > WORK:
            return
        x = np.random.default_rng(0).standard_normal((2, *network.input_shape)).astype(np.float32)
        with np.errstate(all="ignore"):
            values = network.forward(x)
            assert values.shape == (2, *network.output_shape)
            quant = quantize(network, x)
            if network.tuned is not None:
                _compile(network, quant)
        return
    program = Program.load(path)
    work = sum(layer.positions * layer.weights.size for layer in program.layers)
    shape = program.tensors[program.input]["shape"]
    if work > WORK * 8 or np.prod(shape) > WORK:
        return
    tensors = golden.run_program(program, np.zeros((1, *shape), np.uint8))
    for name, codes in tensors.items():
        assert codes.shape[1:] == tuple(program.tensors[name]["shape"])
        assert codes.dtype == np.uint8
    height, width, channels = shape
    program.logits(np.zeros((1, channels, height, width), np.uint8))
