"""Fine-tune a network onto the reuse mapping that it will be compiled with.

    from refmodel.train import Recipe, finetune

    tuned = finetune(network, x, y, scheme="dictionary", recipe=Recipe(augment="crop4,flip"))
    write_onnx(tuned.network, "tuned.onnx")

The mapping is made once, from the network as it was trained: masks, patterns, who uses which, by
which power of two. Two recipes train what is left to train:

``shared`` (ours)
    Every forward pass computes with the effective weights of the mapping, in 8 bits; what is
    trained are the values of the kept patterns, the weights of layers that run dense, and the mean
    and deviation of every output (:mod:`refmodel.train.network`). The dense network is the teacher:
    loss = (1 - share) * cross entropy + share * T^2 * KL(teacher || student), both softened by
    the temperature T (Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015,
    arXiv:1503.02531).

``published``
    The recipe of the paper (docs/specification/algorithm.md, Moments and fine-tuning): all weights
    are trained, penalties draw them to the mapping, and every 5 epochs and at the end they are put
    onto it. It serves every scheme but ``dictionary``.

Both take stochastic gradient descent with momentum and a cosine rate. Epochs are drawn from the
seed and the epoch's number, so that a run that was interrupted goes on as if it had not been.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import cos, pi
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from refmodel.compression.compile import map_network
from refmodel.compression.moments import learning_statistics
from refmodel.compression.quantize import quantize
from refmodel.compression.schemes import SCHEMES, LayerMapping, LayerSetting
from refmodel.compression.tuned import attach
from refmodel.errors import InputError
from refmodel.golden.devices.device import Device
from refmodel.network.augment import augment
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from refmodel.train.network import TorchNetwork, folded_network
from refmodel.train.noise import CellNoise
from refmodel.train.patterns import PatternTable
from refmodel.train.weights import DenseWeights, PulledWeights, SharedWeights

Method = Literal["shared", "published"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The recipes; see the module's text."""

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Report = Callable[[str, int, int], None]

PUBLISHED_FACTOR = 0.001
"""Factor of the penalties of the published recipe."""

DEFAULTS = {"shared": (0.03, 1.0), "published": (0.1, 0.0)}
"""Rate, and share of the teacher, of each method; those of ``published`` are the paper's."""

PROJECT_EVERY = 5
"""Epochs between projections of the published recipe."""

