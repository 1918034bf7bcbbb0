"""Registers of prap_pim: written from prap_pim.rdl by `make registers`."""

from enum import IntEnum, IntFlag


class Register(IntEnum):
    """Addresses, in bytes; of a counter the address of its low half."""

    IDENTITY = 0x000
    VERSION = 0x004
    CONFIG_HASH = 0x008
    CORE = 0x00C
    CONTROL = 0x010
    STATUS = 0x014
    ERROR = 0x018
    ERROR_ITEM = 0x01C
    IRQ_ENABLE = 0x020
    IRQ_PENDING = 0x024
    INPUT_BYTES = 0x028
    OUTPUT_BYTES = 0x02C
    WATCHDOG = 0x030
    CONFIG_OU_ROWS = 0x080
    CONFIG_OU_COLS = 0x084
    CONFIG_CROSSBAR_SIZE = 0x088
    CONFIG_CROSSBARS = 0x08C
    CONFIG_CELL_BITS = 0x090
    CONFIG_DAC_BITS = 0x094
    CONFIG_ADC_BITS = 0x098
    CONFIG_ADCS = 0x09C
    CONFIG_MERGE_LANES = 0x0A0
    CONFIG_CROSSBAR_LATENCY = 0x0A4
    CONFIG_REQUESTS_IN_FLIGHT = 0x0A8
    CONFIG_GATHER_BUFFERS = 0x0AC
    CONFIG_SLOTS = 0x0B0
    CONFIG_ACC_WIDTH = 0x0B4
    CONFIG_OUS_PER_PATTERN = 0x0B8
    CONFIG_MAX_OUTPUTS = 0x0BC
    CONFIG_MAX_GATHERS = 0x0C0
    CONFIG_MAX_SEGMENTS = 0x0C4
    CONFIG_MAX_GROUPS = 0x0C8
    CONFIG_MAX_WORDS = 0x0CC
    CONFIG_MAX_POSITIONS = 0x0D0
    CONFIG_ACTIVATION_BYTES = 0x0D4
    CONFIG_MAX_PARAMS = 0x0D8
    CONFIG_NETWORK = 0x0DC
    CONFIG_PORT_TIMEOUT = 0x0E0
    CONFIG_MAX_TABLES = 0x0E4
    CONFIG_PRODUCTS = 0x0E8
    CONFIG_POSITION_LANES = 0x0EC
    CONFIG_PAIRS = 0x0F0
    CONFIG_ENGINES = 0x0F8
    CONFIG_COMMANDS = 0x0FC
    COUNT_CYCLES = 0x100
    COUNT_REQUESTS = 0x108
    COUNT_OUS = 0x110
    COUNT_GATHERED = 0x118
    COUNT_INDEX_READS = 0x120
    COUNT_MERGED = 0x128
    COUNT_OUTPUTS = 0x130
    COUNT_STALL_GATHER = 0x138
    COUNT_STALL_SLOTS = 0x140
    COUNT_STALL_PORT = 0x148
    COUNT_CONVERSIONS = 0x150
    COUNT_WORDLINE_DRIVES = 0x158
    COUNT_CELLS_READ = 0x160
    COUNT_INDEX_BITS = 0x168
    COUNT_PSUM_UPDATES = 0x170
    COUNT_MERGE_SHIFTS = 0x178
    COUNT_ACCUMULATOR_UPDATES = 0x180
    COUNT_ACTIVATION_WRITES = 0x188
    COUNT_OPERAND_READS = 0x190


class Control(IntFlag):
    """Bits of CONTROL."""

    START = 0x1
    SOFT_RESET = 0x2
    DROP_PACKET = 0x4


class Status(IntFlag):
    """Bits of STATUS."""

    BUSY = 0x1
    DONE = 0x2
    ERROR = 0x4
    LOADING = 0x8
    PROGRAM = 0x10
    CELLS = 0x20
    ACTIVATIONS = 0x40
    OUTPUT_WAITS = 0x80


class IrqEnable(IntFlag):
    """Bits of IRQ_ENABLE."""

    DONE = 0x1
    ERROR = 0x2


class IrqPending(IntFlag):
    """Bits of IRQ_PENDING."""

    DONE = 0x1
    ERROR = 0x2


class Core(IntEnum):
    """Values of core."""

    ENGINE = 0
    ACCELERATOR = 1

    @property
    def meaning(self) -> str:
        """What it means."""
        return {
            0: "One engine: a layer a run.",
            1: "One engine or several, post-processing and sequencer: a network a run.",
        }[self.value]


class ErrorCode(IntEnum):
    """Values of error_code."""

    NONE = 0
    HEADER = 1
    SHORT = 2
    LONG = 3
    KEEP = 4
    LENGTH = 5
    ORDER = 6
    LOAD_BUSY = 7
    PADDING = 8
    SPACE = 9
    ADDRESS = 10
    VALUE = 11
    START_BUSY = 12
    START_UNREADY = 13
    OUTPUT_LENGTH = 14
    WATCHDOG = 15
    ITEM_PARITY = 16
    MEMORY_PARITY = 17
    RANGE = 18
    PORT = 19

    @property
    def meaning(self) -> str:
        """What it means."""
        return {
            0: "No error.",
            1: "A packet begins with no header: wrong magic or kind, no items, or unused bits set.",
            2: "TLAST before the number of items that the header says.",
            3: "No TLAST with the last item that the header says.",
            4: "TKEEP marks other bytes than those of the items.",
            5: "A packet of activations is not INPUT_BYTES long, or longer than the activation memory.",
            6: "Cells before a program, or activations before cells.",
            7: "Until 2.1: a packet while the core runs. Since 2.2 it waits for the end of the run, as back-pressure.",
            8: "Bits of an item beyond its last field are not 0.",
            9: "A program word for a memory that there is none of.",
            10: "A program word beyond the end of its memory, or a row of cells beyond the crossbars.",
            11: "A program word with a field out of its range, as an address that leaves a memory.",
            12: "A start while the core runs.",
            13: "A start without a program, cells and activations, or while a packet is loading, or with OUTPUT_BYTES 0.",
            14: "A run ended with more or fewer outputs than OUTPUT_BYTES.",
            15: "No output for WATCHDOG cycles, those not counted in which the host held up the output.",
            16: "A program word or a row of cells has an odd number of ones: a bit was flipped on its way.",
            17: "A word of a memory of the core has the wrong parity: a bit was flipped in it.",
            18: "An address, a slot or a count that the program leads to is outside what it is for.",
            19: "The crossbar port stood still for too long: a request or a row of cells not taken, or an answer that did not come.",
        }[self.value]


