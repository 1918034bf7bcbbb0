"""Change calibration images at random as training did: crops of the padded image, and flips.

    from refmodel.augment import augment

    x = augment(x, "crop4,flip")

Moments and ranges are taken from calibration images; where a network was trained on changed ones,
plain images are not quite what it knows.
"""

import re

import numpy as np
from numpy.typing import NDArray

from refmodel.errors import InputError

LARGEST_CROP = 64


def augment(images: NDArray, how: str, *, layout: str = "auto", seed: int = 0) -> NDArray:
    """Change each image at random.

    Parameters
    ----------
    images
        (N, H, W), (N, H, W, C) or (N, C, H, W).
    how
        With commas: ``cropP``, P pixels of zeros on each side, then a crop of the old size at
        a random place; ``flip``, left and right exchanged in half of the images.
    layout
        "nhw", "nhwc", "nchw", or "auto": channels are last where there are 1, 3 or 4 of them there.
    seed
        Seeds the random places; the same seed gives the same images.

    Raises
    ------
    InputError
        ``how`` says something else, or the images have no height and width.
    """
    crop, flip = 0, False
    for word in how.split(","):
        found = re.fullmatch(r"crop(\d{1,3})", word.strip())
        if found is not None and 1 <= int(found[1]) <= LARGEST_CROP:
            crop = int(found[1])
        elif word.strip() == "flip":
            flip = True
        else:
            raise InputError(f"expected crop1 to crop{LARGEST_CROP} or flip, found {word!r}")
    if images.ndim not in (3, 4):
        raise InputError(f"expected images with height and width, found {images.ndim - 1} axes")
    last = layout == "nhwc" or (layout == "auto" and images.shape[-1] in (1, 3, 4))
    first = 1 if images.ndim == 3 or last else 2
    height, width = images.shape[first : first + 2]
    rng = np.random.default_rng(seed)
    down, across = rng.integers(0, 2 * crop + 1, (2, len(images)))
    flipped = rng.random(len(images)) < 0.5
    pads = [(0, 0)] * images.ndim
    pads[first] = pads[first + 1] = (crop, crop)
    padded = np.pad(images, pads)
    result = np.empty_like(images)
    before = (slice(None),) * (first - 1)
    for index in range(len(images)):
        rows = slice(down[index], down[index] + height)
        columns = slice(across[index], across[index] + width)
        part = padded[index][(*before, rows, columns)]
        result[index] = np.flip(part, first) if flip and flipped[index] else part
    return result
