"""Frames, and the driver's transport, against a model of the board."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prap_hw.driver import BusError, WaitError
from prap_hw.driver.link import END, ESC, Frames, frame
from prap_hw.driver.serial import LinkError, SerialTransport, open_serial
from tests.support.board_model import BoardModel, beat_outputs
from tests.support.noisy_line import NoisyLine

PATIENCE = 0.01


def transport(board, **settings) -> SerialTransport:
    return SerialTransport(board, patience=PATIENCE, **settings)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 7))
def test_frames_come_out_as_they_went_in_however_they_are_cut(bodies, cut):
    data = b"".join(map(frame, bodies))
    frames, found = Frames(), []
    for at in range(0, len(data), cut):
        found += frames.feed(data[at : at + cut])
    assert found == bodies
    assert frames.bad == 0


def test_a_frame_by_hand():
    # CRC-32 of "123456789" is 0xCBF43926, as in every catalogue.
    assert frame(b"123456789") == b"\xc0123456789\x26\x39\xf4\xcb\xc0"
    assert frame(bytes([END, ESC]))[1:5] == bytes([ESC, END ^ 0x20, ESC, ESC ^ 0x20])


@pytest.mark.parametrize("damage", ["lost", "doubled", "garbled"])
def test_any_byte_that_is_damaged_spoils_its_frame_and_no_later_one(damage):
    draw = random.Random(3)
    body = bytes([END, ESC, 0, 1, 2, 255, END, ESC, ESC])
    good = frame(body)
    for at in range(1, len(good)):
        changed = {
            "lost": good[:at] + good[at + 1 :],
            "doubled": good[: at + 1] + good[at:],
            "garbled": good[:at] + bytes([good[at] ^ draw.randrange(1, 256)]) + good[at + 1 :],
        }[damage]
        found = Frames().feed(changed + frame(b"next") + frame(b"after"))
        # An end of it that is doubled or lost is none: the next frame begins with another one.
        spoilt = damage == "garbled" or at < len(good) - 1
        assert found == [*([] if spoilt else [body]), b"next", b"after"], at


def test_registers_are_read_and_written_and_refusals_are_errors():
    board = BoardModel()
    host = transport(board)
    host.write32(0x20, 0xDEADBEEF)
    assert host.read32(0x20) == 0xDEADBEEF
    for refused in (lambda: host.read32(0x34), lambda: host.write32(0x34, 1)):
        with pytest.raises(BusError, match="of 0x034 was answered by an error"):
            refused()
    # The session goes on.
    assert host.read32(0x20) == 0xDEADBEEF
    assert host.counts.sessions == 1


@pytest.mark.parametrize("length", [1, 15, 240, 241, 5000, 70_000])
def test_packets_of_any_length_arrive_whole(length):
    board = BoardModel()
    data = bytes(k * 7 % 256 for k in range(length))
    host = transport(board)
    host.send(data)
    host.send(data[::-1])
    assert board.packets == [data, data[::-1]]
    assert host.counts.repeated == 0


@pytest.mark.parametrize("bad", [False, True])
def test_outputs_come_once_with_their_mark(bad):
    board = BoardModel()
    host = transport(board)
    data = bytes(k % 251 for k in range(700))
    board.outputs = beat_outputs(data, bad=bad) + beat_outputs(b"next")
    assert host.receive(1.0) == (data, bad)
    assert host.receive(1.0) == (b"next", False)
    with pytest.raises(WaitError, match=r"a packet of outputs within 0\.5 seconds"):
        host.receive(0.5)
    host.arm(4)
    board.outputs = beat_outputs(b"anew")
    assert host.receive(1.0) == (b"anew", False)


def test_the_interrupt_is_waited_for():
    board = BoardModel()
    host = transport(board)
    before = board.seconds
    assert not host.wait_interrupt(0.3)
    assert 0.3 <= board.seconds - before < 0.4
    board.irq = True
    assert host.wait_interrupt(0.3)


@pytest.mark.parametrize("seed", range(30))
def test_a_bad_line_changes_nothing_but_the_time(seed):
    board = BoardModel()
    line = NoisyLine(board, seed=seed, lost=0.001, doubled=0.001, garbled=0.001)
    host = transport(line, tries=200)
    draw = random.Random(seed)
    packets, writes = [], []
    for number in range(12):
        data = draw.randbytes(draw.randrange(1, 900))
        host.send(data)
        packets.append(data)
        host.write32(0x10, number)
        writes.append((0x10, number))
        assert host.read32(0x10) == number
        host.arm(300)
        outputs = draw.randbytes(draw.randrange(1, 300))
        board.outputs = beat_outputs(outputs)
        assert host.receive(1.0) == (outputs, False)
    assert board.packets == packets
    assert board.writes == writes
    assert host.counts.repeated > 0
    assert sum(line.damages.values()) > 0


def test_a_write_whose_answer_is_lost_is_done_once():
    board = BoardModel()
    host = transport(board)
    real = board.write
    lost: list[bytes] = []

    def deaf(data: bytes, /) -> int:
        length = real(data)
        if len(lost) < 3:
            lost.append(bytes(board.sent))
            board.sent.clear()
        return length

    board.write = deaf
    host.write32(0x10, 1)
    assert board.writes == [(0x10, 1)]
    assert host.counts.repeated == 3


def test_without_a_board_there_is_an_error_after_some_tries():
    line = NoisyLine(BoardModel(), lost=1.0)
    with pytest.raises(LinkError, match="an answer to HELLO from the board, found none in 4 tries"):
        transport(line, tries=4)


def test_a_board_of_another_version_is_refused():
    board = BoardModel()
    board.protocol = 9
    with pytest.raises(LinkError, match="expected a board of version 1, found version 9"):
        transport(board)


def test_a_board_that_was_reset_is_an_error_and_then_a_new_session():
    board = BoardModel()
    host = transport(board)
    board.reset()
    with pytest.raises(LinkError, match="found it reset or in another host's"):
        host.read32(0x20)
    assert host.read32(0x20) == 0
    assert host.counts.sessions == 2


def test_a_cable_that_is_pulled_in_a_packet_leaves_the_next_packets_whole():
    board = BoardModel()
    line = NoisyLine(board)
    host = transport(line, tries=3)
    line.pull_after = 400
    with pytest.raises((LinkError, WaitError)):
        host.send(bytes(2000))
    line.quiet()
    host.send(b"whole")
    assert board.packets == [b"whole"]
    assert host.counts.sessions == 2


def test_a_shell_that_takes_nothing_is_waited_for_and_then_an_error():
    board = BoardModel(room=256)
    board.takes = False
    host = transport(board, tries=3)
    assert host.ahead == 256
    with pytest.raises(WaitError, match="to take a packet of 300 bytes, found it standing at 240"):
        host.send(bytes(300))


def test_a_port_that_is_none_is_one_line():
    pytest.importorskip("serial", reason="needs the extra fpga")
    with pytest.raises(LinkError, match="expected a serial port at /dev/no-such-port, found"):
        open_serial("/dev/no-such-port")
