"""A short slice of the fuzzing, the same on every run; ``make fuzz`` is the long one.

Examples are derived from the test itself (the profile ``prap`` in conftest.py), so there is no seed
to print: a failing example is printed as the bytes of its file.
"""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refmodel.errors import InputError
from tests.fuzz import damage, judge, readers

EXAMPLES = {
    "network": 60,
    "images": 120,
    "program": 60,
    "tflite": 40,
    "preprocess": 60,
    "picture": 40,
}
"""Damaged files in ``make test``: a second or two of each kind."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_damaged_files_are_refused_or_work(kind, folder):
    tried = {"refused": 0, "accepted": 0}

    @settings(
        settings.get_profile("prap"),
        max_examples=EXAMPLES[kind],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(readers.STRATEGIES[kind])
    def read(file):
        path = folder / judge.NAMES[kind]
        path.write_bytes(file.content)
        tried[judge.judge(kind, path)] += 1

    read()
    assert sum(tried.values()) >= EXAMPLES[kind] // 2
    assert tried["refused"]


def test_files_without_damage_are_accepted(folder):
    for content in damage.network_files():
        path = folder / "net.onnx"
        path.write_bytes(content)
        assert judge.judge("network", path) == "accepted"
    for content in readers.tflite_contents():
        path = folder / "net.tflite"
        path.write_bytes(content)
        assert judge.judge("tflite", path) == "accepted"
    for content in readers.picture_contents():
        path = folder / "picture.png"
        path.write_bytes(content)
        assert judge.judge("picture", path) == "accepted"
    for header, arrays in damage.program_members():
        path = folder / "net.prap"
        path.write_bytes(damage.program_file(header, arrays))
        assert judge.judge("program", path) == "accepted"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        pytest.param(KeyError("x"), "'x'", id="other exception"),
        pytest.param(InputError("one\ntwo lines of text"), "one clear line", id="two lines"),
        pytest.param(InputError(""), "one clear line", id="nothing said"),
    ],
)
def test_the_judge_rejects_a_reader_that_misbehaves(problem, message, folder, monkeypatch):
    def reader(path):
        raise problem

    monkeypatch.setattr(judge, "load_images", reader)
    with pytest.raises((KeyError, judge.MisbehaviourError), match=message):
        judge.judge("images", folder / "images.npz")


def test_the_judge_sees_that_memory_ran_out(folder, monkeypatch):
    def reader(path):
        try:
            raise MemoryError
        except MemoryError as error:
            raise InputError("expected a file, found another") from error

    monkeypatch.setattr(judge, "load_images", reader)
    with pytest.raises(judge.MisbehaviourError, match="expected a limit, found MemoryError"):
        judge.judge("images", folder / "images.npz")


def test_the_long_run_counts_files_and_ends(root, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--files", "20", "--workers", "1"]
    command += ["--seed", "1", "--out", str(tmp_path / "fuzz"), "--kinds", "network,tflite,picture"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fuzz: seed 1" in done.stdout
    assert done.stdout.count(": 20 files") == 3
    assert "fuzz: 60 files, 0 different findings" in done.stdout


def bombs():
    return [
        pytest.param("images", lambda: damage.gzip_bomb(b"\0\0\x08\x01" + b"\xff" * 4), id="gzip"),
        pytest.param("images", lambda: damage.zip_bomb("x.npy", b""), id="npz"),
        pytest.param("program", lambda: damage.zip_bomb("header.json", b"["), id="header"),
        pytest.param("program", lambda: damage.zip_bomb("layer0.bias.npy", b""), id="array"),
    ]


@pytest.mark.parametrize(("kind", "make"), bombs())
def test_a_bomb_is_refused_before_it_is_unpacked(kind, make, folder):
    path = folder / judge.NAMES[kind]
    path.write_bytes(make())
    assert judge.judge(kind, path) == "refused"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_every_reader(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for kind in judge.NAMES:
        assert judge.judge(kind, path) == "refused"
