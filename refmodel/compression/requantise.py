"""From real scales to integer multipliers, shifts and biases: one rounding to an output."""

import math

import numpy as np

from refmodel.compression.fractions import fixed_point
from refmodel.config import (
    FRACTION_BITS,
    INPUT_BITS,
)
from refmodel.errors import InputError

MULTIPLIER_BITS = 15
"""Bits of the magnitude of a requantisation multiplier."""

MAX_RIGHT_SHIFT = 47
"""Largest s of M / 2^s."""

_LARGEST_BIAS = 1 << 47


CONSTANT_REACH = 2.0**-FRACTION_BITS
"""An output whose weighted sum moves it by at most so many codes is taken to be constant."""

LARGEST_CODE = (1 << INPUT_BITS) - 1

_WIDE_BIAS = 1 << 37


def constant_outputs(
    weight_q8: np.ndarray, scale: np.ndarray, bias_codes: np.ndarray
) -> np.ndarray:
    """Tell which outputs are taken not to depend on the input.

    Parameters
    ----------
    weight_q8
        Effective weights times 256, integers [out, ...].
    scale
        Codes of the output to one unit of the accumulator, float64 [out].
    bias_codes
        Real bias in codes of the output, float64 [out].

    Returns
    -------
    bool [out]: whether the reach ``|scale| * 255 * sum |w|`` is at most 1/256 of a code, or at most
    1/2 where the bias would need 38 bits or more.
    """
    total = np.abs(weight_q8.astype(np.int64)).reshape(len(weight_q8), -1).sum(1)
    with np.errstate(invalid="ignore"):  # infinite scales are refused later
        reach = np.abs(scale) * (LARGEST_CODE * total)
        wide = np.minimum(np.abs(bias_codes), LARGEST_CODE) >= np.abs(scale) * _WIDE_BIAS
        return (reach <= CONSTANT_REACH) | (wide & (reach <= 0.5))


def requantise(
    *,
    weight_q8: np.ndarray,
    scale: np.ndarray,
    bias_codes: np.ndarray,
    zero_in: int,
    zero_out: int,
    clip: tuple[int, int],
    added: float = 0.0,
    name: str = "layer",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Work out bias, multiplier and shift of every output.

    The output is ``scale * (acc - zero_in * sum w) + bias_codes + zero_out``, rounded half up and
    clipped. ``M / 2^s`` is ``scale`` with 2^14 <= |M| < 2^15 and s in 0 to 47; |M| is smaller
    where s would have to exceed 47. The bias is in units of the accumulator: ``rint(bias_codes *
    2^s / M) - zero_in * sum w``. A bias far outside the clip is drawn in to where every input
    still clips, so that it fits.

    Parameters
    ----------
    weight_q8
        Effective weights times 256, integers [out, ...]; zeros where the output is constant.
    scale
        Codes of the output to one unit of the accumulator (negative with a negative gain).
    bias_codes
        Real bias in codes of the output, without the zero point.
    zero_in, zero_out, clip
        Zero points, and (lo, hi) of the output code.
    added
        Codes, at most, that a residual operand moves the output by.
    name
        For messages.

    Returns
    -------
    bias int64 [out], multiplier int32 [out], shift int8 [out].

    Raises
    ------
    InputError
        A scale or bias is not finite, M / 2^s cannot express a scale, or a bias does not fit 48
        bits.
    """
    outputs = len(weight_q8)
    flat = weight_q8.astype(np.int64).reshape(outputs, -1)
    total, reach = flat.sum(1), np.abs(flat).sum(1) * LARGEST_CODE
    constant = constant_outputs(flat, scale, bias_codes)
    bias = np.zeros(outputs, np.int64)
    multiplier = np.zeros(outputs, np.int32)
    shift = np.zeros(outputs, np.int8)
    for j in range(outputs):
        where = f"layer {name}, output {j}"
        value, offset = float(scale[j]), float(bias_codes[j])
        if not (math.isfinite(value) and math.isfinite(offset)):
            raise InputError(
                f"expected a finite scale and bias, found {value}, {offset} in {where}"
            )
        if constant[j]:
            if reach[j]:
                raise ValueError(f"{where} is constant: its weights must be 0 before this")
            value = 2.0**-FRACTION_BITS
        m, s = _fraction(value)
        if not 0 < abs(m) < 1 << MULTIPLIER_BITS:
            raise InputError(
                f"expected a scale of 2^-48 to 2^15 codes to one unit of the accumulator, found "
                f"{value:g} in {where}"
            )
        margin = 1.001 * abs(value) * float(reach[j]) + added + 2
        low, high = clip[0] - zero_out - margin, clip[1] - zero_out + margin
        units = round(math.ldexp(min(max(offset, low), high), s) / m) - zero_in * int(total[j])
        if abs(units) >= _LARGEST_BIAS:
            raise InputError(
                f"expected a bias that fits 48 bits, found {offset:g} codes at {value:g} codes to "
                f"one unit of the accumulator in {where}"
            )
        bias[j], multiplier[j], shift[j] = units, m, s
    return bias, multiplier, shift


def _fraction(value: float) -> tuple[int, int]:
    """Return (M, s) with M / 2^s nearest to ``value``, M of 15 bits where s in 0..47 allows."""
    _, exponent = math.frexp(value)
    s = min(max(MULTIPLIER_BITS - exponent, 0), MAX_RIGHT_SHIFT)
    m = round(math.ldexp(value, s))
    if abs(m) == 1 << MULTIPLIER_BITS and s > 0:
        m, s = m // 2, s - 1
    return m, s


def residual_fraction(ratio: float, shift: np.ndarray, name: str = "layer") -> tuple[int, int]:
    """Work out M_r and s_r of a residual operand.

    M_r has 15 bits, or fewer where s_r would exceed the least s of the layer's outputs: the
    hardware adds at the outputs' s, to which it can only shift up. So M_r / 2^s_r is off by at most
    2^-15 of itself or, in the second case, by half a unit of 2^-s_r.

    Parameters
    ----------
    ratio
        Scale of the operand over the scale of the output.
    shift
        s of each output.
    name
        For messages.

    Raises
    ------
    InputError
        The ratio cannot be expressed well enough for the largest code to be right within half a
        code: it is 2^15 or more, or the least s is below 8 and too small for it.
    """
    multipliers, wanted = fixed_point([ratio])
    multiplier, bits = int(multipliers[0]), min(wanted, int(shift.min()))
    if bits < wanted:
        multiplier = math.floor(math.ldexp(ratio, bits) + 0.5)
    error = abs(math.ldexp(multiplier, -bits) - ratio) * LARGEST_CODE
    if error > max(0.5, ratio * LARGEST_CODE * 2.0**-14):
        raise InputError(
            f"expected a residual that M / 2^s with s of at most {int(shift.min())} can scale, "
            f"found a scale of {ratio:g} codes of the output in layer {name}"
        )
    return multiplier, bits
