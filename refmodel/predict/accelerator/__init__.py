"""A network on the accelerator: where its tensors lie, its operations, its cycles."""

from refmodel.predict.accelerator.operations import NetworkImage, Operation, Place
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import (
    FIRST_ITEM,
    NEXT_WORD,
    POOL_LATENCY,
    NetworkPrediction,
    predict_network,
)
from refmodel.predict.accelerator.regions import (
    Fill,
    Operand,
    Region,
    Walk,
    affine,
)
from refmodel.predict.accelerator.registers import (
    FILL_REGISTERS,
    OPERAND_REGISTERS,
    OWN_REGISTERS,
    POOL_REGISTERS,
    WINDOW_REGISTERS,
    Registers,
    engine_registers,
    kernel_table,
    place_registers,
    registers,
)
from refmodel.predict.accelerator.resident import RESIDENT, resident_needs
from refmodel.predict.accelerator.run import run_image
from refmodel.predict.accelerator.sizing import (
    accelerator_config_for,
    check_resident,
    network_needs,
)

__all__ = [
    "FILL_REGISTERS",
    "FIRST_ITEM",
    "NEXT_WORD",
    "OPERAND_REGISTERS",
    "OWN_REGISTERS",
    "POOL_LATENCY",
    "POOL_REGISTERS",
    "RESIDENT",
    "WINDOW_REGISTERS",
    "Fill",
    "NetworkImage",
    "NetworkPrediction",
    "Operand",
    "Operation",
    "Place",
    "Region",
    "Registers",
    "Walk",
    "accelerator_config_for",
    "affine",
    "check_resident",
    "engine_registers",
    "kernel_table",
    "network_image",
    "network_needs",
    "place_registers",
    "predict_network",
    "registers",
    "resident_needs",
    "run_image",
]