STATISTICS_BATCHES = 20
"""Batches over which means and deviations of outputs are estimated, at most."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned.

    Attributes
    ----------
    method
        ``shared`` or ``published``.
    epochs
        Passes over the images, 1 to 10,000.
    batch
        Images to a step, 2 to 65,536.
    rate
        Rate of the first step, above 0; it falls to 0 as a half cosine. None: 0.03 for ``shared``,
        0.1 for ``published``.
    momentum
        0 to below 1.
    weight_decay
        Decay of the weights that run dense, 0 to 1. Values of patterns have none: outputs are
        normalised, so that their size does not matter.
    teacher
        Share of the loss that is the dense network's, 0 to 1; 0: none. None: 1 for ``shared``, 0
        for ``published``.
    temperature
        Temperature of the teacher's softmax, above 0.
    augment
        How images are changed in each epoch, as :func:`refmodel.network.augment.augment` takes it;
        None: not at all.
    seed
        Seeds the order of images, their changes, and errors of cells; 0 to 2^31 - 1.
    precision
        ``float32``, or ``bfloat16`` for convolutions: twice as fast where the processor has it.
    device
        Cells and converters whose errors are drawn in every step; None: ideal ones. For the method
        ``shared``.
    """

    method: Method = "shared"
    epochs: int = 6
    batch: int = 128
    rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    teacher: float | None = None
    temperature: float = 8.0
    augment: str | None = None
    seed: int = 0
    precision: Precision = "float32"
    device: Device | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )
        for name, least, most in (
            ("epochs", 1, 10_000),
            ("batch", 2, 65_536),
            ("seed", 0, (1 << 31) - 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {value!r}")
        for name, value in (("weight_decay", self.weight_decay), ("teacher", self.teacher_share)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 to 1, not {value!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be 0 to below 1, not {self.momentum!r}")
        for name, value in (("rate", self.first_rate), ("temperature", self.temperature)):
            if not 0 < value < 1e3:
                raise ValueError(f"{name} must be above 0 and below 1000, not {value!r}")
        if self.device is not None and self.method != "shared":
            raise ValueError("errors of cells can be drawn in the method shared, not published")

    @property
    def first_rate(self) -> float:
        """Rate of the first step: the method's where none was given."""
        return DEFAULTS[self.method][0] if self.rate is None else self.rate

    @property
    def teacher_share(self) -> float:
        """Share of the loss that is the teacher's: the method's where none was given."""
        return DEFAULTS[self.method][1] if self.teacher is None else self.teacher


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTuned:
    """A fine-tuned network.

    Attributes
    ----------
    network
        The network; its mapped layers have effective weights, and ``tuned`` holds their mappings.
    history
        Per epoch ``loss``, mean over its images, and ``accuracy``, share of the changed training
        images that were put into the right class in training.
    """

    network: FloatNetwork
    history: list[dict[str, float]]


def finetune(
    network: FloatNetwork,
    images: NDArray,
    labels: NDArray,
    *,
    scheme: str = "prap",
    settings: Mapping[str, LayerSetting] | None = None,
    ou_rows: int = 8,
    preprocess: Preprocess | None = None,
    recipe: Recipe | None = None,
    calibration: int = 1024,
    on: str = "auto",
    checkpoint: Path | None = None,
    report: Report = lambda stage, done, total: None,
) -> FineTuned:
    """Fine-tune a network.

    Parameters
    ----------
    network
        The network as it was trained, in floating point; the teacher, too.
    images, labels
        Training images as :func:`refmodel.network.images.load_images` gives them, and their classes
        (N,).
    scheme, settings, ou_rows
        As for :func:`refmodel.api.compress`.
    preprocess
        How pixels become network inputs; None: integer pixels are divided by 255.
    recipe
        Method and parameters of the training.
    calibration
        Images, the first ones, from which a scheme that learns takes its statistics.
    on
        ``auto``: a GPU where PyTorch finds one, else the CPU; or a name that PyTorch knows.
    checkpoint
        File to which every finished epoch is written; one of the same run is gone on with, and it
        is left there in the end.
    report
        Is told of progress.

    Raises
    ------
    InputError
        Images or labels do not fit, the network is quantised already, a setting matches no layer,
        the scheme cannot be trained by the method, or the checkpoint is of another run.
    """
    recipe = recipe or Recipe()
    images = np.asarray(images)
    chosen = preprocess or Preprocess()
    chosen = chosen.for_input(images, network.input_shape, source="the training images")
    labels = np.asarray(labels)
    check(network, images, labels, recipe, scheme)
    run = _Run(
        network,
        images,
        labels,
        scheme=scheme,
        ou_rows=ou_rows,
        preprocess=chosen,
        recipe=recipe,
        device=torch_device(on),
        report=report,
    )
    mappings = run.map(settings, calibration)
    run.build(mappings)
    key = _key(network, images, labels, chosen, recipe, mappings, ou_rows)
    run.train(checkpoint, key)
    return run.result()


def torch_device(on: str) -> torch.device:
    """Choose what to compute on; InputError where PyTorch has no such thing."""
    if on == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(on)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as problem:
        first = (str(problem).splitlines() or ["?"])[0]
        raise InputError(
            f"expected auto, cpu or a device of PyTorch, found {on!r}: {first}"
        ) from None
    return found


def check(
    network: FloatNetwork, images: NDArray, labels: NDArray, recipe: Recipe, scheme: str
) -> None:
    """Raise InputError where :func:`finetune` would, as far as that shows before it starts."""
    if scheme not in SCHEMES:
        raise InputError(f"expected a scheme out of {', '.join(SCHEMES)}, found {scheme!r}")
    if recipe.method == "published" and scheme == "dictionary":
        raise InputError("expected the method shared for the scheme dictionary, found published")
    if network.tuned is not None:
        raise InputError(
            f"expected a network as it was trained, found one tuned for {network.tuned.scheme}: "
            f"{network.source}"
        )
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise InputError(
            f"expected one integer label to an image, found {labels.dtype}{labels.shape}"
        )
    if len(images) != len(labels) or len(labels) < 2:
        raise InputError(
            f"expected two or more images with a label each, found {len(images)} and {len(labels)}"
        )
    classes = int(np.prod(network.output_shape))
    if not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"expected labels of 0 to {classes - 1}, found {labels.min()} to {labels.max()}"
        )


def _key(
    network: FloatNetwork,
    images: NDArray,
    labels: NDArray,
    preprocess: Preprocess,
    recipe: Recipe,
    mappings: Mapping[str, LayerMapping],
    ou_rows: int,
) -> str:
    """Hash of all that a run depends on."""
    found = hashlib.sha256()
    for node in network.nodes:
        for each in fields(node):
            value = getattr(node, each.name)
            array = isinstance(value, np.ndarray)
            found.update(np.ascontiguousarray(value).tobytes() if array else repr(value).encode())
    for name, mapping in mappings.items():
        table = PatternTable.of(mapping)
        found.update(f"{name} {mapping.scheme} {ou_rows}".encode())
        for array in (table.values, table.element, table.value, table.factor):
            found.update(array.tobytes())
    found.update(np.ascontiguousarray(images).tobytes() + np.ascontiguousarray(labels).tobytes())
    found.update(repr((preprocess, asdict(recipe), torch.__version__)).encode())
    return found.hexdigest()


class _Run:
    """One run: what is trained, and how far it is."""

    def __init__(
        self,
        network: FloatNetwork,
        images: NDArray,
        labels: NDArray,
        *,
        scheme: str,
        ou_rows: int,
        preprocess: Preprocess,
        recipe: Recipe,
        device: torch.device,
        report: Report,
    ) -> None:
        self.scheme, self.ou_rows = scheme, ou_rows
        self.network, self.images, self.preprocess = network, np.asarray(images), preprocess
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.recipe, self.device, self.report = recipe, device, report
        self.history: list[dict[str, float]] = []
        self.generator = torch.Generator(device=device)

    def map(
        self,
        settings: Mapping[str, LayerSetting] | None,
        calibration: int,
    ) -> dict[str, LayerMapping]:
        """Map the network as :func:`refmodel.api.compress` does; by name, without dense layers."""
        images = self.images[:calibration]
        if self.recipe.augment is not None:
            images = augment(images, self.recipe.augment, layout=self.preprocess.layout)
        inputs = self._inputs(images)
        layers = quantize(self.network, inputs[:1])
        scheme, stage = self.scheme, f"map ({self.scheme})"
        found = map_network(
            layers,
            scheme=scheme,
            settings=settings,
            ou_rows=self.ou_rows,
            inputs=learning_statistics(self.network, inputs, layers, scheme, settings),
            progress=lambda _, done, total: self.report(stage, done, total),
        )
        self.report(stage, len(found), len(found))
        return {
            layer.name: mapping
            for layer, mapping in zip(layers.layers, found, strict=True)
            if mapping.scheme != "dense"
        }

    def build(self, mappings: dict[str, LayerMapping]) -> None:
        """Make student and teacher."""
        recipe = self.recipe
        noise = (
            None if recipe.device is None else CellNoise(device=recipe.device, rows=self.ou_rows)
        )
        self.mappings = mappings
        weights: dict[str, nn.Module] = {}
        nodes = []
        for node in self.network.nodes:
            if isinstance(node, Matrix):
                mapping = mappings.get(node.name)
                if mapping is None:
                    weights[node.name] = DenseWeights(node.weight, noise, self.generator)
                elif recipe.method == "published":
                    weights[node.name] = PulledWeights(node.weight, mapping, PUBLISHED_FACTOR)
                else:
                    node, unit = _in_steps(node, mapping)
                    weights[node.name] = SharedWeights(mapping, unit, noise, self.generator)
            nodes.append(node)
        stepped = replace(self.network, nodes=tuple(nodes))
        self.teacher = TorchNetwork(self.network).to(self.device).eval()
        self.student = TorchNetwork(stepped, weights).to(self.device)
        self.teacher.requires_grad_(False)
        statistics = self._batches(self._epoch_images(0), limit=STATISTICS_BATCHES)
        self.student.normalise_as(self.teacher, statistics)

    def train(self, checkpoint: Path | None, key: str) -> None:
        """Train the epochs that are left, and put weights and statistics in order."""
        recipe = self.recipe
        optimiser = self._optimiser()
        steps = len(_batch_sizes(len(self.labels), recipe.batch))
        done = self._resume(checkpoint, key, optimiser)
        for epoch in range(done + 1, recipe.epochs + 1):
            self._epoch(epoch, steps, optimiser)
            self._project(epoch)
            if checkpoint is not None:
                self._save(checkpoint, key, optimiser, epoch)
        self.report("estimate statistics", 0, 1)
        self.generator.manual_seed(recipe.seed * 10_007)
        batches = self._batches(self._epoch_images(0), limit=STATISTICS_BATCHES)
        self.student.estimate_statistics(batches)
        self.report("estimate statistics", 1, 1)

    def _optimiser(self) -> torch.optim.Optimizer:
        recipe = self.recipe
        decayed, plain = [], []
        for module in self.student.modules():
            for name, parameter in module.named_parameters(recurse=False):
                dense = isinstance(module, DenseWeights) and name == "weight"
                (decayed if dense else plain).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=recipe.first_rate, momentum=recipe.momentum)

    def _epoch(self, epoch: int, steps: int, optimiser: torch.optim.Optimizer) -> None:
        recipe = self.recipe
        stage = f"epoch {epoch} of {recipe.epochs}"
        self.report(stage, 0, steps)
        self.student.train()
        self.generator.manual_seed(recipe.seed * 10_007 + epoch)
        images = self._epoch_images(epoch)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(images))
        total, right, count = 0.0, 0, 0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            share = (step + (epoch - 1) * steps) / (recipe.epochs * steps)
            for group in optimiser.param_groups:
                group["lr"] = recipe.first_rate * (1 + cos(pi * share)) / 2
            x = self._tensor(images[chosen])
            y = self.labels[chosen].to(self.device)
            loss, found = self._loss(x, y)
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"expected a finite loss, found {loss.item()} in step {step + 1} of epoch "
                    f"{epoch}: use a smaller rate"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            for module in self.student.modules():
                if isinstance(module, SharedWeights):
                    module.limit()
            total, count = total + loss.item() * len(chosen), count + len(chosen)
            right += int((found.argmax(1) == y).sum())
            self.report(stage, step + 1, steps)
        self.history.append({"loss": total / count, "accuracy": right / count})

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        kind = self.device.type
        low = recipe.precision == "bfloat16"
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=low):
            found: Tensor = self.student(x).float()
        loss = found.new_zeros(())
        share = recipe.teacher_share
        if share < 1:
            loss = loss + (1 - share) * functional.cross_entropy(found, y)
        if share:
            t = recipe.temperature
            with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=low):
                wanted: Tensor = self.teacher(x).float()
            distance = functional.kl_div(
                functional.log_softmax(found / t, 1),
                functional.log_softmax(wanted / t, 1),
                reduction="batchmean",
                log_target=True,
            )
            loss = loss + share * t * t * distance
        for module in self._pulled():
            loss = loss + module.penalty()
        return loss, found

    def _pulled(self) -> list[PulledWeights]:
        return [each for each in self.student.modules() if isinstance(each, PulledWeights)]

    def _project(self, epoch: int) -> None:
        """Refresh S of the published recipe, and put the weights onto it when it is time."""
        for module in self._pulled():
            if epoch % PROJECT_EVERY == 0 or epoch == self.recipe.epochs:
                module.project()
            else:
                module.refresh()

    def _epoch_images(self, epoch: int) -> NDArray:
        """Images of an epoch, changed at random; epoch 0 is for statistics."""
        if self.recipe.augment is None:
            return self.images
        seed = int(np.random.default_rng([self.recipe.seed, epoch, 1]).integers(1 << 31))
        return augment(self.images, self.recipe.augment, layout=self.preprocess.layout, seed=seed)

    def _inputs(self, images: NDArray) -> NDArray[np.float32]:
        return self.preprocess.apply(images, self.network.input_shape, source="the training images")

    def _tensor(self, images: NDArray) -> Tensor:
        x = torch.from_numpy(self._inputs(images)).to(self.device)
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _batches(self, images: NDArray, *, limit: int) -> list[Tensor]:
        size = self.recipe.batch
        order = np.random.default_rng([self.recipe.seed, 0]).permutation(len(images))
        count = min(limit, len(_batch_sizes(len(order), size)))
        parts = [order[i * size : (i + 1) * size] for i in range(count)]
        return [self._tensor(images[part]) for part in parts]

    def _save(self, path: Path, key: str, optimiser: torch.optim.Optimizer, epoch: int) -> None:
        state = {
            "key": key,
            "epoch": epoch,
            "history": self.history,
            "student": self.student.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        draft = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, draft)
            draft.replace(path)
        except (OSError, RuntimeError) as problem:  # PyTorch's own writer raises the latter
            first = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise InputError(f"expected a place to write, found {first} at {path}") from None

    def _resume(self, path: Path | None, key: str, optimiser: torch.optim.Optimizer) -> int:
        """Go on with a checkpoint, if there is one; epochs that are done."""
        if path is None or not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            same = state["key"] == key
        except Exception as problem:  # whatever the file is, it is no checkpoint
            raise InputError(
                f"expected a checkpoint of this run, found {type(problem).__name__} reading {path}"
            ) from None
        if not same:
            raise InputError(f"expected a checkpoint of this run, found one of another at {path}")
        self.student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        self.history = list(state["history"])
        self.report(f"go on after epoch {state['epoch']}", 1, 1)
        return int(state["epoch"])

    def result(self) -> FineTuned:
        """Give the network and its mappings as they are now."""
        self.student.eval()
        folded = folded_network(self.student)
        mappings, scales = {}, {}
        for node in folded.nodes:
            old = self.mappings.get(node.name)
            if not isinstance(node, Matrix) or old is None:
                continue
            module = self.student.layer(node.name).made
            assert isinstance(module, SharedWeights | PulledWeights)
            codes, unit = module.codes(), module.unit
            mappings[node.name] = module.table.with_values(codes)
            scales[node.name] = np.full(len(node.weight), unit)
        network = attach(
            folded, scheme=self.scheme, ou_rows=self.ou_rows, mappings=mappings, scales=scales
        )
        return FineTuned(network=network, history=self.history)


def _batch_sizes(images: int, batch: int) -> list[int]:
    """Sizes of the batches of an epoch.

    The images left over are a batch if they are half of one at least, or there is no other: outputs
    are normalised by their batch, and a few images are too few for that.
    """
    sizes = [batch] * (images // batch)
    rest = images % batch
    return [*sizes, rest] if 2 * rest >= batch or not sizes else sizes


def _in_steps(node: Matrix, mapping: LayerMapping) -> tuple[Matrix, float]:
    """Give a node the effective weights of its mapping, all outputs in one unit; and that unit.

    The remaining factor of each output moves into its gain, where it costs nothing.
    """
    scales = mapping.scales(node.weight)
    whole = mapping.weight_q8.astype(np.float64) / 256
    # A unit with which the weights are as large as they were, all together.
    size = np.sqrt(np.square(whole).sum())
    unit = float(np.sqrt(np.square(node.weight, dtype=np.float64).sum()) / size) if size else 1.0
    weight = (whole * unit).astype(np.float32)
    return replace(node, weight=weight, gain=node.gain * scales / unit), unit
