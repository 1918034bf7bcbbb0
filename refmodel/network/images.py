"""Read labelled images from files and turn pixels into network inputs.

Files that are read are ``.npz`` with the arrays ``x`` (images) and ``y`` (labels), ``.npy``, and
the idx format of MNIST, where images and labels are two files, plain or gzipped; folders are read
as pictures.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.archive import Archive, DamagedError, gunzip, npy
from refmodel.errors import InputError
from refmodel.network.pictures import load_pictures

LAYOUTS = ("auto", "nf", "nhw", "nhwc", "nchw")
"""Meanings of an image array's axes: number, features, height, width, channels."""

SIZES = ("resize", "crop")
"""Fields of a Preprocess that folders of pictures alone have a use for."""

MOST_SIDE = 1 << 13
"""Pixels of a side that pictures may be brought to."""

_IDX_TYPES = {
    0x08: ">u1",
    0x09: ">i1",
    0x0B: ">i2",
    0x0C: ">i4",
    0x0D: ">f4",
    0x0E: ">f8",
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How pixels become network inputs: ``(pixel * scale - mean) / std``.

    Attributes
    ----------
    mean, std
        One value for all channels, or one to a channel; finite, std not 0.
    scale
        Factor by which pixels are multiplied first; finite, not 0. None, as where the command line
        has no ``--scale``: 1/255 for integer images and 1 for floating-point ones. A program, a
        network that is fine-tuned and :meth:`for_images` settle that once, by the images that they
        are made with; :meth:`apply` alone settles it by its own.
    layout
        Axes of the image arrays: one of ``nf``, ``nhw``, ``nhwc``, ``nchw``, or ``auto``, which
        takes the one that fits the network's input.
    resize, crop
        Pixels that the shorter side of each picture of a folder is brought to, and of the square
        that is then kept of its middle; None: as they are. Arrays have their size already.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float | None = None
    layout: str = "auto"
    resize: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            values = tuple(map(float, values if isinstance(values, Sequence) else (values,)))
            object.__setattr__(self, name, values)
            if not values or not all(map(isfinite, values)):
                raise InputError(f"{name} must be one or more finite numbers, not {values!r}")
        if 0.0 in self.std:
            raise InputError(f"std must not be 0, not {self.std!r}")
        if self.scale is not None:
            object.__setattr__(self, "scale", float(self.scale))
            if not isfinite(self.scale) or self.scale == 0:
                raise InputError(f"scale must be finite and not 0, not {self.scale!r}")
        if self.layout not in LAYOUTS:
            raise InputError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_SIDE:
                raise InputError(f"{name} must be 1 to {MOST_SIDE} pixels, not {value!r}")

    @classmethod
    def for_images(
        cls,
        images: NDArray,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        scale: float | None = None,
        layout: str = "auto",
        resize: int | None = None,
        crop: int | None = None,
    ) -> "Preprocess":
        """Fill in what the user left open: mean 0, std 1, scale 1/255 for integer images, else 1.

        The scale is settled here, once, from the calibration images; it does not change when
        later images have another type.
        """
        chosen = cls(
            mean=tuple(mean) if mean else (0.0,),
            std=tuple(std) if std else (1.0,),
            scale=scale,
            layout=layout,
            resize=resize,
            crop=crop,
        )
        return chosen.settled(images)

    def settled(self, images: NDArray) -> "Preprocess":
        """Settle the scale by images, where it is None."""
        if self.scale is not None:
            return self
        return replace(self, scale=1 / 255 if np.asarray(images).dtype.kind in "ui" else 1.0)

    def apply(
        self, images: NDArray, input_shape: tuple[int, ...], *, source: str = "the images"
    ) -> NDArray[np.float32]:
        """Turn images into network inputs.

        Parameters
        ----------
        images
            As :func:`load_images` gives them, axes as ``layout`` says.
        input_shape
            The network's input without the batch: (C, H, W), (F,), or (H, W, C) for a network
            that takes channels last. Images are flattened, channels first, for a network (F,).
        source
            Where the images came from, for messages.

        Returns
        -------
        float32 (N, *input_shape)

        Raises
        ------
        InputError
            The images do not fit the input, or mean and std do not fit the channels.
        """
        images = np.asarray(images)
        settled = self.for_input(images, input_shape, source=source)
        x = _planes(images, settled.layout).astype(np.float32)
        channels = x.shape[1] if x.ndim == 4 else 1
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, channels):
                raise InputError(
                    f"expected {name} of 1 or {channels} values for images of {channels} channels, "
                    f"found {len(getattr(self, name))}, in {source}"
                )
        axes = (1,) * (x.ndim - 2)
        mean = np.array(self.mean, np.float32).reshape(-1, *axes)
        std = np.array(self.std, np.float32).reshape(-1, *axes)
        assert settled.scale is not None
        result = _fit((x * np.float32(settled.scale) - mean) / std, input_shape)
        assert result is not None
        return np.ascontiguousarray(result)

    def for_input(
        self, images: NDArray, input_shape: tuple[int, ...], *, source: str = "the images"
    ) -> "Preprocess":
        """Settle scale and layout: the one in which images fit a network's input.

        Parameters
        ----------
        images, input_shape, source
            As :meth:`apply` takes them.

        Raises
        ------
        InputError
            They fit in none.
        """
        layout = self._layout(np.asarray(images), input_shape)
        if layout is None:
            raise InputError(
                f"expected images for a network input of shape {_text(input_shape)}, "
                f"found {_text(np.shape(images)[1:])} (layout {self.layout}), in {source}"
            )
        return replace(self.settled(images), layout=layout)

    def fits(self, images: NDArray, input_shape: tuple[int, ...]) -> bool:
        """Whether images fit a network's input, both as :meth:`apply` takes them."""
        return self._layout(np.asarray(images), input_shape) is not None

    def _layout(self, images: NDArray, shape: tuple[int, ...]) -> str | None:
        """The layout in which the images fit the network's input, if there is one."""
        fitting = [
            layout
            for layout in LAYOUTS[1:]
            if self.layout in ("auto", layout)
            and len(layout) == images.ndim
            and _fit(_planes(images, layout), shape) is not None
        ]
        if len(fitting) == 2:  # both orders of four axes: there are fewer channels than pixels
            likely = "nchw" if images.shape[1] < images.shape[3] else "nhwc"
            other = "nhwc" if likely == "nchw" else "nchw"
            channels = {_planes(images, layout).shape[1]: layout for layout in (other, likely)}
            # Several means or deviations are one to a channel, which tells where the channels are.
            given = max(len(self.mean), len(self.std))
            return likely if given == 1 else channels.get(given, likely)
        return fitting[0] if fitting else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which :meth:`from_dict` makes the same."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return {key: each for key, each in values.items() if key not in SIZES or each is not None}

    @property
    def sizes(self) -> dict[str, int | None]:
        """``resize`` and ``crop``, as :func:`load_images` takes them."""
        return {"resize": self.resize, "crop": self.crop}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """Undo :meth:`to_dict`; InputError where something is missing or of the wrong kind."""
        try:
            return cls(
                mean=tuple(values["mean"]),
                std=tuple(values["std"]),
                scale=float(values["scale"]),
                layout=values["layout"],
                **{name: int(values[name]) for name in SIZES if values.get(name) is not None},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"expected mean, std, scale and layout of the images, found {str(values)[:200]!r}"
            ) from error


