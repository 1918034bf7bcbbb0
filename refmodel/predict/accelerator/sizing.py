"""The accelerator that a network needs, and whether one holds it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from refmodel.config import EngineConfig, check_engines
from refmodel.errors import InputError
from refmodel.predict.accelerator.operations import NetworkImage
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.resident import RESIDENT, resident_needs
from refmodel.predict.tile import tile_config_for
from refmodel.program.layer import LayerProgram
from refmodel.program.program import Program
from refmodel.program.sizes import engine_config_for


def accelerator_config_for(
    program: Program, base: EngineConfig | None = None, engines: int = 1
) -> EngineConfig:
    """Size the engines of an accelerator on which all layers of a program are resident.

    Sizes are those of :func:`refmodel.program.sizes.engine_config_for`, and with several engines of
    :func:`refmodel.predict.tile.tile_config_for`, but memories and crossbars hold the layers, or
    the parts of the engine that needs most, together, and the activation memory the tensors that
    are alive.

    Raises
    ------
    InputError
        A layer, or all of them together, need more than any engine has; or a step is not one that
        the accelerator can run.
    """
    check_engines(engines)
    if engines == 1:
        fitted = engine_config_for(program.layers, base)
    else:
        fitted = tile_config_for(program.layers, engines, base)
    image = network_image(program, fitted, engines)
    sizes = {
        name: need if name == "crossbars" else 1 << (need - 1).bit_length()
        for name, need in network_needs(image, program.layers, fitted).items()
    }
    sizes["activation_bytes"] = max(64, sizes["activation_bytes"])
    products = any(operation.product for operation in image.operations)
    try:
        return replace(fitted, network=True, products=products, **sizes)
    except ValueError as error:
        raise InputError(f"expected a network that one engine holds, found {error}") from None


def network_needs(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> dict[str, int]:
    """Total needs of all layers and tensors of a network, by the field of EngineConfig.

    With several engines, a need is that of the engine that needs most.
    """
    engines = [Counter[str]() for _ in range(image.engines)]
    outputs = 0
    for operation in image.operations:
        if operation.layer is None:
            continue
        outputs += layers[operation.layer].out_shape[2]
        for part, engine in zip(operation.parts, engines, strict=True):
            if part is not None:
                engine.update(resident_needs(part, config))
    totals = {name: max(engine[name] for engine in engines) for name in RESIDENT}
    needs = {
        "max_gathers": totals["descriptor"],
        "max_segments": totals["segment"],
        "max_groups": totals["header"],
        "max_words": totals["step"] * config.merge_lanes,
        "max_params": outputs,
        "crossbars": totals["crossbar"],
        "activation_bytes": image.activation_bytes,
    }
    needs = {name: max(1, need) for name, need in needs.items()}
    if len(image.tables):
        needs["max_tables"] = len(image.tables)
    return needs


def check_resident(
    image: NetworkImage, layers: Sequence[LayerProgram], config: EngineConfig
) -> None:
    """Check that each engine can hold all layers, or its parts of them, and tensors of a network.

    Raises
    ------
    InputError
        Names the limit that the network exceeds, what it is, and what the network needs.
    """
    for name, need in network_needs(image, layers, config).items():
        limit = config.params if name == "max_params" else getattr(config, name)
        if need > limit:
            raise InputError(
                f"expected {name} of at most {limit} for all layers together, found {need}"
            )
    if any(operation.product for operation in image.operations) and not config.products:
        raise InputError(
            "expected products True for a network that multiplies two tensors, found False"
        )
