"""Folders of pictures: PNG and JPEG in a folder to each class, brought to one size."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError, require_extra

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Ends of the names of files that are read, in small letters; others are passed over."""

MOST_PIXELS = 1 << 26
"""Pixels of one picture as it lies in its file."""

MOST_VALUES = 1 << 30
"""Values of all pictures together, after they were brought to one size."""

MOST_FILES = 1 << 20
"""Pictures of a folder."""


def load_pictures(
    folder: Path, *, resize: int | None = None, crop: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read the pictures of a folder, as they lie in the folders of their classes.

    Classes are numbered in the order of their folders' names; where all names are whole numbers,
    these are the classes. Pictures without folders have no labels. Where all are grey, they stay
    so, else all become red, green and blue; transparency is left out.

    Parameters
    ----------
    folder
        The folder.
    resize
        Pixels that the shorter side of each picture is brought to, bilinear over all pixels that
        lie under one; None: it stays.
    crop
        Pixels of a square in the middle that is kept, 1 at least; None: all of it.

    Returns
    -------
    x
        uint8 (N, H, W) or (N, H, W, 3), in the order of classes and of names.
    y
        int64 (N,); None where there are no folders of classes.

    Raises
    ------
    InputError
        The folder cannot be read, there are no pictures, some are damaged, too large or of
        different sizes, or a folder has pictures both in and beside folders of classes; or Pillow
        is not installed.
    """
    require_extra("images")
    try:
        paths, y = _listed(folder)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise InputError(
            f"expected a readable folder of pictures, found: {found}, in {folder}"
        ) from error
    pictures, sizes = [], {}
    total = 0
    for path in paths:
        picture = _decoded(path, resize, crop)
        sizes.setdefault(picture.shape[:2], path)
        if len(sizes) > 1:
            (first, a), (second, b) = list(sizes.items())[:2]
            raise InputError(
                f"expected pictures of one size, found {first[1]}x{first[0]} in {a.name} and "
                f"{second[1]}x{second[0]} in {b.name}: --resize and --crop bring them to one, "
                f"in {folder}"
            )
        total += picture.shape[0] * picture.shape[1] * 3
        if total > MOST_VALUES:
            raise InputError(
                f"expected pictures of at most {MOST_VALUES} values together, found more in the "
                f"first {len(pictures) + 1} of {len(paths)}: take fewer, or --resize and --crop, "
                f"in {folder}"
            )
        pictures.append(picture)
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [
            picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
            for picture in pictures
        ]
    return np.stack(pictures), y


def _listed(folder: Path) -> tuple[list[Path], NDArray[np.int64] | None]:
    """List the pictures of a folder, and their classes."""
    plain = _pictures(folder)
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    by_class = {each.name: _pictures(each) for each in classes if not each.name.startswith(".")}
    by_class = {name: found for name, found in by_class.items() if found}
    if plain and by_class:
        raise InputError(
            f"expected pictures in folders of their classes, or none in folders, found "
            f"{plain[0].name} beside the folder {next(iter(by_class))!r}, in {folder}"
        )
    if not plain and not by_class:
        raise InputError(
            f"expected pictures that end with {', '.join(SUFFIXES)}, or folders of classes with "
            f"such, found none, in {folder}"
        )
    if plain:
        return plain, None
    names = list(by_class)
    if all(name.isascii() and name.isdecimal() and len(name) < 10 for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) < len(numbers):
            raise InputError(f"expected a folder to each class, found two of one, in {folder}")
        names = sorted(names, key=int)
        numbers.sort()
    else:
        numbers = list(range(len(names)))
    paths = [path for name in names for path in by_class[name]]
    y = np.repeat(np.array(numbers, np.int64), [len(by_class[name]) for name in names])
    return paths, y


def _pictures(folder: Path) -> list[Path]:
    """List the pictures that lie in a folder, by name."""
    found = []
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            found.append(path)
            if len(found) > MOST_FILES:
                raise InputError(f"expected at most {MOST_FILES} pictures, found more, in {folder}")
    return sorted(found)


def _decoded(path: Path, resize: int | None, crop: int | None) -> NDArray[np.uint8]:
    """Decode a picture: (H, W) or (H, W, 3)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked here
            # From memory: a file is asked for as many bytes as a part of it says that it has.
            content = BytesIO(_content(path))
            with Image.open(content, formats=("PNG", "JPEG")) as picture:
                width, height = picture.size
                if width * height > MOST_PIXELS:
                    raise InputError(
                        f"expected a picture of at most {MOST_PIXELS} pixels, found "
                        f"{width}x{height}, in {path}"
                    )
                return np.asarray(_sized(_plain(picture), resize, crop, path), np.uint8)
    except InputError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others
        lines = str(error).splitlines() or [type(error).__name__]
        found = lines[0].replace(str(path), path.name)[:200]
        raise InputError(f"expected a PNG or JPEG, found: {found}, in {path}") from error


def _content(path: Path) -> bytes:
    """Read a file that may be a picture of at most :data:`MOST_PIXELS`."""
    size, most = path.stat().st_size, 8 * MOST_PIXELS + (1 << 20)
    if size > most:
        raise InputError(f"expected a picture of at most {most} bytes, found {size}, in {path}")
    return path.read_bytes()


def _plain(picture: Any) -> Any:
    """Convert to 8 bits grey, or red, green and blue."""
    if picture.mode.startswith("I"):  # 16 bits a pixel
        wide = np.asarray(picture)
        from PIL import Image

        return Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8))
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def _sized(picture: Any, resize: int | None, crop: int | None, path: Path) -> Any:
    """Bring a picture to its size."""
    from PIL import Image

    width, height = picture.size
    if resize is not None and min(width, height) != resize:
        short = min(width, height)
        width, height = (max(1, int(resize * side / short)) for side in (width, height))
        if width * height > MOST_PIXELS:
            raise InputError(
                f"expected a picture of at most {MOST_PIXELS} pixels, found {width}x{height} "
                f"after --resize {resize}, in {path}"
            )
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    if crop is None:
        return picture
    if min(width, height) < crop:
        raise InputError(
            f"expected a picture of at least {crop}x{crop} to crop, found {width}x{height}, "
            f"in {path}"
        )
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return picture.crop((left, top, left + crop, top + crop))
