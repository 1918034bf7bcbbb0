"""Values of options that are more than a word or a number."""

from pathlib import Path
from typing import Any

from refmodel.errors import InputError


def pair(images: Path, labels: Path | None) -> list[Path]:
    """Files of images: with their labels, where these were named."""
    return [images] if labels is None else [images, labels]


def need(option: str, given: object, **others: object) -> None:
    """Refuse options that say nothing without another one.

    Parameters
    ----------
    option, given
        The option that the others need, and its value; None or empty: it was not given.
    others
        Values of the other options by their names, ``adc_bits`` for ``--adc-bits``; None: not
        given.
    """
    found = [f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None]
    if found and not given:
        raise InputError(f"expected {option} with {' and '.join(found)}, found none")


def device(name: str | None) -> Any:
    """Read a device file; None where none is named."""
    from refmodel.golden.devices.device import Device

    return None if name is None else Device.load(name)


def layer_settings(texts: list[str], scheme: str) -> dict[str, Any]:
    """Read the settings of ``--set`` by name pattern."""
    from refmodel.compression.schemes import read_settings

    return dict(read_settings(texts, scheme))


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read ``0.5`` or ``0.1,0.2,0.3``."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"expected numbers with commas, found {text!r} in {option}") from None
