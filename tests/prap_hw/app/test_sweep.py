"""Sweeps: what a specification may say, keys by content, resumption, Dask, killed workers."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from prap_hw.app.stages import Subject
from prap_hw.app.sweep import points, run
from prap_hw.app.sweep.results import rows_of, sweep, write_results
from prap_hw.app.sweep.spec import Spec, read_spec
from prap_hw.app.sweep.store import Store
from prap_hw.app.tables import frame
from refmodel.config import EngineConfig
from tests.support.command_line import Prap, one_line

SPEC = """
[network]
file = "net.onnx"
calibration = "images.npz"
images = "images.npz"

[points]
schemes = ["dense", "prap"]

[engine]
adcs = [4, 8]
engines = [1, 2]

[pricing]
technologies = ["isaac-32nm"]
"""


@pytest.fixture
def spec(given: Path, tmp_path: Path) -> Path:
    for name in ("net.onnx", "images.npz"):
        shutil.copyfile(given / name, tmp_path / name)
    path = tmp_path / "sweep.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def test_a_point_to_each_combination(spec: Path) -> None:
    found = read_spec(spec)
    assert found.size() == 2 * 2 * 2
    assert [(c.adcs, n) for c, n in found.engines] == [(4, 1), (4, 2), (8, 1), (8, 2)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[points]", "[point]", "expected keys of network, points, engine, devices, pricing"),
        ("adcs = [4, 8]", "adcs = [4, 99]", "adcs must be 1 to 32, not 99"),
        ("adcs = [4, 8]", "adcs = 'many'", "expected ints as adcs, found 'many' in [engine]"),
        ('"prap"', '"prune"', "found 'prune' in [points] of sweep.toml"),
        ("engines = [1, 2]", "engines = [0]", "expected 1 to 64 engines, found 0"),
        ('"net.onnx"', '"no.onnx"', "expected a file, found none at no.onnx"),
        ('calibration = "images.npz"', "", "expected calibration, found none"),
        ('"isaac-32nm"', '"no"', "expected a technology file or one of"),
        ("[points]", "[points]\nbudgets = [0.5]", "expected budgets above 1, or 'default'"),
        ("[points]", "[points]\nbudgets = [inf]", "expected budgets above 1, or 'default'"),
        ("[points]", "[devices]\nnames = ['no']\n[points]", "expected a device file or one of"),
        ("[points]", "[devices]\nnames = ['no']\n[points]", "at no, in [devices] of sweep.toml"),
        ('"isaac-32nm"', '"no"', "found none at no, in [pricing] of sweep.toml"),
        ("[points]", "[points]\nlayout = 'x'", "expected keys of schemes, budgets, of"),
        ('file = "net.onnx"', 'file = "net.onnx"\nlayout = "x"', "not 'x', in [network] 1 of"),
        ('file = "net.onnx"', 'file = "net.onnx"\nstd = 0', "std must not be 0, not (0.0,), in [n"),
        ('file = "net.onnx"', 'file = "net.onnx"\nscale = nan', "not nan, in [network] 1 of"),
        ("[points]", "[points", "expected TOML"),
    ],
)
def test_a_bad_specification_is_one_line(
    prap: Prap, spec: Path, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in SPEC
    spec.write_text(SPEC.replace(old, new), encoding="utf-8")
    code, _, err = prap("sweep", spec, "-o", tmp_path / "out")
    assert code == 2
    assert expected in one_line(err)
    assert not (tmp_path / "out").exists()


def test_the_second_run_works_out_nothing_and_says_the_same(
    prap: Prap, spec: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, err = prap("sweep", spec, "-o", out)
    assert (code, err) == (0, "")
    assert "8 points, 0 of them failed; worked out now: 2 compile, 8 events" in text
    first = (out / "sweep.csv").read_bytes()
    code, text, _ = prap("sweep", spec, "-o", out)
    assert code == 0
    assert "worked out now: 0 compile, 0 events, 0 device, 0 float" in text
    assert (out / "sweep.csv").read_bytes() == first
    assert "Pareto front" in (out / "sweep.html").read_text(encoding="utf-8")


def test_another_price_compiles_nothing(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before, _ = sweep(spec, out)
    text = SPEC.replace('["isaac-32nm"]', '["isaac-32nm", "modern-22nm"]')
    spec.write_text(text, encoding="utf-8")
    after, done = sweep(spec, out)
    assert done["worked_out"]["compile"] == 0
    assert len(after) == 2 * len(before)
    assert [row for row in after if row["technology"] == "isaac-32nm"] == before


def test_keys_follow_content_not_names(given: Path, tmp_path: Path) -> None:
    def key(name: str, **changes) -> str:
        files = {"network": str(tmp_path / name), "calibration": (str(given / "images.npz"),)}
        subject = Subject(**(files | changes))
        return points.compile_key(subject, "prap", None, "ous", EngineConfig())

    for name in ("one.onnx", "two.onnx"):
        shutil.copyfile(given / "net.onnx", tmp_path / name)
    (tmp_path / "three.onnx").write_bytes((given / "net.onnx").read_bytes() + b"\0")
    assert key("one.onnx") == key("two.onnx")
    assert key("one.onnx") != key("three.onnx")
    assert key("one.onnx") != key("one.onnx", scale=0.5)


def test_a_point_that_fails_is_a_row_with_its_reason(spec: Path, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("[points]", "[points]\nbudgets = [1e6]"), encoding="utf-8")
    rows, done = sweep(spec, tmp_path / "out")
    assert done["problems"] == {}
    failed = [row for row in rows if row["failed"] is not None]
    assert {row["scheme"] for row in failed} == {"prap"}
    assert "found 1e+06 times fewer ous" in failed[0]["failed"]
    assert {row["scheme"] for row in rows if row["failed"] is None} == {"dense"}


def test_a_sweep_of_which_no_point_can_be_says_why(prap: Prap, spec: Path, tmp_path: Path) -> None:
    text = SPEC.replace('["dense", "prap"]', '["prap"]\nbudgets = [1e6]')
    spec.write_text(text, encoding="utf-8")
    code, out, err = prap("sweep", spec, "-o", tmp_path / "out")
    assert (code, "4 points, 4 of them failed" in out) == (2, True)
    assert "expected a point that can be worked out, found none in " in one_line(err)
    assert "1e+06 times fewer ous" in err
    assert (tmp_path / "out" / "sweep.csv").read_text().count("1e+06") == 4


def test_a_file_in_the_place_of_the_folder_is_refused_at_once(
    prap: Prap, spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        for verb in (("sweep", spec), ("compare", "none.onnx", "--calibration", "none.npz")):
            code, _, err = prap(*verb, "-o", out)
            expected = f"expected a folder to write, found a file at {tmp_path / 'taken'}"
            assert (code, one_line(err)) == (2, f"prap: error: {expected}")


def test_a_fault_is_told_and_tried_again(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(points, "compiled", broken)
        rows, done = sweep(spec, tmp_path / "out")
    assert set(done["problems"].values()) == {"OSError: no space left"}
    assert {row["failed"] for row in rows} == {"it was not worked out"}
    rows, done = sweep(spec, tmp_path / "out")
    assert done["problems"] == {}
    assert {row["failed"] for row in rows} == {None}


def test_half_a_record_counts_as_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("compile", "0" * 32, {}, result=1)
    path = store.path("compile", "0" * 32)
    assert store.read("compile", "0" * 32) == json.loads(path.read_text(encoding="utf-8"))
    path.write_text(path.read_text(encoding="utf-8")[:20], encoding="utf-8")
    assert store.read("compile", "0" * 32) is None


def test_accuracy_on_devices_is_of_several_chips(spec: Path, tmp_path: Path) -> None:
    text = SPEC.replace(
        "[points]", "[devices]\nnames = ['ideal', 'wan-2022']\ntrials = 2\n[points]"
    )
    spec.write_text(text.replace("engines = [1, 2]", ""), encoding="utf-8")
    rows, done = sweep(spec, tmp_path / "out")
    assert done["worked_out"]["device"] == 4
    real = [row for row in rows if row["device"] == "wan-2022"]
    assert len(real) == 4
    assert all(row["accuracy_spread"] is not None for row in real)


def test_tables_are_those_of_pandas_where_it_is(spec: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs the extra sweep")
    rows, _ = sweep(spec, tmp_path / "out")
    table = frame(rows)
    assert isinstance(table, pandas.DataFrame)
    assert table["energy"].tolist() == [row["energy"] for row in rows]
    written = write_results(rows, tmp_path / "out", title="Trial")
    stored = pandas.read_parquet(next(path for path in written if path.suffix == ".parquet"))
    assert stored["cycles"].tolist() == table["cycles"].tolist()


def test_both_a_cluster_and_workers_are_refused(prap: Prap, spec: Path, tmp_path: Path) -> None:
    options = ("--workers", 2, "--scheduler", "tcp://127.0.0.1:9")
    code, _, err = prap("sweep", spec, "-o", tmp_path / "out", *options)
    assert (code, one_line(err)) == (
        2,
        "prap: error: expected one of --workers and --scheduler, found both",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_there_has_the_figures_of_one_process(
    prap: Prap, spec: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra sweep")
    expected, _ = sweep(spec, tmp_path / "alone")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        code, text, _ = prap(
            "sweep", spec, "-o", tmp_path / "out", "--scheduler", cluster.scheduler_address
        )
    assert code == 0
    assert "worked out now: 2 compile, 8 events" in text
    assert rows_of(read_spec(spec), tmp_path / "out") == expected


def slow_events(folder: str, program: str, config: EngineConfig, engines: int, latency: int) -> int:
    """Count events, after leaving word of the process; the first one waits to be killed."""
    mark = Path(folder).parent / "victim"
    if not mark.exists():
        mark.write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(60)
    return points.count_events(folder, program, config, engines, latency)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_loses_nothing(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="needs the extra sweep")
    expected, _ = sweep(spec, tmp_path / "alone")
    out = tmp_path / "out"
    tasks = run._event_tasks

    def slowed(chosen: Spec, where: str, ready: dict) -> list[run.Task]:
        found = tasks(chosen, where, ready)
        return [
            run.Task(name=task.name, function=slow_events, arguments=task.arguments)
            for task in found
        ]

    monkeypatch.setattr(run, "_event_tasks", slowed)

    def kill() -> None:
        mark = out / "victim"
        while not mark.exists() or not mark.read_text(encoding="utf-8"):
            time.sleep(0.05)
        os.kill(int(mark.read_text(encoding="utf-8")), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = run.run_points(read_spec(spec), out, workers=2)
    killer.join(timeout=10)
    assert not killer.is_alive()
    assert done["problems"] == {}
    assert rows_of(read_spec(spec), out) == expected
