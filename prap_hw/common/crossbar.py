"""The crossbar port, and the emulated crossbar that can stand at its other end."""

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.common.layouts import Layouts
from refmodel.config import EngineConfig, bits_for


def crossbar_port(config: EngineConfig) -> wiring.Signature:
    """The analog boundary, as the engine sees it.

    Members
    -------
    request : ``Out(stream)``
        Convert: the place of an OU, the digits on its wordlines, and which ``adcs`` of its columns.
    response : ``In(stream)``
        ``adcs`` codes for each request, in order, after any number of cycles from 1 on.
    program : ``Out(stream)``
        Write one row of an OU: place, row within the OU, one cell to a bitline.
    """
    layouts = Layouts(config)
    return wiring.Signature(
        {
            "request": Out(stream.Signature(layouts.request)),
            "response": In(stream.Signature(layouts.response)),
            "program": Out(stream.Signature(layouts.cells)),
        }
    )


SMALL = 3
"""Bits of a number that is added to another without a chain of carries."""


class EmulatedCrossbar(wiring.Component):
    """Crossbars of ideal cells: block RAM, products, their sum, clip to the ADC's range.

    code[j] = min(sum over rows r of cell[r, column j] * digit[r], 2**code_bits - 1), where the
    columns are ``select * adcs`` to ``select * adcs + adcs - 1`` of the OU; 0 beyond its last one.
    With pairs it is the sum over plus cells less that over minus cells, at least
    -(2**code_bits - 1).

    A response follows its request by ``crossbar_latency`` cycles; throughput is one request per
    cycle. Where the response is not taken, the whole pipeline stands: ``port.request.ready``
    depends combinationally on ``port.response.ready``. Programming is always accepted. Reset
    empties the pipeline and keeps the cells.

    Members
    -------
    port : ``In(crossbar_port(config))``
        The engine's port.
    """

    port: Any

    def __init__(self, config: EngineConfig):
        self.config = config
        self.layouts = Layouts(config)
        super().__init__({"port": In(crossbar_port(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        config, layouts = self.config, self.layouts
        request, response = self.port.request, self.port.response
        # Words for the crossbars that there are: a place has a bit for the crossbar even of one.
        block_bits = bits_for(config.row_blocks) + bits_for(config.col_blocks)

        def place(payload):
            return Cat(payload.col_block, payload.row_block, payload.crossbar)

        move = Signal()
        m.d.comb += [request.ready.eq(move), self.port.program.ready.eq(1)]

        # One memory to a row of the OUs: a programming beat writes one of them.
        write = self.port.program
        rows = []
        for r in range(config.ou_rows):
            m.submodules[f"row_{r}"] = memory = Memory(
                shape=config.ou_cols * config.stored_bits,
                depth=config.crossbars << block_bits,
                init=[],
            )
            w = memory.write_port()
            read = memory.read_port(domain="sync")
            m.d.comb += [
                w.en.eq(write.valid & (write.payload.row == r)),
                w.addr.eq(place(write.payload)),
                w.data.eq(write.payload.cells),
                read.en.eq(move),
                read.addr.eq(place(request.payload)),
            ]
            rows.append(read.data)
        digits = Signal.like(request.payload.digits)
        select = Signal.like(request.payload.select)
        valid = Signal()
        with m.If(move):
            m.d.sync += [
                digits.eq(request.payload.digits),
                select.eq(request.payload.select),
                valid.eq(request.valid),
            ]

        # Bits of a product, and of the largest sum; 1-bit operands need no multiplier.
        cell_bits, dac_bits = config.cell_bits, config.dac_bits
        most = config.ou_rows * ((1 << cell_bits) - 1) * ((1 << dac_bits) - 1)
        kind = layouts.response.elem_shape
        codes = []
        for j in range(config.adcs):
            levels = []
            # Of a pair the plus cell has the low bits.
            for side in ("", "minus_")[: 1 + config.pairs]:
                products = []
                for r, row in enumerate(rows):
                    # Converters beyond the OU's last column see none.
                    columns = [chunk * config.adcs + j for chunk in range(layouts.columns.chunks)]
                    cells = Array(
                        row.word_select((column << config.pairs) + bool(side), cell_bits)
                        if column < config.ou_cols
                        else Const(0)
                        for column in columns
                    )
                    cell = Signal(cell_bits, name=f"{side}cell_{j}_{r}")
                    m.d.comb += cell.eq(cells[select] if len(columns) > 1 else cells[0])
                    if cell_bits == 1:
                        product = Mux(cell, digits[r], 0)
                    elif dac_bits == 1:
                        product = Mux(digits[r], cell, 0)
                    else:
                        product = cell * digits[r]
                    products.append(product)
                level = Signal(range(most + 1), name=f"{side}level_{j}")
                m.d.comb += level.eq(_sum(m, products, f"{side}sum_{j}"))
                levels.append(level)
            code = Signal(kind, name=f"code_{j}")
            level = levels[0] - levels[1] if config.pairs else levels[0]
            if config.lossless:
                m.d.comb += code.eq(level)
            elif config.pairs:
                m.d.comb += code.eq(_within(level, config.max_code))
            else:
                m.d.comb += code.eq(_clip(level, config.max_code))
            codes.append(code)

        # The rest of the latency is a plain pipeline.
        for stage in range(config.crossbar_latency - 1):
            later_valid = Signal(name=f"valid_{stage}")
            later = [Signal(kind, name=f"code_{stage}_{j}") for j in range(config.adcs)]
            with m.If(move):
                m.d.sync += later_valid.eq(valid)
                m.d.sync += [new.eq(old) for new, old in zip(later, codes, strict=True)]
            valid, codes = later_valid, later
        m.d.comb += [response.valid.eq(valid), move.eq(~valid | response.ready)]
        m.d.comb += [response.payload[j].eq(code) for j, code in enumerate(codes)]
        return m


def _clip(level: Value, top: int) -> Value:
    """The lesser of a level and the largest code."""
    return Mux(level > top, top, level)


def _within(level: Value, top: int) -> Value:
    """A level, but for those beyond the largest code and its negative."""
    return Mux(level < -top, -top, _clip(level, top))


def _sum(m: Module, terms: list[Value], name: str) -> Value:
    """Sum, as a balanced tree of adders; of small numbers without chains of carries.

    Two numbers of two bits are one LUT to a bit of their sum, where a chain of carries costs an
    FPGA the time of several LUTs, however short it is.
    """
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    left, right = (
        _sum(m, part, f"{name}_{side}")
        for side, part in enumerate((terms[:middle], terms[middle:]))
    )
    if max(len(left), len(right)) > SMALL:
        return left + right
    total = Signal(max(len(left), len(right)) + 1, name=name)
    carry: Value = Const(0, 1)
    for place in range(len(total) - 1):
        one, other = (term[place] if place < len(term) else Const(0, 1) for term in (left, right))
        m.d.comb += total[place].eq(one ^ other ^ carry)
        carry = (one & other) | ((one | other) & carry)
    m.d.comb += total[-1].eq(carry)
    return total