class Space(IntEnum):
    """Values of space."""

    REGISTER = 0
    DESCRIPTOR = 1
    POSITION = 2
    OFFSET = 3
    HEADER = 4
    WORD = 5
    TABLE = 6
    OUTPUT = 7
    POST = 8
    COMMAND = 9
    IMAGE = 10
    LOOKUP = 11
    ENGINES = 14
    SHARE = 15

    @property
    def meaning(self) -> str:
        """What it means."""
        return {
            0: "Layer registers.",
            1: "Gather descriptors.",
            2: "Kernel positions of segments.",
            3: "Channels and lengths of segments.",
            4: "Group headers.",
            5: "Reuse words.",
            6: "Address offsets of kernel positions.",
            7: "Bias, multiplier and shift of outputs.",
            8: "Registers of the post-processing.",
            9: "The list of the sequencer.",
            10: "An image that is longer or shorter than the network's, whatever INPUT_BYTES says.",
            11: "Tables of codes that an accelerator's outputs go through.",
            14: "Of a tile: which engines take part.",
            15: "Of a tile: engines that have a share in an output.",
        }[self.value]


CONFIGURATION = {
    "ou_rows": Register.CONFIG_OU_ROWS,
    "ou_cols": Register.CONFIG_OU_COLS,
    "crossbar_size": Register.CONFIG_CROSSBAR_SIZE,
    "crossbars": Register.CONFIG_CROSSBARS,
    "cell_bits": Register.CONFIG_CELL_BITS,
    "dac_bits": Register.CONFIG_DAC_BITS,
    "adc_bits": Register.CONFIG_ADC_BITS,
    "adcs": Register.CONFIG_ADCS,
    "merge_lanes": Register.CONFIG_MERGE_LANES,
    "crossbar_latency": Register.CONFIG_CROSSBAR_LATENCY,
    "requests_in_flight": Register.CONFIG_REQUESTS_IN_FLIGHT,
    "gather_buffers": Register.CONFIG_GATHER_BUFFERS,
    "slots": Register.CONFIG_SLOTS,
    "acc_width": Register.CONFIG_ACC_WIDTH,
    "ous_per_pattern": Register.CONFIG_OUS_PER_PATTERN,
    "max_outputs": Register.CONFIG_MAX_OUTPUTS,
    "max_gathers": Register.CONFIG_MAX_GATHERS,
    "max_segments": Register.CONFIG_MAX_SEGMENTS,
    "max_groups": Register.CONFIG_MAX_GROUPS,
    "max_words": Register.CONFIG_MAX_WORDS,
    "max_positions": Register.CONFIG_MAX_POSITIONS,
    "activation_bytes": Register.CONFIG_ACTIVATION_BYTES,
    "max_params": Register.CONFIG_MAX_PARAMS,
    "network": Register.CONFIG_NETWORK,
    "port_timeout": Register.CONFIG_PORT_TIMEOUT,
    "max_tables": Register.CONFIG_MAX_TABLES,
    "products": Register.CONFIG_PRODUCTS,
    "position_lanes": Register.CONFIG_POSITION_LANES,
    "pairs": Register.CONFIG_PAIRS,
    "engines": Register.CONFIG_ENGINES,
    "commands": Register.CONFIG_COMMANDS,
}
"""Registers of the sizes, by the names that `EngineConfig` gives them."""

COUNTERS = {
    "cycles": Register.COUNT_CYCLES,
    "requests": Register.COUNT_REQUESTS,
    "ous": Register.COUNT_OUS,
    "gathered": Register.COUNT_GATHERED,
    "index_reads": Register.COUNT_INDEX_READS,
    "merged": Register.COUNT_MERGED,
    "outputs": Register.COUNT_OUTPUTS,
    "stall_gather": Register.COUNT_STALL_GATHER,
    "stall_slots": Register.COUNT_STALL_SLOTS,
    "stall_port": Register.COUNT_STALL_PORT,
    "conversions": Register.COUNT_CONVERSIONS,
    "wordline_drives": Register.COUNT_WORDLINE_DRIVES,
    "cells_read": Register.COUNT_CELLS_READ,
    "index_bits": Register.COUNT_INDEX_BITS,
    "psum_updates": Register.COUNT_PSUM_UPDATES,
    "merge_shifts": Register.COUNT_MERGE_SHIFTS,
    "accumulator_updates": Register.COUNT_ACCUMULATOR_UPDATES,
    "activation_writes": Register.COUNT_ACTIVATION_WRITES,
    "operand_reads": Register.COUNT_OPERAND_READS,
}
"""Registers of the counters, by name."""
