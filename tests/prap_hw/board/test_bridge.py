"""The serial bridge in Amaranth's simulator, with the driver's transport at the line."""

import re
from types import ModuleType
from typing import Any

import pytest

from prap_hw.driver import BusError, WaitError
from prap_hw.driver.link import ASK, END, Ask, frame
from prap_hw.driver.serial import SerialTransport
from tests.support.rtl import mutants
from tests.support.rtl.bridge_line import BYTE, KHZ, BridgeLine
from tests.support.rtl.mutants import Mutant

PATIENCE = 0.02


def opened(**settings: Any) -> tuple[BridgeLine, SerialTransport]:
    line = BridgeLine(**settings)
    return line, SerialTransport(line, patience=PATIENCE, tries=3)


def packet_of(beats) -> bytes:
    """Bytes of beats, those that TKEEP marks."""
    return b"".join(data.to_bytes(8, "little")[: keep.bit_count()] for data, keep, _ in beats)


def test_registers_packets_outputs_and_the_interrupt():
    line, host = opened(in_bytes=512, out_bytes=32)
    assert (host.khz, host.ahead) == (KHZ, 512)
    host.write32(4, 0x00123456)
    assert host.read32(4) == 0x01123456
    with pytest.raises(BusError):
        host.read32(16)
    with pytest.raises(BusError):
        host.write32(16, 0)
    data = bytes([END, 0xDB, *range(250), 1, 2, 3])
    host.send(data)
    host.send(b"\x05")
    line.run(600)
    assert packet_of(line.beats[:-1]) == data
    assert [keep for _, keep, _ in line.beats[-2:]] == [(1 << len(data) % 8) - 1 or 0xFF, 1]
    assert [last for *_, last in line.beats] == [0] * (len(line.beats) - 2) + [1, 1]
    # More outputs than there is room for wait at the port; the first packet ends well.
    line.outputs.extend([(0x0807060504030201, 0xFF, 0, 0)] * 5 + [(0x0A09, 3, 1, 0)])
    line.outputs.append((0, 1, 1, 1))
    line.run(200)
    assert len(line.outputs) > 0
    assert host.receive(0.1) == (bytes(range(1, 9)) * 5 + b"\x09\x0a", False)
    assert host.receive(0.1) == (b"\0", True)
    assert not host.wait_interrupt(0.001)
    line.irq = True
    assert host.wait_interrupt(0.001)
    assert host.counts.repeated == 0


def test_frames_that_are_wrong_leave_no_trace_and_a_write_is_done_once():
    line, host = opened(in_bytes=64, out_bytes=16)
    session = host._session

    def ask(kind: Ask, number: int, place: int, value: int, more: bytes = b"") -> bytes:
        return frame(ASK.pack(kind, session, number, place, value) + more)

    good = ask(Ask.WRITE, 200, 8, 5)
    garbled = good[:7] + bytes([good[7] ^ 1]) + good[8:]
    other = frame(ASK.pack(Ask.WRITE, session ^ 1, 201, 8, 6))
    short = frame(ASK.pack(Ask.WRITE, session, 202, 8, 7)[:-1])
    long = ask(Ask.WRITE, 203, 8, 8, b"\0")
    for wrong in (garbled, other, short, long, ask(Ask.STREAM, 0, 3, 1, b"gap"), good, good):
        line.write(wrong)
        line.run(BYTE * 60)
    # Done once: the top byte counts.
    assert host.read32(8) == 0x01000005
    # More than there is room for is not taken, and what comes after it is.
    line.takes = False
    line.write(ask(Ask.STREAM, 0, 0, 1, bytes(100)))
    line.run(BYTE * 140)
    line.takes = True
    host.send(b"taken")
    line.run(100)
    assert packet_of(line.beats) == b"taken"


def test_a_new_session_ends_the_packet_that_was_begun():
    line, _ = opened(in_bytes=64, out_bytes=16)
    line.takes = False
    session = SerialTransport(line, patience=PATIENCE, tries=3)._session
    line.write(frame(ASK.pack(Ask.STREAM, session, 0, 0, 0) + bytes(range(20))))
    line.run(BYTE * 40)
    host = SerialTransport(line, patience=PATIENCE, tries=3)
    line.takes = True
    host.send(b"whole")
    line.run(100)
    # The beat that stood at the port stays; then the end of its packet, and the next one.
    assert packet_of(line.beats[:1]) == bytes(range(8))
    assert [last for *_, last in line.beats] == [0, 1, 1]
    assert packet_of(line.beats[2:]) == b"whole"


CRC = Mutant("frames", "any CRC is right", (("crc.match_detected & ~wrong", "~wrong"),), "")
ONCE = Mutant(
    "bridge", "a write is done again", (("wrote & (written == request.number)", "0"),), ""
)
PLACE = Mutant("bridge", "bytes of any position", (("& (head.place == packets.head)", ""),), "")
ROOM = Mutant("bridge", "bytes without room", (("& ~spilt", ""), ("& ~packets.full", "")), "")
FOUND: tuple[tuple[Mutant, type[Exception], str], ...] = (
    (CRC, AssertionError, f"assert {0x01000105:d} == {0x01000005:d}"),
    (ONCE, AssertionError, f"assert {0x02000005:d} == {0x01000005:d}"),
    (PLACE, AssertionError, "== b'taken'"),
    (ROOM, WaitError, "to take a packet of 5 bytes, found it standing at 0"),
)
"""How each mutant is found: the garbled write was done, a write was done twice, the packet has
bytes of the frame behind a gap, and the packet that there is no room for has filled the memory."""


def mutated(mutant: Mutant) -> Any:
    """A bridge of which one module is the mutant's."""
    module: ModuleType = mutants.load(mutant)
    if mutant.module == "bridge":
        return module.SerialBridge
    bridge: Any = mutants.load(Mutant("bridge", "", (), ""))
    bridge.FrameReceiver = module.FrameReceiver
    return bridge.SerialBridge


@pytest.mark.long
@pytest.mark.parametrize(("mutant", "error", "said"), FOUND, ids=[str(each[0]) for each in FOUND])
def test_a_bridge_without_one_of_its_checks_is_found(mutant, error, said, monkeypatch):
    monkeypatch.setattr("tests.support.rtl.bridge_line.SerialBridge", mutated(mutant))
    with pytest.raises(error, match=re.escape(said)):
        test_frames_that_are_wrong_leave_no_trace_and_a_write_is_done_once()


@pytest.mark.long
@pytest.mark.parametrize("module", ["bridge", "frames"])
def test_a_bridge_that_is_loaded_in_the_same_way_without_an_edit_passes(module, monkeypatch):
    made = mutated(Mutant(module, "no edit", (), ""))
    monkeypatch.setattr("tests.support.rtl.bridge_line.SerialBridge", made)
    test_frames_that_are_wrong_leave_no_trace_and_a_write_is_done_once()
