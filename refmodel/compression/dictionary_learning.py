"""Learn patterns and code outputs by them: the arithmetic of scheme ``dictionary``.

All groups of a layer are worked on at once: arrays are [groups, outputs, rows] and
[groups, patterns, rows]. The file of the scheme says what is done in which order, and why.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refmodel.compression.reuse import DENSE_LEVELS
from refmodel.config import MAX_SHIFT, MIN_SHIFT

Real = NDArray[np.float64]

SWEEPS = 2
"""Times that each term of an output is chosen anew."""

CANDIDATES = 256
"""Outputs, those of largest norm, that patterns may start from."""

BLOCK = 1 << 21
"""Values of the largest array in work at a time, about."""

REFINEMENTS = 4
"""Alternations for each group where the covariance of the inputs is known."""

DAMPING = 0.1
"""Variance added to each input then, as a share of their mean variance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """How outputs are put together from patterns; the axes are [groups, outputs, terms].

    Attributes
    ----------
    pattern
        intp, -1 where a term is not used.
    factor
        float64, +-2^k, 0 where a term is not used.
    """

    pattern: NDArray[np.intp]
    factor: Real

    def matrix(self, patterns: int) -> Real:
        """A, [groups, outputs, patterns]: a pattern may be there in several terms."""
        result = np.zeros((*self.pattern.shape[:2], patterns))
        for term in range(self.pattern.shape[2]):
            place = np.maximum(self.pattern[:, :, term], 0)[:, :, None]
            value = np.take_along_axis(result, place, 2) + self.factor[:, :, term, None]
            np.put_along_axis(result, place, value, 2)
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """Patterns of several groups.

    Attributes
    ----------
    values
        int8 [groups, K, rows].
    support
        bool [groups, K, rows]: the rows of each pattern, at most R.
    codes
        Who uses them.
    """

    values: NDArray[np.int8]
    support: NDArray[np.bool_]
    codes: Codes


