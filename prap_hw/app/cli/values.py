"""Values of options that are more than a word or a number."""

import dataclasses
from pathlib import Path
from typing import Any

from refmodel.errors import InputError

SHORT_SETTING = ("channels", "positions", "keep")
BOOLEANS = {"true": True, "false": False}


def pair(images: Path, labels: Path | None) -> list[Path]:
    """Files of images: with their labels, where these were named."""
    return [images] if labels is None else [images, labels]


def device(name: str | None) -> Any:
    """Read a device file; None where none is named."""
    from refmodel.golden.devices.device import Device

    return None if name is None else Device.load(name)


def layer_settings(texts: list[str], scheme: str) -> dict[str, Any]:
    """Read ``conv2=2,4,0.375`` or ``conv2=keep=0.2,scheme=orc`` into settings by name pattern."""
    from refmodel.compression.schemes import LayerSetting

    kinds = {field.name: type(field.default) for field in dataclasses.fields(LayerSetting)}
    result = {}
    for text in texts:
        name, _, values = text.partition("=")
        parts = values.split(",")
        if values and "=" not in values and len(parts) == 3:
            parts = [f"{key}={part}" for key, part in zip(SHORT_SETTING, parts, strict=True)]
        chosen: dict[str, Any] = {"scheme": scheme}
        try:
            for part in parts:
                key, _, value = part.partition("=")
                if not name or not value or key not in kinds:
                    raise InputError(
                        f"expected LAYER=C,V,KEEP or LAYER=KEY=VALUE,... with {', '.join(kinds)}, "
                        f"found {text!r} in --set"
                    )
                chosen[key] = BOOLEANS[value] if kinds[key] is bool else kinds[key](value)
            result[name] = LayerSetting(**chosen)
        except (KeyError, ValueError) as problem:
            raise InputError(
                f"expected settings that a layer can have, found {text!r} in --set ({problem})"
            ) from None
    return result


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read ``0.5`` or ``0.1,0.2,0.3``."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"expected numbers with commas, found {text!r} in {option}") from None
