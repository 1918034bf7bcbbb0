"""The golden model from Python: load, compress, inspect, evaluate, save, load again.

    import refmodel

    network = refmodel.load("net.onnx")
    x, y = refmodel.load_images("train.npz")
    program = refmodel.compress(network, x[:256], scheme="prap")
    print(program.table())
    x, y = refmodel.load_images("test.npz")
    print(network.evaluate(x, y), program.evaluate(x, y))
    program.save("net.prap")
    program = refmodel.Program.load("net.prap")

Arrays in, arrays out. Images are what :func:`refmodel.network.images.load_images` returns: (N, F),
(N, H, W), (N, H, W, C) or (N, C, H, W), pixels as they are; a
:class:`refmodel.network.images.Preprocess` says how they become network inputs, and a program
remembers it. Bad input raises :class:`refmodel.errors.InputError`, whose message is one line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel import golden
from refmodel import program as programs
from refmodel.compression import compile as compiler
from refmodel.compression import tuned
from refmodel.compression.mapped import map_streamed
from refmodel.compression.moments import quantize_matched
from refmodel.compression.quantize import QuantNetwork, quantize
from refmodel.compression.schemes import LayerSetting, network_settings
from refmodel.compression.schemes.dense import packed_settings
from refmodel.compression.store import Work
from refmodel.config import EngineConfig
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from refmodel.predict import cycles
from refmodel.predict.metrics import NetworkMetrics, network_metrics
from refmodel.program import sizes
from refmodel.program.layer import LayerProgram
from refmodel.table import Table

Report = Callable[[str, int, int], None]
"""``report(stage, done, total)``: called at the start (done = 0), on the way, and at the end."""

BATCH = 200
"""Images that go through a float network at a time."""


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Network(FloatNetwork):
    """A trained network in floating point, as :func:`load` gives it.

    ``nodes``, ``input_shape`` and ``forward`` are those of
    :class:`refmodel.network.graph.FloatNetwork`, of which the methods here take images, not network
    inputs.
    """

    def inputs(self, images: NDArray, preprocess: Preprocess | None = None) -> NDArray[np.float32]:
        """Turn images into network inputs.

        Parameters
        ----------
        images
            (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W).
        preprocess
            Scale, mean, standard deviation and layout; None: mean 0, standard deviation 1, and the
            layout that fits. Without a scale, integer pixels are divided by 255, and others taken
            as they are.

        Returns
        -------
        float32 (N, *input_shape)

        Raises
        ------
        InputError
            The images do not fit the network.
        """
        return _preprocess(images, preprocess).apply(images, self.input_shape)

    def logits(self, images: NDArray, preprocess: Preprocess | None = None) -> NDArray[np.float32]:
        """Compute the outputs for images, float32 (N, F); a Softmax at the end is left out."""
        return self.forward(self.inputs(images, preprocess)).reshape(len(images), -1)

    def evaluate(
        self, images: NDArray, labels: NDArray, preprocess: Preprocess | None = None
    ) -> float:
        """Share of images, 0 to 1, whose largest output is that of their label.

        Parameters
        ----------
        labels
            Integers (N,), from 0.

        Raises
        ------
        InputError
            The images do not fit the network, or labels and images differ in number.
        """
        _check_labels(images, labels)
        return float_accuracy(self, self.inputs(images, preprocess), labels)

    def quantize(
        self, images: NDArray, preprocess: Preprocess | None = None, **options: Any
    ) -> QuantNetwork:
        """Turn the network into one of 8-bit codes.

        Parameters
        ----------
        images
            Calibration images; a few hundred from the training set.
        options
            Passed on to :func:`refmodel.compression.quantize.quantize`: how ranges are chosen.
        """
        chosen = _preprocess(images, preprocess)
        inputs = chosen.apply(images, self.input_shape, source="the calibration images")
        return quantize(self, inputs, preprocess=chosen, **options)

    def compress(self, images: NDArray, **options: Any) -> "Program":
        """Quantise, prune and compile the network: :func:`compress`, as a method."""
        return compress(self, images, **options)

    def table(self) -> Table:
        """Nodes of the network: name, operation, shape of the output, weights (a count)."""
        return Table(
            [
                {
                    "name": node.name,
                    "operation": type(node).__name__,
                    "output": node.shape,
                    "weights": node.weight.size if isinstance(node, Matrix) else None,
                }
                for node in self.nodes
            ],
            repr(self),
        )

    def __repr__(self) -> str:
        layers = sum(isinstance(node, Matrix) for node in self.nodes)
        shapes = (_text(self.input_shape), _text(self.output_shape))
        return f"Network {Path(self.source).name}: {shapes[0]} to {shapes[1]}, {layers} layers"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Program(programs.Program):
    """A compiled network, as :func:`compress` makes it and :meth:`load` reads it.

    Attributes (``layers``, ``steps``, ``tensors``, ``preprocess``, ``about``), ``save`` and
    ``load`` are those of :class:`refmodel.program.program.Program`.
    """

    @classmethod
    def of(cls, program: programs.Program) -> "Program":
        """Give the methods of this class to what :mod:`refmodel.compression.compile` made."""
        return program if isinstance(program, cls) else cls(**vars(program))

    def layer(self, name: str) -> LayerProgram:
        """Find the layer with a name; InputError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise InputError(f"expected a layer out of {names}, found {name!r}")

    def codes(self, images: NDArray, *, source: str = "the images") -> NDArray[np.uint8]:
        """Turn images into input codes.

        Parameters
        ----------
        images
            Pixels as the calibration images had them: (N, F), (N, H, W), (N, H, W, C) or
            (N, C, H, W).
        source
            Where they came from, for messages.

        Returns
        -------
        uint8 (N, H, W, C)

        Raises
        ------
        InputError
            The images do not fit the network.
        """
        height, width, channels = self.tensors[self.input]["shape"]
        preprocess, shape = Preprocess.from_dict(self.preprocess), (channels, height, width)
        # A vector is (1, 1, F) in memory, as one pixel is: images that are no such pixel are
        # flattened for it, channels first.
        if height == width == 1 and not preprocess.fits(images, shape):
            shape = (channels,)
        return golden.quantise_input(self, preprocess.apply(images, shape, source=source))

    def logits(
        self, images: NDArray, *, progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float64]:
        """Compute the network's outputs for images with the golden model, bit for bit.

        Returns
        -------
        float64 (N, F)
            Output codes less their zero point, times their scale; the hardware computes the codes.
            In the order of :meth:`Network.logits`: an image has its channels first.

        Raises
        ------
        InputError
            The images do not fit the network.
        """
        return golden.logits(self, self.codes(images), progress=progress)

    def evaluate(
        self,
        images: NDArray,
        labels: NDArray,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> float:
        """Share of images, 0 to 1, whose largest output is that of their label.

        Parameters
        ----------
        labels
            Integers (N,), from 0.

        Raises
        ------
        InputError
            The images do not fit the network, or labels and images differ in number.
        """
        _check_labels(images, labels)
        values = self.logits(images, progress=progress)
        return float(np.mean(values.argmax(1) == np.asarray(labels)))

    def engine(self, config: EngineConfig | None = None) -> EngineConfig:
        """Size an engine for the network; ``config`` has what the network does not decide."""
        if config is None and self.layers:
            config = EngineConfig(ou_rows=self.layers[0].ou_rows)
        return sizes.engine_config_for(self.layers, config)

    def predict_cycles(self, config: EngineConfig | None = None) -> Table:
        """Predict the clock cycles of each layer for one image.

        The co-simulation checks that the RTL takes exactly as many.

        Parameters
        ----------
        config
            The engine; it is sized to the network.

        Returns
        -------
        Table
            Per layer: ``name``; ``cycles``; ``bound``, the least that its busiest part allows;
            ``limit``, 1.02 times that, plus the start; ``positions`` of the output; ``ous``,
            operation units activated; ``requests`` to the crossbar port.
        """
        fitted = self.engine(config)
        predictions = predict(self, fitted)
        return Table(
            [
                {
                    "name": layer.name,
                    "cycles": each.cycles,
                    "bound": each.bound,
                    "limit": each.limit,
                    "positions": each.positions,
                    "ous": each.ous,
                    "requests": each.requests,
                }
                for layer, each in zip(self.layers, predictions, strict=True)
            ],
            "Predicted cycles for one image",
        )

    def metrics(self, config: EngineConfig | None = None) -> NetworkMetrics:
        """Count what the network holds (cells, index bits) and does for one image (events).

        Parameters
        ----------
        config
            The engine; it is sized to the network.

        Returns
        -------
        NetworkMetrics
            ``layers`` and ``total``, with the attributes of
            :class:`refmodel.predict.metrics.Metrics`.
        """
        return network_metrics(self, self.engine(config))

    def table(self, config: EngineConfig | None = None) -> Table:
        """Return a table with the mapping of each layer.

        Parameters
        ----------
        config
            The engine; it is sized to the network.

        Returns
        -------
        Table
            Per layer: ``name``; ``scheme``; ``input`` and ``output``, (H, W, C); ``kernel``;
            weight patterns ``kept``, ``reused``, ``dropped``; operation units to an output
            position under scheme dense, ``ous_dense``, and here, ``ous``; ``index_bits``.
        """
        fitted = self.engine(config)
        return Table(
            [
                {
                    "name": layer.name,
                    "scheme": layer.scheme,
                    "input": layer.in_shape,
                    "output": layer.out_shape,
                    "kernel": layer.kernel,
                    "kept": layer.kept,
                    "reused": layer.reused,
                    "dropped": layer.dropped,
                    "ous_dense": layer.ous_dense,
                    "ous": sizes.ou_count(layer, fitted),
                    "index_bits": sizes.index_bits(layer, fitted)["total"],
                }
                for layer in self.layers
            ],
            repr(self),
        )

    def __repr__(self) -> str:
        kept = sum(layer.kept for layer in self.layers)
        patterns = sum(layer.patterns for layer in self.layers)
        scheme = self.about.get("scheme", "?")
        carried = len(self.about.get("carried", ()))
        return (
            f"Program, scheme {scheme}: {len(self.layers)} layers, "
            f"{kept:,} of {patterns:,} weight patterns kept"
            + (f"; {carried} mappings came with the network" if carried else "")
        )

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def load(path: str | Path) -> Network:
    """Read a trained network from a file of ONNX or TensorFlow Lite.

    Parameters
    ----------
    path
        The file; see :func:`refmodel.exchange.load.load_network` for what is supported.

    Raises
    ------
    InputError
        The file cannot be read, is of another kind, or holds what is not supported; the message
        names the node or initialiser.
    """
    from refmodel.exchange.load import load_network

    return Network(**vars(load_network(path)))


def compress(
    network: FloatNetwork | str | Path,
    images: NDArray,
    *,
    scheme: str | None = None,
    settings: Mapping[str, LayerSetting] | None = None,
    preprocess: Preprocess | None = None,
    ou_rows: int = 8,
    packed: bool = False,
    moments: bool = True,
    source: str = "the calibration images",
    report: Report = _silent,
    workers: int = 1,
    work: Work | None = None,
    **options: Any,
) -> Program:
    """Quantise, prune and compile a network.

    Parameters
    ----------
    network
        A network, or the path of a file that :func:`load` reads.
    images
        Calibration images, (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W); a few hundred from
        the training set.
    scheme
        A name in :data:`refmodel.compression.schemes.SCHEMES`. None: the one that the network was
        fine-tuned for, where it was (:mod:`refmodel.compression.tuned`), else ``prap``.
    settings
        Layer name pattern to setting; layers that none matches take
        :func:`refmodel.compression.schemes.default_setting`. In a network that was fine-tuned for
        the scheme, these take the mapping that they came with, or run dense where they have none.
    preprocess
        Conversion of pixels to network inputs. None, or where its scale is None: integer pixels are
        divided by 255, others taken as they are.
    ou_rows
        R, rows of an operation unit.
    packed
        Whether channels of depthwise layers that run dense share operation units, where no setting
        names the layer (:mod:`refmodel.compression.schemes.dense`): for engines whose operation
        units hold two weights or more side by side.
    moments
        Whether each output of a layer that is mapped here, and does not run dense, gets the mean
        and variance that it has in the network, by gain and bias:
        :mod:`refmodel.compression.moments`.
    source
        Where the images came from, for messages.
    report
        Is told of progress.
    workers
        Processes that map layers, and images that go through a layer at a time. The program does
        not depend on it.
    work
        Where mappings are kept for a run that goes on; None: in memory.
    options
        Passed on to :func:`refmodel.compression.quantize.quantize`: how ranges are chosen.

    Raises
    ------
    InputError
        The images do not fit the network, a setting matches no layer, the network was fine-tuned
        for another ``ou_rows``, or a layer cannot be expressed in the hardware's numbers.

    Notes
    -----
    Eight schemes are those of the paper (doi:10.1016/j.hcc.2023.100123): ``dense``, which prunes
    nothing, and by the rules of docs/specification/algorithm.md ``structured`` (rule 1), ``orc``
    (2), ``shape`` (3), ``identical`` (4), ``structured+identical`` (5), ``similar`` (6) and
    ``prap`` (masks of rule 3, reuse maps of rule 7). ``dictionary`` is ours: it learns the patterns
    of a layer from its weights and, with ``moments``, from the covariances of its inputs on the
    calibration images.

    Moments are matched by default, of every layer that is mapped here; ranges of activations are
    taken after that.

    Nothing here is trained by gradients or sees a label: with a network that was not fine-tuned for
    its settings the accuracy is what one shot of pruning, or of learning patterns, and matched
    moments leave. Settings are as given, or defaults. Those that keep to a budget of cost or of
    loss, for scheme ``dictionary``, are chosen by :func:`refmodel.compression.budget.choose`;
    ``prap compress`` does so with ``--budget`` or ``--max-loss``.
    """
    floats = network if isinstance(network, FloatNetwork) else load(network)
    scheme = scheme or tuned.scheme_of(floats)
    chosen = _preprocess(images, preprocess)
    report("quantise", 0, 1)
    inputs = chosen.apply(images, floats.input_shape, source=source)
    # Where moments are matched, ranges come after mapping; until then one image will do.
    first = inputs[:1] if moments and scheme != "dense" else inputs
    quant = quantize(floats, first, preprocess=chosen, **options)
    report("quantise", 1, 1)
    carried, settings = tuned.carried(
        floats, quant.layers, scheme=scheme, settings=settings, ou_rows=ou_rows
    )
    if packed:
        given = network_settings(quant.layers, scheme, settings, ou_rows)
        mapped = [
            layer
            for layer in quant.layers
            if layer.name not in carried
            and not any(fnmatchcase(layer.name, pattern) for pattern in settings)
        ]
        settings = packed_settings(mapped, given, ou_rows) | settings
    stage = f"prune and compile ({scheme})"
    mappings = map_streamed(
        floats,
        inputs if moments else None,
        quant,
        scheme=scheme,
        settings=settings,
        ou_rows=ou_rows,
        carried=carried,
        workers=workers,
        work=work,
        progress=lambda done, total: report(stage, min(done, total - 1), total),
    )
    if moments and mappings.changing(carried):
        quant = quantize_matched(
            floats,
            inputs,
            layers=quant.layers,
            mappings=mappings,
            carried=carried,
            progress=lambda done, total: report("match moments", done, total),
            preprocess=chosen,
            workers=workers,
            **options,
        )
    elif first is not inputs:
        quant = quantize(floats, inputs, preprocess=chosen, **options)
    program = compiler.compile_network(
        quant,
        scheme=scheme,
        settings=settings,
        ou_rows=ou_rows,
        mappings=mappings,
        carried=list(carried),
    )
    report(stage, len(program.layers), len(program.layers))
    return Program.of(program)


def predict(
    program: programs.Program, config: EngineConfig, *, report: Report = _silent
) -> list[cycles.Prediction]:
    """Predict the cycles of each layer for one image, on an engine that holds it."""
    result = []
    for layer in program.layers:
        report("predict cycles", len(result), len(program.layers))
        result.append(cycles.predict(layer, config))
    report("predict cycles", len(result), len(program.layers))
    return result


def float_accuracy(
    network: FloatNetwork, inputs: NDArray, labels: NDArray, *, report: Report = _silent
) -> float:
    """Measure the accuracy of a float network: the share of inputs with the right class, 0 to 1.

    Parameters
    ----------
    network
        The network; the index of its largest output is the class.
    inputs
        float32 (N, *input_shape), preprocessed already: see :meth:`Network.inputs`.
    labels
        (N,), the right classes, from 0.
    report
        Called with a stage, the inputs done and their number.
    """
    right = 0
    for start in range(0, len(inputs), BATCH):
        report("evaluate in float", start, len(inputs))
        values = network.forward(inputs[start : start + BATCH])
        found = values.reshape(len(values), -1).argmax(1)
        right += int(np.count_nonzero(found == labels[start : start + BATCH]))
    report("evaluate in float", len(inputs), len(inputs))
    return right / len(inputs)


def _preprocess(images: NDArray, preprocess: Preprocess | None) -> Preprocess:
    return (preprocess or Preprocess()).settled(images)


def _check_labels(images: NDArray, labels: NDArray) -> None:
    if not len(images) or len(images) != len(labels):
        raise InputError(
            f"expected images with a label each, found {len(images)} and {len(labels)}"
        )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