def _planes(images: NDArray, layout: str) -> NDArray:
    """Images as (N, C, H, W), or (N, F) where they have no axes."""
    if layout == "nhw":
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if layout == "nhwc" else images


def _fit(x: NDArray, shape: tuple[int, ...]) -> NDArray | None:
    """(N, C, H, W) or (N, F) in the shape of a network's input, or None where it does not fit."""
    count = len(x)
    if x.shape[1:] == shape:
        return x
    if x.ndim == 4 and (*x.shape[2:], x.shape[1]) == shape:
        return x.transpose(0, 2, 3, 1)
    if x.ndim == 4 and x.shape[1:] == (1, *shape):
        return x[:, 0]
    if prod(x.shape[1:]) == prod(shape) and (x.ndim == 2 or len(shape) == 1):
        return x.reshape(count, *shape)
    return None


def load_images(
    paths: str | Path | Sequence[str | Path],
    *,
    resize: int | None = None,
    crop: int | None = None,
) -> tuple[NDArray, NDArray[np.int64] | None]:
    """Read images and their labels.

    Parameters
    ----------
    paths
        A ``.npz`` with ``x`` and, if it has labels, ``y``; or an ``.npy`` or idx file of images and
        one of labels, each plain or gzipped; or the file of images alone, then the labels are read
        from the file beside it that has ``labels`` and ``idx1`` in its name where this one has
        ``images`` and ``idx3``, if there is one. The kind of a file is told by its content, not its
        name. Or a folder of pictures: :func:`refmodel.network.pictures.load_pictures`.
    resize, crop
        Sizes of the pictures of a folder; nothing to files, whose images have a size.

    Returns
    -------
    x
        uint8, another integer or a floating-point type; (N, F), (N, H, W), (N, H, W, C) or
        (N, C, H, W), N at least 1.
    y
        int64 (N,), at least 0; None where there are no labels.

    Raises
    ------
    InputError
        A file is missing, truncated or of another kind; an array is missing, has the wrong number
        of axes or holds NaN or infinity; images and labels differ in number.
    """
    several = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not 1 <= len(several) <= 2:
        raise InputError(
            f"expected one .npz, .npy or idx file, one of images and one of labels, or a folder, "
            f"found {len(several)} paths of images"
        )
    first = several[0]
    if first.is_dir():
        if len(several) == 2:
            raise InputError(
                f"expected a folder of pictures alone, whose folders are the labels, found a "
                f"second path, {several[1]}"
            )
        return load_pictures(first, resize=resize, crop=crop)
    content = _read(first)
    if content[:4] == b"PK\x03\x04":
        if len(several) == 2:
            raise InputError(f"expected an .npz alone, found a second file, {several[1]}")
        x, y = _npz(content, first)
    else:
        x, y = _array(content, first), None
        beside = first.with_name(first.name.replace("images", "labels").replace("idx3", "idx1"))
        if len(several) == 1 and beside != first and beside.exists():
            several.append(beside)
        if len(several) == 2:
            y = _array(_read(several[1]), several[1])
    return _images(x, first), None if y is None else _labels(y, len(x), several[-1])


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _read(path: Path) -> bytes:
    """Content of a file, unpacked where it is gzipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(
            f"expected a readable file of images, found: {found}, in {path}"
        ) from error
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gunzip(content)
    except DamagedError as error:
        raise InputError(f"expected a whole gzip file, found: {error}, in {path}") from error


def _npz(content: bytes, path: Path) -> tuple[NDArray, NDArray | None]:
    try:
        archive = Archive(content)
        if "x.npy" not in archive.names:
            found = ", ".join(name.removesuffix(".npy") for name in archive.names) or "none"
            raise InputError(f"expected the array x, found {found[:200]!s}, in {path}")
        x = archive.array("x.npy")
        return x, archive.array("y.npy") if "y.npy" in archive.names else None
    except DamagedError as error:
        raise InputError(f"expected an .npz of plain arrays, found: {error}, in {path}") from error


def _array(content: bytes, path: Path) -> NDArray:
    """Array of an ``.npy`` or idx file."""
    if content[:6] != b"\x93NUMPY":
        return _idx(content, path)
    try:
        return npy(content)
    except DamagedError as error:
        raise InputError(f"expected an .npy of plain numbers, found: {error}, in {path}") from error


def _idx(content: bytes, path: Path) -> NDArray:
    known = len(content) >= 4 and content[:2] == b"\0\0" and content[2] in _IDX_TYPES
    if not known or not 1 <= content[3] <= 4:
        raise InputError(
            f"expected an .npz, .npy or idx file, found {len(content)} bytes that begin with "
            f"{content[:4].hex(' ') or 'nothing'}, in {path}"
        )
    kind, axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:start]) if len(content) >= start else None
    if shape is None:
        raise InputError(f"expected the {axes} sizes of an idx file, found its end, in {path}")
    size = kind.itemsize * prod(shape)
    if len(content) - start != size:
        raise InputError(
            f"expected {size} bytes for {_text(shape)}, found {len(content) - start}, in {path}"
        )
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _images(x: NDArray, path: Path) -> NDArray:
    if x.dtype.kind == "b":
        x = x.astype(np.uint8)
    if x.dtype.kind not in "uif":
        raise InputError(f"expected images of numbers, found {x.dtype}, in {path}")
    if not 2 <= x.ndim <= 4 or not x.size:
        raise InputError(
            f"expected images (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W), "
            f"found {_text(x.shape)}, in {path}"
        )
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise InputError(
            f"expected finite pixels, found {bad} of {x.size} NaN or infinite, in {path}"
        )
    return x


def _labels(y: NDArray, count: int, path: Path) -> NDArray[np.int64]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "ui" or (y.size and int(y.min()) < 0):
        raise InputError(
            f"expected labels (N,) of integers from 0, found {y.dtype} {_text(y.shape)}, in {path}"
        )
    if len(y) != count:
        raise InputError(f"expected {count} labels, one to an image, found {len(y)}, in {path}")
    return y.astype(np.int64)
