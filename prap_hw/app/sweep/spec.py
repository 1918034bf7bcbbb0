"""The specification of a sweep: a TOML file that names networks and lists of values."""

import contextlib
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prap_hw.app import pricing, workflow
from prap_hw.app.stages import BUDGETED, Subject
from refmodel.compression.budget import COUNTED_OF
from refmodel.compression.schemes import SCHEMES
from refmodel.config import MOST_ENGINES, PRESETS, EngineConfig
from refmodel.errors import InputError
from refmodel.golden.devices.device import Device
from refmodel.network.images import Preprocess

TABLES = ("network", "points", "engine", "devices", "pricing")
"""Tables of a specification."""

ENGINE_KEYS = (
    "ou_rows", "ou_cols", "crossbar_size", "cell_bits", "dac_bits", "adc_bits", "adcs",
    "merge_lanes", "position_lanes",
)  # fmt: skip
"""Sizes of the engine that may be swept, besides ``engines``; the latency is the technology's."""

IDEAL = "ideal"
"""Name of cells and converters without a fault, for which nothing is simulated again."""

_NETWORK = {
    "name": str, "file": str, "calibration": list, "images": list, "limit": int,
    "calibration_limit": int, "mean": list, "std": list, "scale": float, "layout": str,
    "resize": int, "crop": int,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that a sweep shall run.

    Attributes
    ----------
    networks
        Name and subject of each network.
    schemes
        Names in ``SCHEMES``.
    budgets
        Times less than dense; None is default settings. Schemes without a choice have these alone.
    of
        The cost that budgets count: a name in ``COUNTED_OF``.
    engines
        Engines: a base configuration, which is sized to each network, and how many to a tile.
    devices
        Device files or names; ``ideal`` is no device.
    trials
        Chips drawn of each device.
    technologies
        Technology files or names.
    """

    networks: tuple[tuple[str, Subject], ...]
    schemes: tuple[str, ...]
    budgets: tuple[float | None, ...]
    of: str
    engines: tuple[tuple[EngineConfig, int], ...]
    devices: tuple[str, ...]
    trials: int
    technologies: tuple[str, ...]

    def size(self) -> int:
        """Rows that the results will have."""
        budgets = sum(len(self.budgets_of(scheme)) for scheme in self.schemes)
        more = len(self.engines) * len(self.devices) * len(self.technologies)
        return len(self.networks) * budgets * more

    def budgets_of(self, scheme: str) -> tuple[float | None, ...]:
        """Budgets that apply to a scheme: the default alone where there is nothing to choose."""
        return self.budgets if scheme in BUDGETED else (None,)


def read_spec(path: workflow.Paths) -> Spec:
    """Read a specification; files in it are relative to its folder.

    Raises
    ------
    InputError
        The file is not there, not TOML, or asks for what there is not; one line with the place.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"expected a TOML file, found {problem.strerror} at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"expected TOML, found {problem} in {path.name}") from None
    return _spec(found, path)


def _spec(found: Mapping[str, Any], path: Path) -> Spec:
    file = path.name
    _only(found, TABLES, file)
    points = _table(found, "points", ("schemes", "budgets", "of"), file)
    devices = _table(found, "devices", ("names", "trials"), file)
    prices = _table(found, "pricing", ("technologies",), file)
    engine = _table(found, "engine", ("preset", *ENGINE_KEYS, "engines"), file)
    networks = found.get("network", [])
    if isinstance(networks, Mapping):
        networks = [networks]
    if not networks or not isinstance(networks, list):
        raise InputError(f"expected [network] with file and calibration, found none in {file}")
    subjects = tuple(_network(each, number, path) for number, each in enumerate(networks))
    names = [name for name, _ in subjects]
    if len(set(names)) != len(names):
        raise InputError(
            f"expected networks of different names, found {', '.join(names)} in {file}"
        )
    schemes = _texts(points, "schemes", list(SCHEMES), f"[points] of {file}")
    for scheme in schemes:
        if scheme not in SCHEMES:
            raise InputError(
                f"expected schemes of {', '.join(SCHEMES)}, found {scheme!r} in [points] of {file}"
            )
    of = points.get("of", "ous")
    if of not in COUNTED_OF:
        raise InputError(
            f"expected of to be {', '.join(COUNTED_OF)}, found {of!r} in [points] of {file}"
        )
    kinds = _texts(devices, "names", [IDEAL], f"[devices] of {file}")
    for kind in kinds:
        if kind != IDEAL:
            with _in(f"[devices] of {file}"):
                Device.load(_beside(kind, path))
            unlabelled = [name for name, subject in subjects if not subject.images]
            if unlabelled:
                raise InputError(
                    f"expected images for devices, found none for {unlabelled[0]} in {file}"
                )
    trials = devices.get("trials", 3)
    if not _is(trials, int) or trials < 1:
        raise InputError(f"expected trials of at least 1, found {trials!r} in [devices] of {file}")
    technologies = _texts(
        prices, "technologies", [pricing.DEFAULT_TECHNOLOGY], f"[pricing] of {file}"
    )
    technologies = [_beside(each, path) for each in technologies]
    for each in technologies:
        with _in(f"[pricing] of {file}"):
            pricing.load(each)
    return Spec(
        networks=subjects,
        schemes=tuple(schemes),
        budgets=_budgets(points, file),
        of=of,
        engines=_engines(engine, file),
        devices=tuple(kind if kind == IDEAL else _beside(kind, path) for kind in kinds),
        trials=trials,
        technologies=tuple(technologies),
    )


def _is(value: object, kind: type) -> bool:
    """Whether a value is of a kind; a whole number is a float, too, and a truth value neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


@contextlib.contextmanager
def _in(place: str) -> Iterator[None]:
    """Say in which part of the specification something was wrong."""
    try:
        yield
    except InputError as problem:
        raise InputError(f"{problem}, in {place}") from None


def _only(found: Mapping[str, Any], allowed: tuple[str, ...], place: str) -> None:
    for key in found:
        if key not in allowed:
            raise InputError(f"expected keys of {', '.join(allowed)}, found {key!r} in {place}")


def _table(
    found: Mapping[str, Any], name: str, keys: tuple[str, ...], file: str
) -> Mapping[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, Mapping):
        raise InputError(f"expected a table [{name}], found {table!r} in {file}")
    _only(table, keys, f"[{name}] of {file}")
    return table


def _texts(table: Mapping[str, Any], key: str, default: list[str], place: str) -> list[str]:
    values = table.get(key, default)
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list) or not values or not all(_is(v, str) for v in values):
        raise InputError(f"expected a list of names as {key}, found {values!r} in {place}")
    return list(dict.fromkeys(values))


def _beside(name: str, path: Path) -> str:
    """A name, or the path of the file of that name beside the specification."""
    file = path.parent / name
    return str(file.resolve()) if file.is_file() else name


def _network(found: Any, number: int, path: Path) -> tuple[str, Subject]:
    place = f"[network] {number + 1} of {path.name}"
    if not isinstance(found, Mapping):
        raise InputError(f"expected a table, found {found!r} as {place}")
    _only(found, tuple(_NETWORK), place)
    values = dict(found)
    for key in ("calibration", "images"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    for key in ("mean", "std"):
        if _is(values.get(key), float):
            values[key] = [values[key]]
    for key, value in values.items():
        if not _is(value, _NETWORK[key]):
            raise InputError(
                f"expected {key} to be a {_NETWORK[key].__name__}, found {value!r} in {place}"
            )
    for key in ("limit", "calibration_limit"):
        if values.get(key, 1) < 1:
            raise InputError(f"expected {key} of at least 1, found {values[key]} in {place}")
    for key in ("file", "calibration"):
        if not values.get(key):
            raise InputError(f"expected {key}, found none in {place}")
    for name in (values["file"], *values["calibration"], *values.get("images", ())):
        if not (path.parent / name).exists():
            raise InputError(f"expected a file, found none at {name}, in {place}")
    for key in ("mean", "std"):
        if key in values and not all(_is(each, float) for each in values[key]):
            raise InputError(f"expected numbers as {key}, found {values[key]!r} in {place}")

    def placed(key: str) -> tuple[str, ...]:
        return tuple(str((path.parent / each).resolve()) for each in values.get(key, ()))

    subject = Subject(
        network=str((path.parent / values["file"]).resolve()),
        calibration=placed("calibration"),
        images=placed("images"),
        mean=tuple(map(float, values["mean"])) if "mean" in values else None,
        std=tuple(map(float, values["std"])) if "std" in values else None,
        scale=values.get("scale"),
        layout=values.get("layout", "auto"),
        resize=values.get("resize"),
        crop=values.get("crop"),
        limit=values.get("limit"),
        calibration_limit=values.get("calibration_limit", 256),
    )
    with _in(place):
        Preprocess(
            mean=subject.mean or (0.0,),
            std=subject.std or (1.0,),
            scale=1.0 if subject.scale is None else subject.scale,
            layout=subject.layout,
            resize=subject.resize,
            crop=subject.crop,
        )
    return values.get("name", Path(values["file"]).stem), subject


def _budgets(points: Mapping[str, Any], file: str) -> tuple[float | None, ...]:
    values = points.get("budgets", ["default"])
    values = values if isinstance(values, list) else [values]
    result: list[float | None] = []
    for each in values:
        if each == "default":
            result.append(None)
        elif _is(each, float) and 1 < each < math.inf:
            result.append(float(each))
        else:
            raise InputError(
                f"expected budgets above 1, or 'default', found {each!r} in [points] of {file}"
            )
    if not result:
        raise InputError(f"expected budgets, found none in [points] of {file}")
    return tuple(dict.fromkeys(result))


def _engines(table: Mapping[str, Any], file: str) -> tuple[tuple[EngineConfig, int], ...]:
    """All combinations of the engine's lists; each must be an engine that there can be."""
    place = f"[engine] of {file}"
    lists: dict[str, list[Any]] = {}
    for key, value in table.items():
        lists[key] = value if isinstance(value, list) else [value]
        kind = str if key == "preset" else int
        if not lists[key] or not all(_is(each, kind) for each in lists[key]):
            raise InputError(f"expected {kind.__name__}s as {key}, found {value!r} in {place}")
    for preset in lists.get("preset", []):
        if preset not in PRESETS:
            raise InputError(
                f"expected a preset of {', '.join(PRESETS)}, found {preset!r} in {place}"
            )
    many = lists.pop("engines", [1])
    for each in many:
        if not 1 <= each <= MOST_ENGINES:
            raise InputError(f"expected 1 to {MOST_ENGINES} engines, found {each} in {place}")
    result = []
    for values in itertools.product(*lists.values()):
        options = dict(zip(lists, values, strict=True))
        with _in(place):
            config = workflow.engine(options)
        result += [(config, each) for each in many]
    return tuple(dict.fromkeys(result))
