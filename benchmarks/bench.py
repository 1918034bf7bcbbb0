"""How fast the golden model and the bulk tier are, against what they should be: make bench.

Every job runs in a process of its own, on one thread, so that its peak of memory is its own (Python
and numpy are in it, some 40 MB). The machine's own speed is taken in the same process right before:
the product of two float64 matrices of 1024 x 1024. Times are the wall clock's; a job that says less
CPU time shared its core with something else.

Networks, images and published settings are read from the folder of given data (PRAP_SHARED,
../shared by default). Without it, ResNet-20 has random parameters and images, which takes as long,
and the jobs of VGG16's published settings are left out.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PRAP_SHARED", ROOT.parent / "shared"))
SEED = 7

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the images that the published ResNet-20 was trained with."""

Figures = dict[str, Any]
"""``value``, ``unit``, ``seconds`` (wall), ``cpu`` (seconds), ``note``."""


REPEAT = 3
"""Times that a job of less than a second is run; the fastest counts."""


def timed(run: Callable[[], object]) -> Figures:
    """Wall and CPU seconds of a call."""
    found: list[Figures] = []
    while not found or (len(found) < REPEAT and found[0]["seconds"] < 1):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        found.append({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
    return min(found, key=lambda each: each["seconds"])


def seconds(run: Callable[[], object], note: str = "") -> Figures:
    """Figures of a job that should take few seconds."""
    found = timed(run)
    return found | {"value": found["seconds"], "unit": "s", "note": note}


def rate(run: Callable[[], object], images: int, note: str = "") -> Figures:
    """Figures of a job that should do many images a second."""
    found = timed(run)
    return found | {"value": images / found["seconds"], "unit": "images/s", "note": note}


def gflops() -> float:
    """The machine's rate of float64 matrix products, the best of five."""
    import numpy as np

    a = np.random.default_rng(SEED).normal(size=(1024, 1024))
    return 2 * 1024**3 / min(timed(lambda: a @ a)["seconds"] for _ in range(5)) / 1e9


def weights(outputs: int, inputs: int, kernel: int) -> Any:
    """Random weights [outputs, inputs, kernel, kernel]."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    return rng.standard_normal((outputs, inputs, kernel, kernel), np.float32)


def map_512() -> Figures:
    """Rules 3 and 7 alone: what the published program takes 198 s for."""
    from refmodel.compression.prune import shape_mask
    from refmodel.compression.reuse import SIMILAR_LEVELS, prap_map, quantise

    weight = weights(512, 512, 3)

    def run() -> None:
        mask = shape_mask(weight, 4, 2)
        prap_map(quantise(weight, SIMILAR_LEVELS), mask, 4, 0.125)

    return seconds(run)


def map_512_as_compress() -> Figures:
    """The same as ``prap compress`` does it: a trained map is looked for first."""
    from refmodel.compression.schemes import LayerSetting, map_layer

    weight = weights(512, 512, 3)
    setting = LayerSetting(scheme="prap", channels=4, positions=2, keep=0.125)
    return seconds(lambda: map_layer(weight, 1, "prap", setting))


def map_vgg16() -> Figures:
    """All layers of VGG16 with the published settings of prap; keep 1.0 runs dense."""
    from refmodel.compression.schemes import LayerSetting, map_layer

    file = SHARED / "published" / "networks.json"
    if not file.is_file():
        return {"note": "not run: published/networks.json is not there"}
    main = json.loads(file.read_text())["models"]["Vgg16"]["main"]
    mode = main["modes"]["shape_and_value_similar"]
    layers = [
        (
            weights(outputs, inputs, kernel),
            LayerSetting(scheme="prap", channels=channels, positions=positions, keep=keep),
        )
        for outputs, inputs, kernel, channels, positions, keep in zip(
            main["out_channel"],
            main["in_channel"],
            main["kernel_size"],
            mode["channel_number"],
            mode["pattern_value_number"],
            mode["best_keep_ratio"],
            strict=True,
        )
    ]

    def run() -> None:
        for weight, setting in layers:
            map_layer(weight, 1, "prap", setting)

    return seconds(run, f"{sum(weight.size for weight, _ in layers) / 1e6:.1f} M weights")


def map_fc_untuned() -> Figures:
    """A large layer that nobody gave a setting."""
    from refmodel.compression.schemes import map_layer

    weight = weights(4096, 4096, 1)
    return seconds(lambda: map_layer(weight, 1, "prap"))


def predict_vgg16() -> Figures:
    """Cycles and events of the largest layers, mapped already, prap and dense, at 14 x 14."""
    import numpy as np

    from refmodel.compression.compile import compile_layer
    from refmodel.compression.quantize import MatrixLayer
    from refmodel.compression.schemes import LayerSetting, map_layer
    from refmodel.predict.cycles import predict
    from refmodel.program.sizes import engine_config_for

    programs = []
    for (outputs, inputs, kernel), size, keep in (
        ((512, 512, 3), 14, 0.125),
        ((4096, 4096, 1), 1, 0.03125),
    ):
        weight, pad = weights(outputs, inputs, kernel), kernel // 2
        layer = MatrixLayer(
            name="layer", weight=weight, gain=np.full(outputs, 0.1), bias=np.zeros(outputs),
            stride=(1, 1), pads=(pad, pad, pad, pad), dilation=(1, 1), groups=1, in_scale=0.02,
            in_zero=0, out_scale=0.05, out_zero=0, clip=(0, 255), in_shape=(size, size, inputs),
            out_shape=(size, size, outputs),
        )  # fmt: skip
        setting = LayerSetting(
            scheme="prap", channels=4 if kernel > 1 else 32, positions=2, keep=keep, recover=False
        )
        for scheme in ("prap", "dense"):
            mapping = map_layer(weight, 1, scheme, setting if scheme == "prap" else None)
            programs.append(compile_layer(layer, mapping, 8))
    configs = [engine_config_for([program]) for program in programs]

    def run() -> None:
        for program, config in zip(programs, configs, strict=True):
            predict(program, config)

    return seconds(run, "conv 512x512x3x3, fc 4096x4096; prap, dense")


def exporter() -> ModuleType:
    """The script examples/resnet/export.py as a module."""
    spec = importlib.util.spec_from_file_location(
        "export", ROOT / "examples" / "resnet" / "export.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_state() -> dict[str, Any]:
    """Parameters of a ResNet-20, drawn."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    state: dict[str, Any] = {}

    def conv(name: str, norm: str, outputs: int, inputs: int) -> None:
        deviation = (2 / (9 * inputs)) ** 0.5
        state[f"{name}.weight"] = rng.normal(0, deviation, (outputs, inputs, 3, 3))
        for part, low, high in (
            ("weight", 0.5, 1.5), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
        ):  # fmt: skip
            state[f"{norm}.{part}"] = rng.uniform(low, high, outputs)

    conv("conv1", "bn1", 16, 3)
    inputs = 16
    for stage, outputs in ((1, 16), (2, 32), (3, 64)):
        for block in range(3):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", f"{name}.bn1", outputs, inputs)
            conv(f"{name}.conv2", f"{name}.bn2", outputs, outputs)
            inputs = outputs
    state["linear.weight"], state["linear.bias"] = rng.normal(0, 0.1, (10, 64)), np.zeros(10)
    return {name: values.astype(np.float32) for name, values in state.items()}


def resnet20(folder: Path) -> tuple[Path, str]:
    """Write ResNet-20 as ONNX; returns the file, and what it is if it is not the published one."""
    from refmodel.exchange.torch_files import state_dict

    given = SHARED / "data" / "models" / "resnet20-12fca82f.th"
    state = state_dict(given) if given.is_file() else random_state()
    model = exporter().build(state)
    path = folder / "resnet20.onnx"
    path.write_bytes(model.SerializeToString())
    return path, "" if given.is_file() else "random parameters"


def images(name: str, count: int) -> Any:
    """Images of CIFAR-10, or random ones, uint8 (count, 32, 32, 3)."""
    import numpy as np

    file = SHARED / "data" / "images" / name
    if file.is_file():
        return np.load(file)["x"][:count]
    return np.random.default_rng(SEED).integers(0, 256, (count, 32, 32, 3), np.uint8)


def preprocess(pixels: Any) -> Any:
    """How images become network inputs."""
    from refmodel.network.images import Preprocess

    return Preprocess.for_images(pixels, mean=MEAN, std=STD)


def import_and_quantise() -> Figures:
    """From the ONNX file and 256 images to the integer network."""
    from refmodel.compression.quantize import quantize
    from refmodel.exchange.onnx.load import load_onnx

    with tempfile.TemporaryDirectory() as folder:
        path, note = resnet20(Path(folder))
        pixels = images("cifar10_train_10000.npz", 256)

        def run() -> None:
            network = load_onnx(path)
            chosen = preprocess(pixels)
            quantize(network, chosen.apply(pixels, network.input_shape), preprocess=chosen)

        return seconds(run, note)


def compiled(scheme: str, settings: Any = None) -> tuple[Any, str]:
    """ResNet-20 as a program."""
    import refmodel

    with tempfile.TemporaryDirectory() as folder:
        path, note = resnet20(Path(folder))
        pixels = images("cifar10_train_10000.npz", 64)
        program = refmodel.compress(
            path, pixels, scheme=scheme, settings=settings, preprocess=preprocess(pixels)
        )
        return program, note


def golden_inference(scheme: str) -> Figures:
    """Images through the exact path, from pixels to logits."""
    program, note = compiled(scheme)
    pixels = images("cifar10_test_A_5000.npz", 300)
    program.logits(pixels[:1])  # decodes the weights, once
    found = f"{scheme}, {len(pixels)} images"
    return rate(lambda: program.logits(pixels), len(pixels), f"{found} {note}".strip())


def serial_inference(published: bool) -> Figures:
    """Images through digits, cells, ADC codes and shift-and-add, ideal device."""
    from refmodel import golden
    from refmodel.compression.schemes import LayerSetting
    from refmodel.program.sizes import ou_count

    settings = None
    if published:
        settings = {
            name: LayerSetting(scheme="prap", channels=2, positions=4, keep=keep)
            for name, keep in (
                ("layer1.*", 0.75),
                ("layer2.*", 0.375),
                ("layer3.*", 0.1875),
            )
        }
    program, note = compiled("prap", settings)
    config = program.engine()
    codes = program.codes(images("cifar10_test_A_5000.npz", 8))
    run = golden.serial_layer(config)
    ous = sum(ou_count(layer, config) * layer.positions for layer in program.layers)
    found: list[Any] = []
    figures = rate(
        lambda: found.append(golden.logits(program, codes, layer_fn=run)),
        len(codes),
        f"{ous / 1e6:.2f} M OU activations an image {note}".strip(),
    )
    if (found[0] != golden.logits(program, codes)).any():
        raise ValueError("the digit-serial path differs from the exact one")
    return figures


def chip_inference(name: str, *, noise: bool, scheme: str = "prap") -> Figures:
    """Images through ADC codes on one chip of a packaged device, with read noise or without."""
    import dataclasses

    from refmodel.golden import devices
    from refmodel.program.sizes import ou_count

    device = devices.Device.load(name)
    if not noise:
        device = dataclasses.replace(device, read_noise=0.0)
    program, note = compiled(scheme)
    config = program.engine()
    chip = devices.Chip(device=device, config=config, seed=SEED)
    codes = program.codes(images("cifar10_test_A_5000.npz", 16))
    devices.logits(program, codes[:1], chip)  # draws the cells, once
    converted = sum(
        ou_count(layer, config) * layer.positions * config.digits * config.ou_cols
        for layer in program.layers
    )
    return rate(
        lambda: devices.logits(program, codes, chip),
        len(codes),
        f"{name}, {scheme}, {converted / 1e6:.0f} M codes an image {note}".strip(),
    )


def bulk_tier(scheme: str) -> tuple[Any, str]:
    """One image through the RTL of the default engine: the result, and what network it was."""
    from sim.bulk import simulate
    from sim.job import Job

    program, note = compiled(scheme)
    codes = program.codes(images("cifar10_test_A_5000.npz", 1))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            program=program,
            codes=codes,
            config=program.engine(),
            tier="bulk",
            folder=folder,
            cache=ROOT / "build" / "cache",
        )
        result = simulate(job)
    if result.difference is not None:
        raise ValueError(str(result.difference))
    return result, note


def bulk_rate() -> Figures:
    """Simulated cycles a second of CPU time, loading included."""
    result, note = bulk_tier("prap")
    return {
        "value": result.cycles_per_second / 1e6,
        "unit": "M cycles/s",
        "seconds": result.engine_seconds,
        "cpu": result.engine_seconds,
        "note": f"{result.simulated_cycles / 1e6:.1f} M cycles {note}".strip(),
    }


def bulk_image(scheme: str) -> Figures:
    """Seconds of one image, compared, after the build."""
    cpu = time.process_time()
    result, note = bulk_tier(scheme)
    cpu = time.process_time() - cpu
    rate = f"{result.cycles_per_second / 1e6:.2f} M cycles/s of CPU time"
    return {
        "value": result.seconds,
        "unit": "s",
        "seconds": result.seconds,
        "cpu": min(cpu, result.seconds),
        "note": f"{result.simulated_cycles / 1e6:.1f} M cycles, {rate} {note}".strip(),
    }


JOBS: dict[str, tuple[str, str, Callable[[], Figures]]] = {
    "map": ("shape mask + prap map, conv 512x512x3x3, (4,2), 0.125", "0.4 s, 200 MB", map_512),
    "map-compress": ("  the same, as prap compress calls it", "", map_512_as_compress),
    "vgg16": ("VGG16, published settings, random weights", "6 s, 500 MB", map_vgg16),
    "untuned": ("  prap map, fc 4096x4096, default setting", "", map_fc_untuned),
    "predict": ("  predicted cycles of four large layers", "", predict_vgg16),
    "golden": (
        "golden inference, ResNet-20, ideal device", "100 images/s",
        lambda: golden_inference("dense"),
    ),
    "golden-prap": ("  the same, prap", "100 images/s", lambda: golden_inference("prap")),
    "serial": (
        "digit-serial through ADC codes, prap", "2 images/s", lambda: serial_inference(False),
    ),
    "serial-published": (
        "  the same, (2,4), keep 0.75/0.375/0.1875", "2 images/s", lambda: serial_inference(True),
    ),
    "device": (
        "ResNet-20 through ADC codes, prap: static effects (before tables of codes: 3.6)",
        "10 images/s", lambda: chip_inference("wan-2022", noise=False),
    ),
    "device-noise": (
        "  the same with read noise (1.9)", "5 images/s",
        lambda: chip_inference("wan-2022", noise=True),
    ),
    "device-dictionary": (
        "  static effects, dictionary", "10 images/s",
        lambda: chip_inference("wan-2022", noise=False, scheme="dictionary"),
    ),
    "device-dictionary-noise": (
        "  the same with read noise", "5 images/s",
        lambda: chip_inference("wan-2022", noise=True, scheme="dictionary"),
    ),
    "quantise": ("import and quantise ResNet-20, 256 images", "10 s", import_and_quantise),
    "bulk": ("RTL in the bulk tier, ResNet-20, prap, 8 ADCs", "4 M cycles/s", bulk_rate),
    "bulk-prap": ("  one image, 8 ADCs, prap", "5 s", lambda: bulk_image("prap")),
    "bulk-dictionary": ("  the same, dictionary", "5 s", lambda: bulk_image("dictionary")),
    "bulk-dense": ("  the same, dense", "15 s", lambda: bulk_image("dense")),
}  # fmt: skip
"""Name to text, target (none where the issue has none), function."""


def child(name: str) -> int:
    """Run one job and print its figures as JSON."""
    speed = gflops()
    found = JOBS[name][2]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps(found | {"gflops": speed, "megabytes": megabytes}))
    return 0


