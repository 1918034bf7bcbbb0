"""Train the digits network, fine-tune it with the published PRAP regulariser, write both as ONNX.

    pip install -e '.[train]'
    python examples/digits/train.py              # writes refmodel/assets and train.log
    python examples/digits/train.py --validate   # writes nothing; sets 297 training images aside

Seed, split and recipe are the constants below; they were settled with ``--validate`` alone, which
never touches the held-out images. One run with the one seed gives the packaged networks, and
a second run on the same machine gives the same bytes.
"""

import argparse
import copy
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import sklearn
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from refmodel.compression.patterned import recover_map
from refmodel.compression.prune import shape_mask
from refmodel.compression.reuse import SIMILAR_LEVELS, prap_map, quantise
from refmodel.compression.schemes import LayerSetting
from refmodel.digits import SETTINGS

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parents[1] / "refmodel" / "assets"
LOG = HERE / "train.log"

SEED = 2023
"""Fixed before the first run: the year of the paper. It seeds split, weights, order and shifts."""

HELD_OUT = 500
VALIDATION = 297
CALIBRATION = 200
BATCH = 128

FLOAT_EPOCHS, FLOAT_RATE, WEIGHT_DECAY = 200, 0.1, 5e-4
TUNE_EPOCHS, TUNE_RATE = 200, 0.05
PULL = 0.001
"""Both factors of the published regulariser (docs/specification/algorithm.md)."""
PROJECT_EVERY = 5
"""Epochs between projections onto S."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (count, 1, 8, 8) as float32 in 0..1, and their digits."""

    x: Tensor
    y: Tensor