def learn(
    table: Real, lengths: NDArray[np.intp], *, patterns: int, terms: int, rounds: int, rows: int
) -> Learnt:
    """Learn patterns for several groups at once.

    Parameters
    ----------
    table
        Weights [groups, outputs, rows] in units of which a pattern has at most 127; zero where a
        group has fewer rows than the longest.
    lengths
        Rows of each group.
    patterns, terms, rounds, rows
        K, at most the number of outputs; T; alternations; R.
    """
    groups, outputs, longest = table.shape
    step = max(1, BLOCK // (outputs * max(patterns, longest, min(outputs, CANDIDATES))))
    parts = [
        _learn(
            table[start : start + step],
            lengths[start : start + step],
            patterns,
            terms,
            rounds,
            rows,
        )
        for start in range(0, groups, step)
    ]
    return Learnt(
        values=np.concatenate([part.values for part in parts]),
        support=np.concatenate([part.support for part in parts]),
        codes=Codes(
            pattern=np.concatenate([part.codes.pattern for part in parts]),
            factor=np.concatenate([part.codes.factor for part in parts]),
        ),
    )


def _learn(
    table: Real, lengths: NDArray[np.intp], patterns: int, terms: int, rounds: int, rows: int
) -> Learnt:
    """Learn patterns for the groups of one block."""
    valid = np.arange(table.shape[2]) < lengths[:, None]
    chosen = start_patterns(table, patterns, valid, rows)
    best = np.full(len(table), np.inf)
    kept = chosen
    for turn in range(rounds + 1):
        chosen, _ = _scaled(chosen)
        codes = code(table, chosen, terms)
        matrix = codes.matrix(patterns)
        residual = table - matrix @ chosen
        error = np.square(residual).sum((1, 2))
        better = error < best
        best = np.where(better, error, best)
        kept = np.where(better[:, None, None], chosen, kept)
        if turn < rounds:
            chosen = _least_squares(table, chosen, matrix, residual, valid, rows)
    support = _largest_rows(kept, valid, rows)
    values = np.rint(kept * support).astype(np.int8)
    codes = code(table, values.astype(np.float64), terms)
    return Learnt(values=values, support=support, codes=codes)


def refine(
    table: Real,
    learnt: Learnt,
    chosen: NDArray[np.intp],
    lengths: NDArray[np.intp],
    covariance: Real,
    rows: int,
) -> None:
    """Learn the ``chosen`` groups again, one after the other, and change ``learnt`` accordingly.

    With H the covariance of the inputs of groups that are still to come and U the upper Cholesky
    factor of its inverse, an error e in the weights of group g costs e M e', M the inverse of
    Ugg' Ugg, once the later weights w are changed by -e Ugg^-1 Ug,later, which is for the best.
    Where the inputs do not vary there is nothing to learn from, and nothing changes.
    """
    upper = _factor(covariance)
    if upper is None:
        return
    terms = learnt.codes.pattern.shape[2]
    weights = np.concatenate([table[i, :, : lengths[i]] for i in chosen], axis=1)
    start = 0
    for i in chosen.tolist():
        end = start + int(lengths[i])
        own = upper[start:end, start:end]
        inverse = np.linalg.inv(own)
        metric = np.linalg.cholesky(inverse @ inverse.T)
        wanted = weights[None, :, start:end]
        patterns = learnt.values[None, i, :, : end - start].astype(np.float64)
        valid = np.ones((1, end - start), bool)
        for _ in range(REFINEMENTS):
            matrix = code(wanted @ metric, patterns @ metric, terms).matrix(patterns.shape[1])
            residual = wanted - matrix @ patterns
            patterns = _least_squares(wanted, patterns, matrix, residual, valid, rows)
            patterns, _ = _scaled(patterns)
        support = _largest_rows(patterns, valid, rows)
        patterns = np.rint(patterns * support).astype(np.float64)
        codes = code(wanted @ metric, patterns @ metric, terms)
        error = (wanted - codes.matrix(patterns.shape[1]) @ patterns)[0]
        weights[:, end:] -= error @ inverse @ upper[start:end, end:]
        learnt.values[i, :, : end - start] = patterns[0].astype(np.int8)
        learnt.support[i, :, : end - start] = support[0]
        learnt.codes.pattern[i], learnt.codes.factor[i] = codes.pattern[0], codes.factor[0]
        start = end


def _factor(covariance: Real) -> Real | None:
    """U, the upper Cholesky factor of the inverse of a damped covariance; None if nothing varies.

    A covariance of inputs that hardly vary about large means is a difference of rounding errors,
    and may have eigenvalues far below 0. The inputs do not vary in their directions: they become 0.
    """
    if not np.isfinite(covariance).all():
        return None
    for clipped in (False, True):
        if clipped:
            values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
            covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        mean = np.trace(covariance) / len(covariance)
        if not mean > 0:
            return None
        damped = covariance + np.eye(len(covariance)) * (DAMPING * mean)
        try:
            return np.linalg.cholesky(np.linalg.inv(damped)).T
        except np.linalg.LinAlgError:
            continue
    return None


def start_patterns(table: Real, patterns: int, valid: NDArray[np.bool_], rows: int) -> Real:
    """Choose outputs that between them explain most, as patterns on their largest R rows.

    The energy of an output that another explains, as a pattern p, is (output . p)^2 / (p . p).
    """
    groups = len(table)
    norm = np.square(table).sum(2)
    candidates = np.argsort(-norm, axis=1, kind="stable")[:, :CANDIDATES]
    shapes = np.take_along_axis(table, candidates[:, :, None], 1)
    shapes = shapes * _largest_rows(shapes, valid, rows)
    energy = np.square(shapes).sum(2)
    products = np.square(table @ shapes.transpose(0, 2, 1))
    explained = products / np.where(energy > 0, energy, np.inf)[:, None, :]
    result = np.zeros((groups, patterns, table.shape[2]))
    reached = np.zeros((groups, table.shape[1], 1))
    each = np.arange(groups)
    for index in range(min(patterns, candidates.shape[1])):
        found = np.maximum(explained - reached, 0).sum(1).argmax(1)
        result[:, index] = shapes[each, found]
        reached = np.maximum(reached, explained[each, :, found][:, :, None])
    return result


def _largest_rows(values: Real, valid: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """The R rows of largest magnitude of [groups, n, rows], of equal ones the first; valid ones."""
    if values.shape[2] <= rows:
        return np.broadcast_to(valid[:, None], values.shape)
    magnitude = np.where(valid[:, None], np.abs(values), -1.0)
    order = np.argsort(-magnitude, axis=2, kind="stable")
    result = np.zeros(values.shape, bool)
    np.put_along_axis(result, order[:, :, :rows], True, 2)
    return result & valid[:, None]


def _scaled(patterns: Real) -> tuple[Real, NDArray[np.int32]]:
    """Scale patterns by powers of two, 2^-e, to a largest magnitude of 63.75 up to below 127.5."""
    _, exponent = np.frexp(np.abs(patterns).max(2) / (DENSE_LEVELS + 0.5))
    return np.ldexp(patterns, -exponent[:, :, None]), exponent


def _least_squares(
    table: Real,
    patterns: Real,
    matrix: Real,
    residual: Real,
    valid: NDArray[np.bool_],
    rows: int,
) -> Real:
    """Fit each pattern to what the others leave, on its R rows of largest weight."""
    result = patterns.copy()
    across = matrix.transpose(0, 2, 1)
    gram, target = across @ matrix, across @ table
    worst = np.argsort(-np.square(residual).sum(2), axis=1, kind="stable")
    unused = gram.diagonal(axis1=1, axis2=2) == 0
    place = np.cumsum(unused, axis=1) - 1
    each = np.arange(len(table))
    for index in range(patterns.shape[1]):
        own = gram[:, index, index]
        rest = target[:, index] - (gram[:, index, None] @ result)[:, 0]
        fitted = result[:, index] + rest / np.where(own > 0, own, 1)[:, None]
        spare = residual[each, worst[each, np.maximum(place[:, index], 0)]]
        fitted = np.where(unused[:, index, None], spare, fitted)[:, None]
        result[:, index] = (fitted * _largest_rows(fitted, valid, rows))[:, 0]
    return result


def code(table: Real, patterns: Real, terms: int) -> Codes:
    """Put each output together from at most T patterns times signed powers of two.

    Parameters
    ----------
    table
        Weights [groups, outputs, rows].
    patterns
        [groups, K, rows].
    terms
        T. A pattern may be used in several terms of an output.
    """
    across = patterns.transpose(0, 2, 1)
    gram = patterns @ across
    energy = gram.diagonal(axis1=1, axis2=2)[:, None, :]
    inverse = 1 / np.where(energy > 0, energy, np.inf)
    product = table @ across
    shape = (*table.shape[:2], terms)
    pattern, factor = np.full(shape, -1, np.intp), np.zeros(shape)
    each = np.arange(len(table))[:, None]
    for turn in range(terms * (1 + SWEEPS)):
        term = turn % terms
        if turn >= terms:  # what the term explained is to be explained again
            product = product + factor[:, :, term, None] * gram[each, pattern[:, :, term]]
        magnitude = np.abs(product)
        power = _nearest_power(magnitude * inverse)
        gain = power * (2 * magnitude - power * energy)
        chosen = gain.argmax(2)
        place = chosen[:, :, None]
        used = np.take_along_axis(gain, place, 2) > 0
        signed = np.copysign(
            np.take_along_axis(power, place, 2), np.take_along_axis(product, place, 2)
        )
        step = np.where(used, signed, 0.0)
        pattern[:, :, term] = np.where(used[:, :, 0], chosen, -1)
        factor[:, :, term] = step[:, :, 0]
        product = product - step * gram[each, chosen]
    return Codes(pattern=pattern, factor=factor)


def _nearest_power(ratio: Real) -> Real:
    """Nearest 2^k, k in -8..+6, by distance: 3 lies between 2 and 4 and goes up."""
    _, exponent = np.frexp(ratio * (4 / 3))
    return np.ldexp(1.0, np.clip(exponent - 1, MIN_SHIFT, MAX_SHIFT))
