"""How many images of each class to draw."""

from collections.abc import Mapping, Sequence

import numpy as np

from efsgd_jax.errors import UserError

# Largest difference of the sum of proportions from 1 that is taken for rounding.
TOLERANCE = 1e-6


def class_counts(
    names: Sequence[str],
    n: int | None,
    per_class: Mapping[str, int] | None = None,
    proportions: Mapping[str, float] | None = None,
) -> np.ndarray:
    """The number of images of each class, int ``[K]``.

    Args:
      names: the names of the K classes.
      n: number of images in all; None with ``per_class``.
      per_class: the number of images by class; a class that is not named has none.
      proportions: the share of each class in ``n``; they sum to 1, and a class that is not named has none. Shares that
        are no whole numbers of images are rounded such that the sum is ``n``.

    Raises:
      UserError: a class is unknown, a number is negative, proportions do not sum to 1, or there is no image.

    Examples:
      >>> class_counts(("a", "b", "c"), 10)
      array([4, 3, 3])
      >>> class_counts(("a", "b", "c"), 10, proportions={"a": 0.28, "c": 0.72})
      array([3, 0, 7])
    """
    if per_class and (n is not None or proportions):
        raise UserError("the numbers per class say how many images there are; leave out n and the proportions")
    asked: Mapping[str, float] = per_class or proportions or {}
    for name, value in asked.items():
        if name not in names:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise UserError(f"there is no class {name!r}; the classes are {shown}")
        if not 0 <= value < float("inf"):
            raise UserError(f"the number for class {name!r} is {value}; it must not be negative")
    if per_class:
        counts = np.array([per_class.get(name, 0) for name in names], np.int64)
    elif n is None or n < 1:
        raise UserError(f"the number of images is {n}; it must be at least 1")
    elif proportions:
        counts = _rounded(n, np.array([proportions.get(name, 0.0) for name in names], float))
    else:
        counts = np.bincount(np.arange(n) % len(names), minlength=len(names))
    if not counts.sum():
        raise UserError("the numbers per class sum to 0; at least one image is needed")
    return counts


def _rounded(n: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers near ``n * shares`` whose sum is n: rounded down, and 1 more where most was cut off."""
    if abs(shares.sum() - 1) > TOLERANCE:
        raise UserError(f"the proportions sum to {shares.sum():g}; they must sum to 1")
    exact = n * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    most_cut_off = np.argsort(counts - exact, kind="stable")
    counts[most_cut_off[: n - counts.sum()]] += 1
    return counts
