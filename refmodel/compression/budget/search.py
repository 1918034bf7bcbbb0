"""Candidates of every layer of a network, measured: cost, error, and how much the error matters."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.budget import sensitivity
from refmodel.compression.budget.candidates import Budget, Candidate, hull, variants
from refmodel.compression.budget.meter import Counted, meter_of
from refmodel.compression.compile import compile_layer
from refmodel.compression.moments import input_statistics, match_moments
from refmodel.compression.processes import Tasks
from refmodel.compression.quantize import MatrixLayer, Residual, quantize
from refmodel.compression.schemes import (
    SCHEMES,
    InputStatistics,
    LayerMapping,
    LayerSetting,
    map_layer,
    network_settings,
)
from refmodel.compression.schemes.base import CompactMapping
from refmodel.compression.store import Mappings, Work
from refmodel.config import EngineConfig
from refmodel.cost import LayerEvents
from refmodel.errors import InputError
from refmodel.network.graph import FloatNetwork, Floats
from refmodel.program.layer import LayerProgram

PROBE_IMAGES = 512
"""Images on which sensitivities are measured, at most."""

Progress = Callable[[str, int, int], None]


class Search:
    """Candidates of every layer, and what a choice costs and loses."""

    def __init__(
        self,
        network: FloatNetwork,
        inputs: Floats,
        budget: Budget,
        *,
        scheme: str,
        settings: Mapping[str, LayerSetting],
        ou_rows: int,
        config: EngineConfig | None,
        progress: Progress,
        workers: int = 1,
        work: Work | None = None,
        residual: Residual = "separate",
    ) -> None:
        self.network, self.inputs, self.budget = network, inputs, budget
        self.workers, self.work = workers, work
        self.ou_rows = ou_rows
        quant = quantize(network, inputs[:1], residual=residual)
        self.layers = quant.layers
        self.meter = meter_of(
            budget, dataclasses.replace(config or EngineConfig(), ou_rows=ou_rows), quant
        )
        self.scheme = scheme
        choices = SCHEMES[scheme].choices
        assert choices is not None  # the caller has checked
        self.choices = choices
        self.chosen = network_settings(self.layers, scheme, settings, ou_rows)
        # What the user set by hand stays.
        self.open = [
            layer.name
            for layer in self.layers
            if self.chosen[layer.name].scheme == scheme
            and not any(fnmatchcase(layer.name, key) for key in settings)
        ]
        channels = {
            name: setting.channels
            for name, setting in self.chosen.items()
            if setting.scheme == scheme
        }
        progress("take covariances", 0, 1)
        self.statistics = input_statistics(network, inputs, channels, workers=workers)
        progress("take covariances", 1, 1)
        self.progress = progress
        self.mapped: dict[tuple[str, LayerSetting], LayerMapping] = {}
        self.dense = [
            map_layer(layer.weight, layer.groups, "dense", None, ou_rows) for layer in self.layers
        ]
        programs = [
            compile_layer(layer, mapping, ou_rows)
            for layer, mapping in zip(self.layers, self.dense, strict=True)
        ]
        self.dense_total = self.meter.network(programs)
        self.meter.refer(programs)
        self.dense_counted = [self.meter.layer(program) for program in programs]
        self.measured: list[list[Candidate]] = []

    def map(
        self, layer: MatrixLayer, setting: LayerSetting, *, learnt: bool = True
    ) -> LayerMapping:
        """Map a layer, with the covariances of its inputs or without."""
        return map_layer(
            layer.weight,
            layer.groups,
            self.scheme,
            setting,
            self.ou_rows,
            layer.gain,
            self.statistics.get(layer.name) if learnt else None,
        )

    def counted(self, layer: MatrixLayer, mapping: LayerMapping) -> Counted:
        """Count the cost of a mapped layer for one image."""
        return self.meter.layer(compile_layer(layer, mapping, self.ou_rows))

    def candidates(self, index: int) -> list[Candidate]:
        """Candidates of one layer, with errors for losses; the last is dense."""
        layer = self.layers[index]
        outputs = layer.out_shape[2] // layer.groups
        dense = self.dense_counted[index]
        found: list[tuple[LayerSetting, Counted, float]] = []
        settings = [
            setting
            for setting in variants(self.chosen[layer.name], outputs, self.budget.of)
            if self.choices.keeps(setting, layer.weight.shape, layer.groups)
        ]
        learning = self.choices.learnt
        learnt = settings if learning is None else learning(settings)
        times: dict[LayerSetting, float] = {}
        for setting in settings:
            quick = self.choices.quick(setting)
            try:
                mapping = self.map(layer, quick, learnt=learning is None)
                counted = self.counted(layer, mapping)
            except InputError:  # a pattern that takes too many operation units, say
                continue
            if counted.cost >= dense.cost:
                continue
            error = output_error(layer, mapping, self.statistics[layer.name])
            found.append((setting, counted, error))
            if learning is not None and setting in learnt:
                exact = output_error(layer, self.map(layer, quick), self.statistics[layer.name])
                times[setting] = exact / error if error > 0 else 1.0
        result = []
        for setting, counted, error in found:
            if times:
                near = min(times, key=lambda each: self.choices.distance(each, setting))
                error *= times[near]
            result.append(_candidate(setting, counted, error))
        result.append(_candidate(LayerSetting(scheme="dense"), dense, 0.0))
        return result

    def all_candidates(self) -> list[list[Candidate]]:
        """Candidates of every layer of which something is to be chosen, in processes."""
        result: list[list[Candidate]] = [[] for _ in self.open]
        number = {layer.name: index for index, layer in enumerate(self.layers)}
        done = 0

        def take(place: int, found: list[Candidate]) -> None:
            nonlocal done
            result[place] = found
            done += 1
            self.progress("compare settings", done, len(self.open))

        self.progress("compare settings", 0, len(self.open))
        with Tasks(self.workers) as tasks:
            for place, name in enumerate(self.open):
                file = f"candidates{place}.json"
                kept = None if self.work is None else self.work.read(file)
                if kept is not None:
                    take(place, [_read(each) for each in json.loads(kept)])
                    continue

                def task(index: int = number[name], file: str = file) -> list[Candidate]:
                    found = self.candidates(index)
                    if self.work is not None:
                        self.work.write(file, json.dumps(list(map(_plain, found))).encode())
                    return found

                tasks.add(task, lambda found, place=place: take(place, found))
        return result

    def sensitivities(self, probes: Mapping[str, Candidate]) -> dict[str, float]:
        """How far answers move for the error of each layer."""
        number = {layer.name: index for index, layer in enumerate(self.layers)}
        names = [name for name, probe in probes.items() if probe.loss > 0]
        kept = None if self.work is None else self.work.part("probe")
        mappings = Mappings(names, kept)
        stage = "map a setting of each layer"
        self.progress(stage, 0, max(1, len(names)))
        done = 0

        def take(place: int, found: CompactMapping) -> None:
            nonlocal done
            if not mappings.kept(place):
                mappings.put(place, found)
            done += 1
            self.progress(stage, done, len(names))

        with Tasks(self.workers) as tasks:
            for place, name in enumerate(names):
                if mappings.kept(place):
                    done += 1
                    continue
                layer, setting = self.layers[number[name]], probes[name].setting

                def task(layer: MatrixLayer = layer, setting: LayerSetting = setting) -> Any:
                    return CompactMapping.of(self.map(layer, setting))

                tasks.add(
                    task, lambda found, place=place: take(place, found), size=layer.weight.size
                )
        self.progress(stage, max(1, len(names)), max(1, len(names)))
        moved = sensitivity.measure(
            self.network,
            self.inputs[:PROBE_IMAGES],
            self.layers,
            {name: mappings[place] for place, name in enumerate(names)},
            workers=self.workers,
            work=self.work,
            progress=lambda done, total: self.progress("measure sensitivities", done, total),
        )
        return {name: moved[name] / probes[name].loss for name in names}

    def hulls(self) -> list[list[Candidate]]:
        """Measure; returns the hull of every layer of which something is to be chosen."""
        candidates = self.all_candidates()
        probes = {
            name: min(
                found[:-1] or found,
                key=lambda each: self.choices.distance(each.setting, self.chosen[name]),
            )
            for name, found in zip(self.open, candidates, strict=True)
        }
        weights = self.sensitivities(probes)
        self.measured = [
            [dataclasses.replace(each, loss=each.loss * weights.get(name, 0.0)) for each in found]
            for name, found in zip(self.open, candidates, strict=True)
        ]
        return self._hulls()

    def hulls_at(self, settings: Mapping[str, LayerSetting]) -> list[list[Candidate]]:
        """Hulls with the costs that layers have on the engine of a choice."""
        self.meter.refer(self.programs(settings))
        return self._hulls()

    def _hulls(self) -> list[list[Candidate]]:
        """Hull of every layer, with the costs of today."""
        return [
            hull(
                [
                    dataclasses.replace(each, cost=cost)
                    for each, cost in zip(found, self._recounted(found), strict=True)
                ]
            )
            for found in self.measured
        ]

    def _recounted(self, found: list[Candidate]) -> list[float]:
        return self.meter.recounted([Counted(cost=each.cost, events=each.events) for each in found])

    def fixed_cost(self) -> float:
        """Return the cost of the layers that offer no choice."""
        cost = 0.0
        for layer, dense in zip(self.layers, self.dense_counted, strict=True):
            if layer.name not in self.open:
                setting = self.chosen[layer.name]
                own = setting.scheme != "dense"
                found = self.counted(layer, self.map(layer, setting)) if own else dense
                (each,) = self.meter.recounted([found])
                cost += each
        return cost

    def network_cost(self, settings: Mapping[str, LayerSetting]) -> float:
        """Return the cost of the network that a choice gives, mapped as it will be."""
        return self.meter.network(self.programs(settings))

    def settings_of(self, hulls: list[list[Candidate]], places: tuple[int, ...]) -> dict:
        """Setting of every layer of which something was chosen."""
        return {
            name: each[place].setting
            for name, each, place in zip(self.open, hulls, places, strict=True)
        }

    def mappings(self, settings: Mapping[str, LayerSetting]) -> list[LayerMapping]:
        """Mappings of all layers under a choice; those of before are kept."""
        wanted = [settings.get(layer.name, self.chosen[layer.name]) for layer in self.layers]
        missing = [
            (layer, setting)
            for layer, setting in zip(self.layers, wanted, strict=True)
            if setting.scheme != "dense" and (layer.name, setting) not in self.mapped
        ]
        with Tasks(self.workers) as tasks:
            for layer, setting in missing:

                def task(layer: MatrixLayer = layer, setting: LayerSetting = setting) -> Any:
                    return CompactMapping.of(self.map(layer, setting))

                def take(found: LayerMapping, key: Any = (layer.name, setting)) -> None:
                    self.mapped[key] = found

                tasks.add(task, take, size=layer.weight.size)
        return [
            dense if setting.scheme == "dense" else self.mapped[layer.name, setting]
            for layer, dense, setting in zip(self.layers, self.dense, wanted, strict=True)
        ]

    def programs(self, settings: Mapping[str, LayerSetting]) -> list[LayerProgram]:
        """Programs of all layers under a choice."""
        return [
            compile_layer(layer, mapping, self.ou_rows)
            for layer, mapping in zip(self.layers, self.mappings(settings), strict=True)
        ]

    def keep(self, settings: Mapping[str, LayerSetting]) -> None:
        """Keep the mappings that were made for a choice, for who maps the network with it."""
        assert self.work is not None
        kept = Mappings([layer.name for layer in self.layers], self.work)
        for index, layer in enumerate(self.layers):
            setting = settings.get(layer.name)
            if setting is not None and (layer.name, setting) in self.mapped:
                kept.put(index, self.mapped[layer.name, setting])

    def accuracy(self, settings: Mapping[str, LayerSetting], labels: NDArray) -> float:
        """Accuracy of the mapped network, moments matched, on the calibration images."""
        mappings = self.mappings(settings)
        mapped = match_moments(self.network, self.layers, mappings, self.inputs)
        return accuracy_of(mapped, self.inputs, labels)


def _candidate(setting: LayerSetting, counted: Counted, loss: float) -> Candidate:
    return Candidate(setting=setting, cost=counted.cost, loss=loss, events=counted.events)


def _plain(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON values."""
    return dataclasses.asdict(candidate)


