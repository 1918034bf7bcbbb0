"""Members that several tops have, and what passes them through a wrapper."""

from collections.abc import Mapping
from typing import Any

from amaranth import Module
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Member, Out

from prap_hw.common.faults import FAULT
from prap_hw.common.layouts import COUNTER_BITS, COUNTERS, Layouts, valid_only


def run_members(layouts: Layouts, output: ShapeLike) -> dict[str, Member]:
    """Members of what is loaded, started, and sends codes: an engine, an accelerator.

    Parameters
    ----------
    layouts
        Those of its configuration; with ``trace`` there are the valid-only trace ports, too.
    output
        Payload of the stream ``o``.
    """
    members = {
        "i_load": In(stream.Signature(layouts.load)),
        "i_cells": In(stream.Signature(layouts.cells)),
        "i_acts": In(stream.Signature(layouts.acts)),
        "start": In(1),
        "busy": Out(1),
        "fault": Out(FAULT),
        "o": Out(stream.Signature(output)),
        "counters": Out(wiring.Signature({name: Out(COUNTER_BITS) for name in COUNTERS})),
    }
    if layouts.config.trace:
        members |= {
            "trace_psum": Out(valid_only(layouts.trace_psums, layouts.columns.ends)),
            "trace_acc": Out(valid_only(layouts.trace_acc)),
        }
    return members


def port_trace_members(layouts: Layouts) -> dict[str, Member]:
    """Valid-only ports that show what passes a crossbar port within; none without ``trace``."""
    if not layouts.config.trace:
        return {}
    return {
        "trace_request": Out(valid_only(layouts.request)),
        "trace_codes": Out(valid_only(layouts.response)),
    }


def trace_port(m: Module, shown: Any, port: Any) -> None:
    """Show the requests and responses that are taken at a port.

    Parameters
    ----------
    shown
        Has :func:`port_trace_members`.
    port
        The crossbar port, as the engine has it.
    """
    request, response = port.request, port.response
    m.d.comb += [
        shown.trace_request.valid.eq(request.valid & request.ready),
        shown.trace_request.payload.eq(request.payload),
        shown.trace_codes.valid.eq(response.valid & response.ready),
        shown.trace_codes.payload.eq(response.payload),
    ]


def pass_through(m: Module, members: Mapping[str, Member], inner: Any, outer: Any) -> None:
    """Connect members of a component to those of the same name of what it is within."""
    for name, member in members.items():
        one, other = getattr(inner, name), getattr(outer, name)
        if member.dimensions:
            for within, without in zip(one, other, strict=True):
                wiring.connect(m, within, wiring.flipped(without))
        elif member.is_signature:
            wiring.connect(m, one, wiring.flipped(other))
        elif member.flow == In:
            m.d.comb += one.eq(other)
        else:
            m.d.comb += other.eq(one)
