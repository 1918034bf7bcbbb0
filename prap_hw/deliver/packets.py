"""A layer's program, or a network's, as the packets that the host shell takes."""

from collections.abc import Iterable
from math import prod

from prap_hw.common.layouts import Layouts, TileLayouts
from prap_hw.deliver.load import command_words, layer_image, network_load
from prap_hw.driver.packets import BEAT, Image, Kind, packet
from prap_hw.shell.core import configuration_hash, configuration_words
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program


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
    """Packets that an engine behind a shell is sent to run one layer.

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


def accelerator_image(
    program: Program, image: NetworkImage, config: EngineConfig, *, commands: int | None = None
) -> Image:
    """Packets for an accelerator behind a shell, sent once, to run a network on any images.

    An image is its codes without border, row by row, channels fastest; the outputs are the codes of
    the network's last tensor in the same order.

    Parameters
    ----------
    image
        How the program lies on the accelerator; it has the number of engines.
    config
        Sizes of each engine.
    commands
        Words that the accelerator's list may have; None: as many as this network's has.

    Raises
    ------
    InputError
        The network does not fit; the message names the limit.
    """
    # One engine's words and rows have no number of an engine.
    layouts = Layouts(config) if image.engines == 1 else TileLayouts(config, image.engines)
    sent = network_load(program, image, config)
    found = len(command_words(program, image, config))
    if commands is None:
        commands = found
    if found > commands:
        raise InputError(
            f"expected a list of at most {commands} words, found {found}, in the network's program"
        )
    configuration = configuration_words(config, engines=image.engines, commands=commands)
    return Image(
        program=items(Kind.PROGRAM, sent.words, layouts.load.size),
        cells=items(Kind.CELLS, sent.beats, layouts.cells.size),
        input_bytes=prod(program.tensors[program.input]["shape"]),
        output_bytes=prod(program.tensors[program.output]["shape"]),
        config_hash=configuration_hash(configuration),
    )