def _read(kept: Mapping[str, Any]) -> Candidate:
    """Read what :func:`_plain` wrote."""
    events = kept["events"] and LayerEvents(**kept["events"])
    return Candidate(**{**kept, "setting": LayerSetting(**kept["setting"]), "events": events})


def output_error(layer: MatrixLayer, mapping: LayerMapping, statistics: InputStatistics) -> float:
    """Variance of the error of a layer's outputs over that of the outputs, gains included.

    Blocks of inputs whose covariance is not known count as uncorrelated.
    """
    gain = np.asarray(layer.gain)[:, None, None, None]
    weight = layer.weight * gain
    error = mapping.effective(layer.weight) * gain - weight
    per_group = len(statistics.blocks) // layer.groups
    outputs = len(weight) // layer.groups
    wrong = whole = 0.0
    for number, block in enumerate(statistics.blocks):
        group, place = divmod(number, per_group)
        first = place * statistics.channels
        part = (
            slice(group * outputs, (group + 1) * outputs),
            slice(first, first + statistics.channels),
        )
        for values, wanted in ((error, False), (weight, True)):
            rows = values[part].reshape(outputs, -1)
            variance = float(np.einsum("oi,oi->", rows @ block, rows))
            wrong, whole = (wrong, whole + variance) if wanted else (wrong + variance, whole)
    return wrong / whole if whole > 0 else 0.0


def accuracy_of(network: FloatNetwork, inputs: Floats, labels: NDArray) -> float:
    """Share of the images whose largest output is that of their label."""
    answers = network.forward(inputs).reshape(len(inputs), -1).argmax(1)
    return float(np.mean(answers == np.asarray(labels)))
