"""Crossbars in Python, for the other end of the engine's crossbar port.

They know what was programmed through the port and the wordline digits of a request, and nothing
else: not the program, not the golden model's trace. Those of a chip (:class:`ChipModel`) are told
which layer and image runs, since that is what read noise differs by, and count the rest.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from cocotb.triggers import RisingEdge

from refmodel.golden.devices.chip import Chip, LayerChip
from sim.words import Fields


@dataclass
class CrossbarModel:
    """Crossbars of ideal cells behind lossless or clipping converters.

    code[j] = min(sum over rows r of cell[r, column j] * digit[r], max_code), columns ``select *
    adcs`` and following; 0 beyond the OU's last column.

    Attributes
    ----------
    cells_fields, request_fields
        Layouts of the programming beat and of the request.
    rows, cols, cell_bits, dac_bits, adcs, code_bits
        Sizes: of an operation unit, bits of a cell and of an input digit, converters, bits of a
        code.
    pairs
        Whether places hold pairs of cells, and codes have a sign above their bits.
    """

    cells_fields: Fields
    request_fields: Fields
    rows: int
    cols: int
    cell_bits: int
    dac_bits: int
    adcs: int
    code_bits: int
    pairs: bool = False
    planes: dict[int, list[list[int]]] = field(default_factory=dict)
    """Place to columns, each with a mask of rows for each bit of their cells, plus before minus."""

    def __post_init__(self) -> None:
        # A place is the low bits of both payloads, down to the same fields.
        self.place_bits = self.cells_fields["row"][0]
        if self.request_fields["select"][0] != self.place_bits:
            raise ValueError("expected beats and requests that begin with the same place")

    @property
    def stored_bits(self) -> int:
        """Bits of a cell, or of a pair."""
        return self.cell_bits << self.pairs

    @property
    def lane_bits(self) -> int:
        """Bits of a code with its sign."""
        return self.code_bits + self.pairs

    def program(self, beat: int) -> None:
        """Write one row of cells."""
        place = beat & ((1 << self.place_bits) - 1)
        offset, width = self.cells_fields["row"]
        row = beat >> offset & ((1 << width) - 1)
        bits = beat >> self.cells_fields["cells"][0]
        if place not in self.planes:
            self.planes[place] = [[0] * self.stored_bits for _ in range(self.cols)]
        for masks in self.planes[place]:
            for bit in range(self.stored_bits):
                masks[bit] = masks[bit] & ~(1 << row) | (bits & 1) << row
                bits >>= 1

    def convert(self, request: int) -> int:
        """Answer a request with packed codes.

        Returns
        -------
        int
            Codes of ``lane_bits`` bits, one to a converter, the first in the lowest bits; 0 for a
            place that was never programmed.
        """
        place = request & ((1 << self.place_bits) - 1)
        offset, width = self.request_fields["select"]
        first = (request >> offset & ((1 << width) - 1)) * self.adcs
        digits = self.digit_planes(request >> self.request_fields["digits"][0])
        columns = self.planes.get(place)
        if columns is None:
            return 0
        top = (1 << self.code_bits) - 1
        word = 0
        for masks in reversed(columns[first : first + self.adcs]):
            level = 0
            for bit, mask in enumerate(masks):
                minus, bit = divmod(bit, self.cell_bits)
                for scale, driven in enumerate(digits):
                    count = (mask & driven).bit_count() << bit + scale
                    level += -count if minus else count
            code = max(-top, min(level, top))
            word = word << self.lane_bits | code & (1 << self.lane_bits) - 1
        return word

    def digit_planes(self, digits: int) -> list[int]:
        """A mask of rows for each bit of their digits."""
        if self.dac_bits == 1:
            return [digits]
        planes = [0] * self.dac_bits
        for row in range(self.rows):
            for bit in range(self.dac_bits):
                planes[bit] |= (digits >> row * self.dac_bits + bit & 1) << row
        return planes


class Answer(NamedTuple):
    """A chip's answers to requests, as far as it is the same at every read.

    Attributes
    ----------
    ou
        Its number.
    word
        The codes, packed, but 0 where noise may change them.
    level
        float32 [n], currents of those columns, in codes before rounding.
    near, lanes
        [n], numbers of those columns in the OU, and of their converters.
    """

    ou: int
    word: int
    level: np.ndarray
    near: np.ndarray
    lanes: list[int]


MOST_ANSWERS = 1 << 18
"""Answers that are remembered at once: some 100 MB. Inputs repeat, and so do requests."""


@dataclass(kw_only=True)
class ChipModel(CrossbarModel):
    """Crossbars of one chip of :mod:`refmodel.golden.devices`, which is not ideal.

    The golden model takes the position and the digit of a request from the program; here they are
    counted. Every position converts the same columns of an OU once for each digit, low digits
    first: the n-th such request of a run, from 0, is for digit n % digits of position n // digits.

    Attributes
    ----------
    chip
        The chip; its sizes are those of the engine.
    first
        Number of the first request of a run: 0, but in tests of what finds a wrong count.
    """

    chip: Chip
    first: int = 0
    _run: tuple[int, int, int] = (0, 0, 1)
    _drawn: LayerChip | None = None
    _asked: dict[int, int] = field(default_factory=dict)
    _answers: dict[int, Answer] = field(default_factory=dict)

    def begin(self, layer: int, image: int, positions: int) -> None:
        """Be told which run begins.

        Parameters
        ----------
        layer, image
            Their numbers.
        positions
            Output positions of the layer.
        """
        if (layer, positions) != (self._run[0], self._run[2]):
            self._forget()
        elif self._drawn is not None:
            self._drawn = replace(self._drawn, first_image=image)
        self._run = (layer, image, positions)
        self._asked.clear()

    def program(self, beat: int) -> None:
        """Write one row of cells."""
        super().program(beat)
        if self._drawn is not None:
            self._forget()

    def _forget(self) -> None:
        """Draw anew when next asked."""
        self._drawn = None
        self._answers.clear()

    def convert(self, request: int) -> int:
        """Answer a request with the ADC codes of this chip.

        The chip's crossbars are drawn at the first request after a change of layer or of cells.
        Requests for the same columns of an OU are counted, since read noise differs by position and
        digit.

        Parameters
        ----------
        request
            Payload of the crossbar port's request, as an integer.

        Returns
        -------
        int
            Codes of ``code_bits`` bits, one to a converter, the first in the lowest bits; 0 for a
            place that was never programmed.
        """
        place = request & ((1 << self.place_bits) - 1)
        if place not in self.planes:
            return 0
        if self._drawn is None:
            layer, image, positions = self._run
            self._drawn = self.chip.crossbars(
                self.levels(), layer, positions=positions, first_image=image
            )
        # The place and the column select are the low bits of a request.
        asked = request & ((1 << self.request_fields["digits"][0]) - 1)
        ordinal = self._asked.get(asked, self.first)
        self._asked[asked] = ordinal + 1
        answer = self._answers.get(request)
        if answer is None:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            answer = self._answers[request] = self.answer(self._drawn, request)
        if not len(answer.near):
            return answer.word
        # Few currents are so near to another code that their noise must be drawn.
        position, digit = divmod(ordinal, self.chip.config.digits)
        level = answer.level + self._drawn.noise_in(answer.ou, answer.near, digit, position)
        word = answer.word
        codes = self._drawn.convert(level, answer.ou, answer.near).astype(int).tolist()
        for lane, code in zip(answer.lanes, codes, strict=True):
            word |= self.lane(code) << lane * self.lane_bits
        return word

    def lane(self, code: int) -> int:
        """Bits of a code at the port."""
        return code & (1 << self.lane_bits) - 1

    def answer(self, drawn: LayerChip, request: int) -> Answer:
        """Return the current that does not change from one read to the next."""
        ou = self.number(request & ((1 << self.place_bits) - 1))
        offset, width = self.request_fields["select"]
        first = (request >> offset & ((1 << width) - 1)) * self.adcs
        offset, mask = self.request_fields["digits"][0], (1 << self.dac_bits) - 1
        wordlines = np.array(
            [request >> offset + row * self.dac_bits & mask for row in range(self.rows)], np.uint8
        )
        level = drawn.still(ou, wordlines)[first : first + self.adcs]
        columns = np.arange(first, first + len(level))
        near = drawn.near(level[:, None], ou * self.cols + columns)[:, 0]
        word = 0
        for lane, code in enumerate(drawn.convert(level, ou, columns).astype(int).tolist()):
            word |= 0 if near[lane] else self.lane(code) << lane * self.lane_bits
        lanes = np.flatnonzero(near)
        return Answer(ou, word, level[lanes], lanes + first, lanes.tolist())

    def number(self, place: int) -> int:
        """Which OU lies at a place."""
        config = self.chip.config
        crossbar, row_block, col_block = (
            place >> offset & ((1 << width) - 1)
            for offset, width in map(
                self.request_fields.__getitem__, ("crossbar", "row_block", "col_block")
            )
        )
        return crossbar * config.ous_per_crossbar + row_block * config.col_blocks + col_block

    def levels(self) -> np.ndarray:
        """Return the programmed levels of the cells: [OUs, R, C], 0 where nothing was.

        With pairs they are those of the plus cells less those of the minus cells, int8.
        """
        numbers = np.array([self.number(place) for place in self.planes])
        masks = np.array(list(self.planes.values()), np.uint64)  # [places, C, cell bits]
        rows = np.arange(self.rows, dtype=np.uint64)
        bits = masks[..., None] >> rows & np.uint64(1)
        weights = 1 << np.arange(self.cell_bits)
        weights = np.concatenate([weights, -weights]) if self.pairs else weights
        kind = np.int8 if self.pairs else np.uint8
        result = np.zeros((int(numbers.max()) + 1, self.rows, self.cols), kind)
        levels = (bits.astype(np.int64) * weights[:, None]).sum(2)
        result[numbers] = levels.transpose(0, 2, 1)
        return result


@dataclass
class Fault:
    """A planted fault: the response with number ``ordinal`` since ``armed`` gets bits flipped."""

    ordinal: int
    flip: int
    armed: bool = False
    seen: int = 0

    def touch(self, word: int) -> int:
        """Pass a response on."""
        if self.armed:
            self.seen += 1
            if self.seen - 1 == self.ordinal:
                return word ^ self.flip
        return word


async def serve(
    dut,
    model: CrossbarModel,
    *,
    latency: int,
    stall: float,
    wait: random.Random,
    fault: Fault | None = None,
) -> None:
    """Stand at the crossbar port until cancelled.

    Parameters
    ----------
    latency
        Cycles from a request to its response.
    stall
        Where not 0: requests and programming beats are refused in that share of the cycles, and
        responses take up to twice the latency and 10 cycles longer.
    """
    edge = RisingEdge(dut.clk)
    request_valid, request_ready = dut.request_valid, dut.request_ready
    response_valid, response_ready = dut.response_valid, dut.response_ready
    request_payload, response_payload = dut.request_payload, dut.response_payload
    program_valid, program_payload = dut.program_valid, dut.program_payload
    taking = programming = True
    request_ready.value = 1
    dut.program_ready.value = 1
    response_valid.value = 0
    waiting: deque[tuple[int, int]] = deque()
    offered = False
    cycle = due = 0
    while True:
        await edge
        cycle += 1
        if offered and response_ready.value:
            waiting.popleft()
            offered = False
            moved = True
        else:
            moved = False
        if taking and request_valid.value:
            word = model.convert(request_payload.value.to_unsigned())
            if fault is not None:
                word = fault.touch(word)
            extra = wait.randrange(latency + 10) if stall and wait.random() < stall else 0
            due = max(due, cycle + latency + extra)
            waiting.append((due, word))
        elif programming and program_valid.value:
            model.program(program_payload.value.to_unsigned())
        if stall:
            taking = wait.random() >= stall
            programming = wait.random() >= stall
            request_ready.value = taking
            dut.program_ready.value = programming
        # What is due in the next cycle is offered from this edge on.
        if not offered and waiting and waiting[0][0] <= cycle + 1:
            response_payload.value = waiting[0][1]
            if not moved:
                response_valid.value = 1
            offered = True
        elif moved:
            response_valid.value = 0
