"""Grey levels of images that are chosen against the order in which float32 sums are made."""

import math
from collections.abc import Iterator

import numpy as np

# Of the class sums' matrix product on CPUs, with several classes: rows that are added up before they join the sum.
BLOCKS = (320, 256, 512, 128, 64)


def level_sets(rows: int, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and grey levels uint8 ``[rows]``, the most promising kinds in turn."""
    rng = np.random.default_rng(0)
    kinds = [_sawtooth(rows), _crossing(rows), _constant(rows), _two_levels(rows, rng), _drift(rows, rng)]
    made = 0
    while kinds and made < count:
        for kind in list(kinds):
            found = next(kind, None)
            if found is None:
                kinds.remove(kind)
            elif made < count:
                made += 1
                yield found


def _constant(rows: int) -> Iterator[tuple[str, np.ndarray]]:
    for level in (255, *range(1, 255, 6)):
        yield f"grey {level}", np.full(rows, level, np.uint8)


def _two_levels(rows: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    while True:
        a, b, period = (int(x) for x in rng.integers(0, 256, 3))
        at = np.arange(rows) % (period + 2) * 2 < period + 2
        yield f"{a} and {b} by turns of {period + 2}", np.where(at, a, b).astype(np.uint8)


def _drift(rows: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Levels that fall slowly, with the fractions of a level spread over the rows."""
    while True:
        start, slope = rng.uniform(64, 256), 2.0 ** rng.uniform(-10, -4)
        yield f"falls by {slope:.2g}", np.floor((start - slope * np.arange(rows)) % 256).astype(np.uint8)


def _crossing(rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Sums that are just below a power of two, and then steps that are rounded up above it and down below."""
    for power in (17, 16):
        for every in (1, *BLOCKS):
            for base in (255, 254, 251):
                for less in (1, 2, 0):
                    levels = np.zeros(rows, np.uint8)
                    first = math.ceil((2**power - less) * 255 / base)
                    half = (2**16 - 1) * 255 // base
                    if power == 17 and every == 1:  # the smaller power is crossed as well, in smaller steps
                        first += 255
                    if first >= rows:
                        continue
                    levels[:first] = base
                    levels[first + every // 2 :: every] = 2 ** (power - 16)
                    if power == 17 and every == 1:
                        levels[half : half + 256] = 1
                    yield f"{base} up to 2^{power} - {less}, then {2 ** (power - 16)} every {every} rows", levels


def _sawtooth(rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every block's sum is just below half a unit in the last place of the sum it joins, modulo the unit, and just
    above, or the other way, once the block begins a row earlier (or, in the second of two parts, 7 later)."""
    for steps in (16, -16, 8, -8, 32, -32):
        for base in (250, 128, 255):
            for block in BLOCKS:
                for parts in (2, 1):
                    whole = rows if parts == 1 else -(-rows // 16) * 8
                    levels = _teeth(whole, block, base, steps, last=True)
                    if parts == 2:
                        levels = np.concatenate([levels, _teeth(rows - whole, block, base, steps, last=False)])
                    name = f"sawtooth of {steps} in {parts} parts of blocks of {block} of {base}"
                    yield name, levels.astype(np.uint8)


def _teeth(rows: int, block: int, base: int, steps: int, *, last: bool) -> np.ndarray:
    """Blocks of the level ``base``, but for a slowly changing row at an end and one in the middle that sets the sum."""
    scale = 2 ** (23 - math.floor(math.log2(rows * base / 255)))  # units in 1
    inverse = pow(scale, -1, 255)  # a power of two times 255ths: what is left modulo 1 are 255ths again
    tooth = np.arange(rows // block) * (steps * inverse % 255) * (-1 if last else 1) % 255
    levels = np.full((rows // block, block), base)
    levels[:, -1 if last else 0] = tooth
    middle = block // 2
    levels[:, middle] = 0
    levels[:, middle] = ((127 - steps // 2) * inverse - levels.sum(axis=1)) % 255
    return np.concatenate([levels.reshape(-1), np.full(rows % block, base)])