class DigitsNet(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, two poolings, one linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.classifier = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (count, 1, 8, 8)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(functional.relu(self.bn2(self.conv2(x))), 2)
        x = functional.max_pool2d(functional.relu(self.bn3(self.conv3(x))), 2)
        return self.classifier(x.flatten(1))


class PatternMap:
    """Decisions of rules 3 and 7 for one layer, and the weights S that follow from it.

    Computed once, from the trained float weights; afterwards only S moves with the weights.

    Attributes
    ----------
    mask
        1 where the shape of a pattern keeps a weight. A reused pattern has its target's shape.
    source
        The output whose pattern is taken, itself where kept.
    scale, pull
        1 where kept, 2^k where reused, 0 where dropped; and M of the regulariser, 1 / scale, or
        2^-8 where dropped.
    """

    def __init__(self, name: str, weight: Tensor, setting: LayerSetting) -> None:
        out, channels = weight.shape[:2]
        array = weight.detach().numpy()
        found = prap_map(
            quantise(array, SIMILAR_LEVELS),
            shape_mask(array, setting.channels, setting.positions),
            setting.channels,
            setting.keep,
        )
        self.name, self.setting, self.found = name, setting, found
        self.mask = torch.from_numpy(found.mask.astype(np.float32))
        # Per input channel, so that S is one gather along the outputs.
        group = np.arange(channels) // setting.channels
        source = np.maximum(found.target, 0)[group].T.astype(np.int64)
        scale = np.where(found.target < 0, 0.0, np.exp2(found.exponent.astype(np.float64)))
        self.source = torch.from_numpy(source).reshape(out, channels, 1, 1).expand_as(weight)
        self.scale = torch.from_numpy(scale[group].T).float().reshape(out, channels, 1, 1)
        self.pull = torch.where(self.scale > 0, 1 / self.scale, 2.0**-8)

    def describe(self) -> str:
        """One line: setting, and weight patterns kept, reused and dropped."""
        setting, found = self.setting, self.found
        return (
            f"{self.name}: C_g {setting.channels}, V {setting.positions}, keep {setting.keep}: "
            f"{found.patterns} weight patterns, {found.kept} kept, {found.reused} reused, "
            f"{found.dropped} dropped; least scale 2^{found.exponent.min()}"
        )

    def target(self, weight: Tensor) -> Tensor:
        """S: scale * the target's pattern, rounded to 8 bits; kept patterns round to themselves."""
        weight = weight.detach()
        step = torch.maximum(weight.max(), -weight.min()) / 127
        rounded = torch.round(weight * self.mask / step) * step
        return torch.gather(rounded, 0, self.source) * self.mask * self.scale

    def settle(self, weight: Tensor) -> Tensor:
        """Project until rounding no longer moves the largest weight, hence nothing."""
        for _ in range(8):
            projected = self.target(weight)
            if torch.equal(projected, weight):
                break
            weight = projected
        return weight


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixels in each direction, zeros coming in."""
    count = x.shape[0]
    dy, dx = torch.randint(0, 3, (2, count, 1, 1), generator=generator)
    padded = functional.pad(x[:, 0], (1, 1, 1, 1))
    rows = torch.arange(8).reshape(1, 8, 1) + dy
    columns = torch.arange(8).reshape(1, 1, 8) + dx
    return padded[torch.arange(count).reshape(-1, 1, 1), rows, columns].unsqueeze(1)


def train(
    net: DigitsNet,
    images: Split,
    *,
    epochs: int,
    rate: float,
    generator: torch.Generator,
    penalty: Callable[[], Tensor] | None = None,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """SGD with momentum 0.9 and a cosine rate; ``penalty`` is added to the cross entropy."""
    optimiser = torch.optim.SGD(
        net.parameters(),
        lr=rate,
        momentum=0.9,
        weight_decay=WEIGHT_DECAY if penalty is None else 0.0,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    count = len(images.y)
    for epoch in range(1, epochs + 1):
        net.train()
        for chosen in torch.randperm(count, generator=generator).split(BATCH):
            loss = functional.cross_entropy(
                net(shifted(images.x[chosen], generator)), images.y[chosen]
            )
            if penalty is not None:
                loss = loss + penalty()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
        after_epoch(epoch)


def correct(net: DigitsNet, images: Split) -> int:
    """Images classified right."""
    net.eval()
    with torch.no_grad():
        return int((net(images.x).argmax(1) == images.y).sum())


def restate_batch_norm(net: DigitsNet, images: Split) -> None:
    """Set the running statistics to those of all training images, unshifted, in one batch."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    with torch.no_grad():
        net(images.x)
    net.eval()


def fine_tune(
    net: DigitsNet, images: Split, generator: torch.Generator, say: Callable[[str], None]
) -> list[PatternMap]:
    """Fine-tune in place by the published recipe; the weights end on the patterns, exactly."""
    maps, weights = [], []
    for name in ("conv2", "conv3"):
        weight = getattr(net, name).weight
        maps.append(PatternMap(name, weight, SETTINGS[name]))
        weights.append(weight)
    for found in maps:
        say(found.describe())
    targets = [found.target(weight) for found, weight in zip(maps, weights, strict=True)]

    def penalty() -> Tensor:
        terms = []
        for found, weight, target in zip(maps, weights, targets, strict=True):
            outside = weight - found.mask * weight
            off = found.pull * (weight - target)
            terms.append(PULL * 0.5 * outside.square().sum() + PULL * off.square().sum())
        return torch.stack(terms).sum()

    def after_epoch(epoch: int) -> None:
        with torch.no_grad():
            for index, (found, weight) in enumerate(zip(maps, weights, strict=True)):
                targets[index] = found.target(weight)
                if epoch % PROJECT_EVERY == 0:
                    weight.copy_(targets[index])
        if epoch % 50 == 0:
            say(f"  epoch {epoch}: {correct(net, images)} of {len(images.y)} training images")

    train(
        net,
        images,
        epochs=TUNE_EPOCHS,
        rate=TUNE_RATE,
        generator=generator,
        penalty=penalty,
        after_epoch=after_epoch,
    )
    with torch.no_grad():
        for found, weight in zip(maps, weights, strict=True):
            weight.copy_(found.settle(weight))
    restate_batch_norm(net, images)
    return maps


def write_onnx(net: DigitsNet, path: Path) -> None:
    """Write the network as ONNX, by hand: the same weights give the same bytes."""
    net.eval()
    nodes, constants = [], []

    def constant(name: str, value: Tensor) -> str:
        constants.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    x = "image"
    for number, pooled in ((1, False), (2, True), (3, True)):
        conv, norm = getattr(net, f"conv{number}"), getattr(net, f"bn{number}")
        weight = constant(f"conv{number}.weight", conv.weight)
        x = add("Conv", [x, weight], f"conv{number}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        statistics = [
            constant(f"bn{number}.{name}", getattr(norm, name))
            for name in ("weight", "bias", "running_mean", "running_var")
        ]
        x = add("BatchNormalization", [x, *statistics], f"bn{number}", epsilon=norm.eps)
        x = add("Relu", [x], f"relu{number}")
        if pooled:
            x = add("MaxPool", [x], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    x = add("Flatten", [x], "flatten", axis=1)
    classifier = [constant(f"classifier.{n}", p) for n, p in net.classifier.named_parameters()]
    add("Gemm", [x, *classifier], "classifier", transB=1)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    logits = helper.make_tensor_value_info("classifier", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "digits", [image], [logits], constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="prap-pim"
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def pick(chosen: np.ndarray) -> Split:
    """Images of the UCI file by their place in it, as network inputs."""
    digits = load_digits()
    x = digits.images[chosen, None].astype(np.float32) / 16
    return Split(x=torch.from_numpy(x), y=torch.from_numpy(digits.target[chosen]))


def set_aside(places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Part places of the UCI file, stratified by digit: (the rest, ``count`` of them)."""
    rest, aside = train_test_split(
        places, test_size=count, stratify=load_digits().target[places], random_state=SEED
    )
    return rest, aside


def check_maps(net: DigitsNet, maps: list[PatternMap], say: Callable[[str], None]) -> DigitsNet:
    """See that the weights lie on patterns; give the network that rule 7 would make of it again."""
    again = copy.deepcopy(net)
    for tuned in maps:
        weight = getattr(net, tuned.name).weight.detach()
        codes = quantise(weight.numpy(), SIMILAR_LEVELS)
        setting = tuned.setting
        found = recover_map(codes, setting.channels, setting.positions, setting.keep)
        if found is None or not torch.equal(tuned.target(weight), weight):
            raise RuntimeError(f"{tuned.name} does not lie on its patterns after the projection")
        remade = PatternMap(tuned.name, weight, setting).target(weight)
        with torch.no_grad():
            getattr(again, tuned.name).weight.copy_(remade)
        say(
            f"{tuned.name}: lies on its patterns, {found.kept} kept, {found.reused} reused, "
            f"{found.dropped} dropped; rule 7 applied again would move the weights by "
            f"{100 * float((remade - weight).norm() / weight.norm()):.0f} %"
        )
    return again


def main() -> None:
    """Train, fine-tune, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validate", action="store_true", help="measure on training images only")
    parser.add_argument("-o", "--output", type=Path, default=ASSETS, help="folder of the networks")
    parser.add_argument("--log", type=Path, default=LOG, help="file of the log")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(SEED)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    training, held_out = set_aside(np.arange(len(load_digits().target)), HELD_OUT)
    _, calibration = set_aside(training, CALIBRATION)
    what = "held-out"
    if arguments.validate:
        training, held_out = set_aside(training, VALIDATION)
        what = "validation (training images set aside)"
    images, measured = pick(training), pick(held_out)

    def measure(name: str, net: DigitsNet) -> None:
        right, count = correct(net, measured), len(measured.y)
        say(f"{name}: {right} of {count} {what} images right, {100 * right / count:.2f} %")

    say(
        f"seed {SEED}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}, onnx {onnx.__version__}"
    )
    say(f"{len(images.y)} training images, {len(measured.y)} {what} images")
    say(f"float: {FLOAT_EPOCHS} epochs, rate {FLOAT_RATE}, weight decay {WEIGHT_DECAY}")
    net = DigitsNet()
    train(net, images, epochs=FLOAT_EPOCHS, rate=FLOAT_RATE, generator=generator)
    measure("float", net)
    trained = copy.deepcopy(net)
    say(
        f"prap: {TUNE_EPOCHS} epochs, rate {TUNE_RATE}, factors {PULL}, "
        f"projection every {PROJECT_EVERY} epochs"
    )
    maps = fine_tune(net, images, generator, say)
    measure("prap", net)
    measure("prap, if rule 7 were applied again", check_maps(net, maps, say))
    if arguments.validate:
        return

    calibrating = pick(calibration)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_onnx(trained, arguments.output / "digits_float.onnx")
    write_onnx(net, arguments.output / "digits_prap.onnx")
    np.savez(
        arguments.output / "digits_images.npz",
        x=pixels(measured),
        y=measured.y.numpy().astype(np.uint8),
        calibration_x=pixels(calibrating),
        calibration_y=calibrating.y.numpy().astype(np.uint8),
    )
    for name in ("digits_float.onnx", "digits_prap.onnx", "digits_images.npz"):
        digest = hashlib.sha256((arguments.output / name).read_bytes()).hexdigest()
        say(f"{digest}  {name}")
    arguments.log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def pixels(images: Split) -> np.ndarray:
    """The images as the UCI file has them: uint8, 0 to 16, (count, 8, 8)."""
    return (images.x[:, 0] * 16).numpy().astype(np.uint8)


if __name__ == "__main__":
    main()