def run_job(name: str) -> Figures:
    """Run one job in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", name],
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"note": "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout)


def line(name: str, found: Figures) -> str:
    """One line of the table."""
    text, target, _ = JOBS[name]
    cells = ["", "", "", ""]
    if "value" in found:
        cells = [
            f"{found['value']:.2f} {found['unit']}",
            f"{found['cpu'] / found['seconds']:.0%}",
            f"{found['megabytes']:.0f} MB",
            f"{found['gflops']:.1f}",
        ]
    measured, cpu, memory, speed = cells
    return (
        f"{text:<56}  {target:<13}  {measured:>15}  {cpu:>5}  {memory:>8}  {speed:>7}  "
        f"{found.get('note', '')}"
    ).rstrip()


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs and print the table; 1 if one failed."""
    parser = argparse.ArgumentParser(description="How fast the golden model and the bulk tier are.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}; all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return child(options.child)
    unknown = [name for name in options.jobs if name not in JOBS]
    if unknown:
        parser.error(f"expected jobs of {', '.join(JOBS)}, found {', '.join(unknown)}")
    if not SHARED.is_dir():
        print(f"{SHARED.name}/ is not there: random networks and images, no published settings")
    heads = ("job", "target", "measured", "CPU", "peak", "GFLOP/s")
    print("{:<56}  {:<13}  {:>15}  {:>5}  {:>8}  {:>7}".format(*heads))
    figures = {}
    for name in options.jobs or JOBS:
        figures[name] = run_job(name)
        print(line(name, figures[name]), flush=True)
    print("GFLOP/s: this machine's float64 matrix products at the time, one thread; as all jobs")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(found.get("note", "").startswith("failed") for found in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
