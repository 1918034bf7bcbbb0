"""The crossbar port, and the emulated crossbar that can stand at its other end."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from prap_hw.layouts import Layouts
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


class EmulatedCrossbar(wiring.Component):
    """Crossbars of ideal cells: block RAM, AND, population count, clip to the ADC's range.

    code[j] = min(sum over rows r of cell[r, column j] * digit[r], 2**code_bits - 1), where the
    columns are ``select * adcs`` to ``select * adcs + adcs - 1`` of the OU.

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
        place_bits = (
            bits_for(config.crossbars) + bits_for(config.row_blocks) + bits_for(config.col_blocks)
        )

        def place(payload):
            return Cat(payload.col_block, payload.row_block, payload.crossbar)

        move = Signal()
        m.d.comb += [request.ready.eq(move), self.port.program.ready.eq(1)]

        # One memory to a row of the OUs: a programming beat writes one of them.
        write = self.port.program
        rows = []
        for r in range(config.ou_rows):
            m.submodules[f"row_{r}"] = memory = Memory(
                shape=config.ou_cols, depth=1 << place_bits, init=[]
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

        clips = config.ou_rows > config.max_code
        codes = []
        for j in range(config.adcs):
            columns = Array(
                Cat(row[chunk * config.adcs + j] & (digits[r] != 0) for r, row in enumerate(rows))
                for chunk in range(layouts.chunks)
            )
            active = Signal(config.ou_rows, name=f"active_{j}")
            count = Signal(range(config.ou_rows + 1), name=f"count_{j}")
            code = Signal(config.code_bits, name=f"code_{j}")
            m.d.comb += [
                active.eq(columns[select]),
                count.eq(_population(active)),
                code.eq(Mux(count > config.max_code, config.max_code, count) if clips else count),
            ]
            codes.append(code)

        # The rest of the latency is a plain pipeline.
        for stage in range(config.crossbar_latency - 1):
            later_valid = Signal(name=f"valid_{stage}")
            later = [Signal(config.code_bits, name=f"code_{stage}_{j}") for j in range(config.adcs)]
            with m.If(move):
                m.d.sync += later_valid.eq(valid)
                m.d.sync += [new.eq(old) for new, old in zip(later, codes, strict=True)]
            valid, codes = later_valid, later
        m.d.comb += [response.valid.eq(valid), move.eq(~valid | response.ready)]
        m.d.comb += [response.payload[j].eq(code) for j, code in enumerate(codes)]
        return m


def _population(bits):
    """Number of ones, as a balanced tree of adders."""
    if len(bits) == 1:
        return bits
    middle = len(bits) // 2
    return _population(bits[:middle]) + _population(bits[middle:])
