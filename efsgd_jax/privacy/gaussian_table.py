"""The sampler behind the noise: a discrete Gaussian on the integers, as an alias table with 370-bit thresholds.

``P(k)`` is proportional to ``exp(-k^2 / (2 r^2))`` for ``|k| <= K``, computed with 150 decimal digits and rounded to
multiples of ``2^-384``. To sample a value, 14 random bits choose one of ``2^14`` slots, and the bits that follow are
compared with the slot's threshold. If they are below it, the value is the slot's own, otherwise that of its alias
(Walker, 1977; Vose, 1991). The probabilities are rational numbers that add up to one exactly, so that the distribution
of a sample is known exactly.
"""

import functools
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np

# Standard deviation r of one sample. With digits in base 64, the sum of samples in ``noise`` is a discrete Gaussian up
# to relative errors of the order of exp(-2 pi^2 r^2 / (1 + 64^2)) < 1e-117 (docs/privacy/arithmetic.md).
WIDTH = 237
# K, 23 standard deviations: the probability of larger values is below 1e-116.
LARGEST = 5460
# There are 2^SLOT_BITS slots, at least one for each of the 2 K + 1 values.
SLOT_BITS = 14
# Bits of a threshold: 18 of the first random word, then eleven words.
FIRST_BITS, MORE_WORDS = 32 - SLOT_BITS, 11
THRESHOLD_BITS = FIRST_BITS + 32 * MORE_WORDS


class GaussianTable(NamedTuple):
    """An alias table (Walker, 1977) of a discrete Gaussian on the integers from -K to K, with K = ``LARGEST``.

    Attributes:
      aliases: uint32 ``[2^14]``, for each slot the slot whose value is taken if the random bits are not below the
        threshold. The value of slot ``s`` is ``s - K``.
      thresholds: uint32 ``[12, 2^14]``, the bits of each slot's threshold, most significant word first; the first word
        has 18 bits.
      first: uint32 ``[2^14]``, the first 18 bits of each threshold, followed by the 14 bits of the alias.
    """

    aliases: np.ndarray
    thresholds: np.ndarray
    first: np.ndarray


def probabilities() -> list[int]:
    """The integers ``2^384 P(k)`` for ``k = 0..K``; over all k from -K to K they add up to ``2^384``."""
    total = 1 << (SLOT_BITS + THRESHOLD_BITS)
    with localcontext(Context(prec=150)):
        step = (-1 / Decimal(2 * WIDTH * WIDTH)).exp()  # exp(-k^2 / 2r^2), by its ratios: each is step^2 times the last
        ratio, square, value, weights = step, step * step, Decimal(1), [Decimal(1)]
        for _ in range(LARGEST):
            value, ratio = value * ratio, ratio * square
            weights.append(value)
        scale = Decimal(total) / (2 * sum(weights) - 1)
        counts = [int((w * scale).to_integral_value()) for w in weights]
    counts[0] += total - (2 * sum(counts) - counts[0])  # adds a few units of 2^-384
    return counts


@functools.cache
def gaussian_table() -> GaussianTable:
    """Computes the table, in exact integers, once for each process."""
    counts = probabilities()
    slots, capacity = 1 << SLOT_BITS, 1 << THRESHOLD_BITS
    weights = counts[:0:-1] + counts + [0] * (slots - 2 * LARGEST - 1)
    aliases, thresholds = list(range(slots)), [capacity - 1] * slots  # a full slot is its own alias
    small = [i for i, w in enumerate(weights) if w < capacity]
    large = [i for i, w in enumerate(weights) if w >= capacity]
    while small:
        poor, rich = small.pop(), large[-1]
        thresholds[poor], aliases[poor] = weights[poor], rich
        weights[rich] -= capacity - weights[poor]
        if weights[rich] < capacity:
            small.append(large.pop())
    words = np.array(
        [[(t >> (32 * (MORE_WORDS - i))) & 0xFFFFFFFF for t in thresholds] for i in range(MORE_WORDS + 1)], np.uint32
    )
    slots_of_aliases = np.array(aliases, np.uint32)
    return GaussianTable(slots_of_aliases, words, words[0] << SLOT_BITS | slots_of_aliases)
