"""A layer's program as the packets that the host shell takes."""

from collections.abc import Iterable

from prap_hw.core import configuration_hash, configuration_words
from prap_hw.driver.packets import BEAT, Image, Kind, packet
from prap_hw.layouts import Layouts
from prap_hw.load import layer_image
from refmodel.config import EngineConfig
from refmodel.program import LayerProgram


def item_bytes(bits: int) -> int:
    """Bytes of an item of so many bits and its parity bit: whole beats."""
    return -(-(bits + 1) // (8 * BEAT)) * BEAT


def items(kind: Kind, payloads: Iterable[int], bits: int) -> bytes:
    """The packet of payloads of a core's stream, lowest byte first.

    Parameters
    ----------
    kind
        PROGRAM or CELLS.
    payloads
        Integers of at most ``bits`` bits.
    bits
        Bits of a payload. The top bit of an item makes the number of its ones even.
    """
    size = item_bytes(bits)
    top = 8 * size - 1
    parts = [
        (payload | (payload.bit_count() & 1) << top).to_bytes(size, "little")
        for payload in payloads
    ]
    return packet(kind, len(parts), b"".join(parts))


def engine_image(layer: LayerProgram, config: EngineConfig) -> Image:
    """What an engine behind a shell is sent to run one layer.

    Raises
    ------
    InputError
        The layer does not fit the engine.
    """
    layouts = Layouts(config)
    sent = layer_image(layer, config)
    height, width, channels = layer.padded_shape
    return Image(
        program=items(Kind.PROGRAM, sent.words, layouts.load.size),
        cells=items(Kind.CELLS, sent.beats, layouts.cells.size),
        input_bytes=height * width * channels,
        output_bytes=layer.positions * layer.out_shape[2],
        config_hash=configuration_hash(configuration_words(config)),
    )
