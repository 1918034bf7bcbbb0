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

LEARNT_FROM = 1024
"""Outputs that patterns are learnt from, about, where a layer has more: every n-th by norm."""

CANDIDATES = 256
"""Outputs, those of largest norm, that patterns may start from."""

BLOCK = 1 << 18
"""Values of the largest array in work at a time, about."""

BEAM = 4
"""States of an output's terms that are gone on with where they are chosen together."""

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
        flat = result.reshape(-1)
        start = np.arange(0, flat.size, patterns)
        for term in range(self.pattern.shape[2]):
            place = start + np.maximum(self.pattern[:, :, term], 0).reshape(-1)
            flat[place] += self.factor[:, :, term].reshape(-1)
        return result


def learn(
    table: Real,
    lengths: NDArray[np.intp],
    *,
    patterns: int,
    terms: int,
    rounds: int,
    rows: int,
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Learn patterns for several groups at once: values and support.

    Parameters
    ----------
    table
        Weights [groups, outputs, rows] in units of which a pattern has at most 127; zero where a
        group has fewer rows than the longest.
    lengths
        Rows of each group.
    patterns, terms, rounds, rows
        K, at most the number of outputs; T; alternations; R.

    Returns
    -------
    int8 [groups, K, rows]
        Values of the patterns.
    bool [groups, K, rows]
        Rows of each pattern, at most R.
    """
    table = sample(table)
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
    values, support = (np.concatenate(each) for each in zip(*parts, strict=True))
    return values, support


def sample(table: Real) -> Real:
    """The outputs of [groups, outputs, rows] that patterns are learnt from."""
    stride = max(1, table.shape[1] // LEARNT_FROM)
    return table[:, ::stride]


def _learn(
    table: Real, lengths: NDArray[np.intp], patterns: int, terms: int, rounds: int, rows: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Learn patterns for the groups of one block."""
    valid = np.arange(table.shape[2]) < lengths[:, None]
    # Of fewer outputs than patterns, all are taken, and the others stay 0.
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
    return np.rint(kept * support).astype(np.int8), np.array(support)


def refine(
    table: Real,
    values: NDArray[np.int8],
    support: NDArray[np.bool_],
    lengths: NDArray[np.intp],
    upper: Real,
    terms: int,
    rows: int,
) -> Codes:
    """Learn groups again, one after the other: change values and support, and give the codes.

    With H the covariance of the inputs of groups that are still to come and U the upper Cholesky
    factor of its inverse, an error e in the weights of group g costs e M e', M the inverse of
    Ugg' Ugg, once the later weights w are changed by -e Ugg^-1 Ug,later, which is for the best.

    Parameters
    ----------
    table, lengths
        As :func:`learn` takes them.
    values, support
        As :func:`learn` gives them.
    upper
        U, of the rows of all these groups: :func:`upper_factor`.
    terms, rows
        T, R.
    """
    count = values.shape[1]
    weights = np.concatenate([table[i, :, : lengths[i]] for i in range(len(table))], axis=1)
    pattern = np.empty((*table.shape[:2], terms), np.intp)
    factor = np.empty(pattern.shape)
    start = 0
    for i in range(len(table)):
        end = start + int(lengths[i])
        own = upper[start:end, start:end]
        inverse = np.linalg.inv(own)
        metric = np.linalg.cholesky(inverse @ inverse.T)
        wanted = weights[None, :, start:end]
        few = sample(wanted)
        weighed = few @ metric
        patterns = values[None, i, :, : end - start].astype(np.float64)
        valid = np.ones((1, end - start), bool)
        for _ in range(REFINEMENTS):
            matrix = code(weighed, patterns @ metric, terms).matrix(count)
            residual = few - matrix @ patterns
            patterns = _least_squares(few, patterns, matrix, residual, valid, rows)
            patterns, _ = _scaled(patterns)
        found = _largest_rows(patterns, valid, rows)
        patterns = np.rint(patterns * found).astype(np.float64)
        codes = code(wanted @ metric, patterns @ metric, terms, beam=BEAM)
        error = (wanted - codes.matrix(count) @ patterns)[0]
        weights[:, end:] -= error @ inverse @ upper[start:end, end:]
        values[i, :, : end - start] = patterns[0].astype(np.int8)
        support[i, :, : end - start] = found[0]
        pattern[i], factor[i] = codes.pattern[0], codes.factor[0]
        start = end
    return Codes(pattern=pattern, factor=factor)


def upper_factor(covariance: Real) -> Real | None:
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
    gained = np.empty(explained.shape)
    for index in range(min(patterns, candidates.shape[1])):
        # What is gained, and what was reached before, which is the same for all candidates.
        found = np.maximum(explained, reached, out=gained).sum(1).argmax(1)
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


def code(table: Real, patterns: Real, terms: int, *, beam: int = 1) -> Codes:
    """Put each output together from at most T patterns times signed powers of two.

    Parameters
    ----------
    table
        Weights [groups, outputs, rows].
    patterns
        [groups, K, rows].
    terms
        T. A pattern may be used in several terms of an output.
    beam
        Choices of the terms so far that are gone on with, term after term, 1 or more; the best in
        the end counts. With 1 each term is the best by itself. No output gets worse by more.
    """
    groups, outputs, _ = table.shape
    count = patterns.shape[1]
    shape = (groups, outputs, terms)
    pattern, factor = np.full(shape, -1, np.intp), np.zeros(shape)
    across = patterns.transpose(0, 2, 1)
    gram, product = patterns @ across, table @ across
    # Some groups, or some outputs of one, at a time: the arrays of a step stay in a core's cache.
    most = max(1, _CACHED // count)
    step, run = max(1, most // outputs), min(outputs, most)
    for group in range(0, groups, step):
        block = slice(group, group + step)
        for first in range(0, outputs, run):
            part = block, slice(first, first + run)
            own = _Coding(product[part], gram[block], terms)
            found = own.alone()
            if beam > 1 and terms > 1:
                found = own.better(found, own.together(beam))
            pattern[part], factor[part] = own.codes(found)
    return Codes(pattern=pattern, factor=factor)


class _Coding:
    """Outputs of some groups, [groups, outputs, K] products with the patterns, while coded.

    A state is patterns and factors of the terms, [terms, outputs of all groups].
    """

    def __init__(self, product: Real, gram: Real, terms: int) -> None:
        self.groups, self.outputs, self.count = product.shape
        self.rows = self.groups * self.outputs
        self.terms = terms
        self.product = np.ascontiguousarray(product).reshape(self.rows, self.count)
        self.gram = np.ascontiguousarray(gram).reshape(-1, self.count)
        self.first = np.repeat(np.arange(self.groups) * self.count, self.outputs)
        energy = gram.diagonal(axis1=1, axis2=2)
        self.energy = np.repeat(energy, self.outputs, axis=0)
        self.inverse = 1 / np.where(self.energy > 0, self.energy, np.inf)

    def codes(self, state: tuple[NDArray[np.intp], Real]) -> tuple[NDArray[np.intp], Real]:
        """Patterns, -1 for none, and factors of a state, [groups, outputs, terms]."""
        shape = (self.terms, self.groups, self.outputs)
        patterns, factors = state
        used = np.where(factors != 0, patterns, -1)
        return used.reshape(shape).transpose(1, 2, 0), factors.reshape(shape).transpose(1, 2, 0)

    def alone(self) -> tuple[NDArray[np.intp], Real]:
        """Choose one term after the other, and then each anew given the others."""
        patterns = np.zeros((self.terms, self.rows), np.intp)
        factors = np.zeros((self.terms, self.rows))
        rest = self.product.copy()
        self._turns(rest, patterns, factors, range(self.terms * (1 + SWEEPS)), 1)
        return patterns, factors

    def _turns(
        self, rest: Real, patterns: NDArray[np.intp], factors: Real, turns: range, copies: int
    ) -> None:
        """Choose the terms of some turns; ``rest`` are the products of what is left.

        There are ``copies`` states of each output, side by side.
        """
        rows = len(rest)
        first = np.repeat(self.first, copies)
        energy, inverse = (np.repeat(each, copies, 0) for each in (self.energy, self.inverse))
        places = np.arange(rows) * self.count
        flat = rest.reshape(-1)
        magnitude, power, gain, moved = (np.empty(rest.shape) for _ in range(4))
        for turn in turns:
            term = turn % self.terms
            if turn >= self.terms:  # what the term explained is to be explained again
                np.take(self.gram, first + patterns[term], axis=0, out=moved, mode="clip")
                moved *= factors[term][:, None]
                rest += moved
            np.abs(rest, out=magnitude)
            np.multiply(magnitude, inverse, out=power)
            _nearest_power(power)
            # power * (2 * magnitude - power * energy)
            np.multiply(power, energy, out=gain)
            magnitude += magnitude
            np.subtract(magnitude, gain, out=gain)
            gain *= power
            chosen = gain.argmax(1)
            at = places + chosen
            used = gain.reshape(-1)[at] > 0
            found = np.where(used, np.copysign(power.reshape(-1)[at], flat[at]), 0.0)
            patterns[term], factors[term] = chosen, found
            np.take(self.gram, first + chosen, axis=0, out=moved, mode="clip")
            moved *= found[:, None]
            rest -= moved

    def together(self, beam: int) -> tuple[NDArray[np.intp], Real]:
        """Choose the terms together: go on with the best ``beam`` states after each term."""
        rows, count = self.rows, self.count
        each = np.arange(rows)[:, None]
        patterns = np.zeros((self.terms, rows, 1), np.intp)
        factors = np.zeros((self.terms, rows, 1))
        gained, rest = np.zeros((rows, 1)), self.product[:, None].copy()
        energy, inverse = self.energy[:, None], self.inverse[:, None]
        for term in range(self.terms):
            magnitude = np.abs(rest)
            ratio = magnitude * inverse
            power = ratio.copy()
            _nearest_power(power)
            # The nearest power, and the one on the other side.
            other = np.where(ratio > power, 2 * power, power / 2)
            np.clip(other, 2.0**MIN_SHIFT, 2.0**MAX_SHIFT, out=other)
            both = np.stack([power, other], axis=2)
            gain = both * (2 * magnitude[:, :, None] - both * energy[:, :, None])
            total = gained[:, :, None] + gain.reshape(rows, -1, 2 * count)
            # Or no term at all.
            total = np.concatenate([total, gained[:, :, None]], axis=2).reshape(rows, -1)
            most = min(2 * beam, total.shape[1])
            best = np.argpartition(-total, most - 1, axis=1)[:, :most]
            order = np.argsort(-total[each, best], axis=1, kind="stable")
            best = best[each, order]
            values = total[each, best]
            # The same terms in another order gain the same: once is enough.
            again = np.zeros(best.shape, bool)
            again[:, 1:] = np.isclose(values[:, 1:], values[:, :-1], rtol=1e-12, atol=0)
            keep = np.argsort(again, axis=1, kind="stable")[:, :beam]
            best, gained = best[each, keep], values[each, keep]
            parent, place = np.divmod(best, 2 * count + 1)
            none = place == 2 * count
            side, chosen = np.divmod(np.where(none, 0, place), count)
            size = both[each, parent, side, chosen]
            signed = np.where(none, 0.0, np.copysign(size, rest[each, parent, chosen]))
            patterns, factors = patterns[:, each, parent], factors[:, each, parent]
            patterns[term], factors[term] = chosen, signed
            moved = self.gram[self.first[:, None] + chosen] * signed[:, :, None]
            rest = rest[each, parent] - moved
        copies = rest.shape[1]
        rest = np.ascontiguousarray(rest).reshape(rows * copies, count)
        flat = patterns.reshape(self.terms, -1).copy(), factors.reshape(self.terms, -1).copy()
        turns = range(self.terms, self.terms * (1 + SWEEPS))
        self._turns(rest, *flat, turns, copies)
        gained = self._gained(flat, copies).reshape(rows, copies)
        best = np.arange(rows) * copies + gained.argmax(1)
        return flat[0][:, best], flat[1][:, best]

    def _gained(self, state: tuple[NDArray[np.intp], Real], copies: int = 1) -> Real:
        """Decrease of the squared error by each state: a . (2 p - G a) of its factors a."""
        patterns, factors = state
        first = np.repeat(self.first, copies)
        product = np.repeat(self.product, copies, 0)
        rest = 2 * product
        for term in range(self.terms):
            rest -= self.gram[first + patterns[term]] * factors[term][:, None]
        taken = np.take_along_axis(rest, patterns.T, axis=1)
        return (factors.T * taken).sum(1)

    def better(self, one: tuple, other: tuple) -> tuple[NDArray[np.intp], Real]:
        """Take of two states for each output the one that gains more, of equals the first."""
        more = self._gained(other) > self._gained(one)
        patterns, factors = (np.where(more, b, a) for a, b in zip(one, other, strict=True))
        return patterns, factors


_CACHED = 1 << 14
"""Values of an array that is in work at a time: 128 KiB."""

_EXPONENT = np.int64(0x7FF0000000000000)
"""Bits of the exponent of a float64."""


def _nearest_power(ratio: Real) -> None:
    """Turn ratios >= 0 into the nearest 2^k, k in -8..+6, by distance: 3, halfway, goes up.

    That is 2^floor(log2(ratio * 4/3)): what is left of a number without its mantissa.
    """
    ratio *= 4 / 3
    bits = ratio.view(np.int64)
    bits &= _EXPONENT
    np.maximum(ratio, 2.0**MIN_SHIFT, out=ratio)
    np.minimum(ratio, 2.0**MAX_SHIFT, out=ratio)
