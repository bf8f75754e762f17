"""Facts about a data set, for its owner alone: counts, sizes, brightness, duplicates, groups."""

from collections import Counter
from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.data.dataset import Dataset
from efsgd_jax.data.split import array_hashes

# Images are compared at this size; two are nearly identical if the root mean square difference of their grey values, of
# 0..255, is below the second number there.
REDUCED, NEAR = 8, 3.0
# Largest number of images that are searched for near-identical ones.
MOST_COMPARED = 20_000
# Brightness of the corners, of 0..255, and ratio of the mean brightness to it, by which an object on a dark background
# is recognised. Large objects, such as cells, touch the sides of a picture, but not its corners.
DARK_CORNERS, BRIGHTER = 16.0, 2.0


def facts_of(data: Dataset) -> dict[str, Any]:
    """Facts about a data set as JSON values. All of them are functions of private images: never publish them.

    Keys: ``training``, ``held_out``, ``shape``, ``classes`` (training and held-out images of each), ``brightness``
    (minimum, mean and maximum of 0..255), ``corners`` (brightness of the four corners, in the median image),
    ``object_on_dark``,
    ``without_colour`` (three equal channels), ``identical`` (images that are the same as an earlier one),
    ``nearly_identical`` (images whose nearest other image differs hardly) and ``compared`` (number of images that were
    searched for these); with groups also ``groups`` and ``images_per_group`` (smallest, median and largest).
    """
    images, labels = data.train_images, data.train_labels
    count = len(data.class_names)
    train, test = (np.bincount(y, minlength=count).tolist() for y in (labels, data.test_labels))
    edge = max(1, images.shape[1] // 16)
    ends = np.r_[:edge, -edge:0]
    corners = float(np.median(images[:, ends][:, :, ends].mean(axis=(1, 2, 3))))
    mean = float(images.mean())
    both = np.concatenate([images, data.test_images])
    hashes = Counter(array_hashes(both))
    compared = both[:MOST_COMPARED]
    found: dict[str, Any] = {
        "training": len(images),
        "held_out": len(data.test_images),
        "shape": list(images.shape[1:]),
        "classes": {
            name: {"training": a, "held_out": b} for name, a, b in zip(data.class_names, train, test, strict=True)
        },
        "brightness": [int(images.min()), round(mean, 1), int(images.max())],
        "corners": round(corners, 1),
        "object_on_dark": corners < DARK_CORNERS and mean > BRIGHTER * corners,
        "without_colour": images.shape[3] == 3 and bool((images == images[..., :1]).all()),
        "identical": len(both) - len(hashes),
        "nearly_identical": _nearly_identical(compared),
        "compared": len(compared),
    }
    if data.train_groups is not None:
        sizes = np.bincount(data.train_groups)
        found["groups"] = len(sizes)
        found["images_per_group"] = [int(sizes.min()), int(np.median(sizes)), int(sizes.max())]
    return found


def _nearly_identical(images: np.ndarray) -> int:
    """The number of images whose nearest other image differs hardly, among those that are not identical."""
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    vectors = reduced(images[first])
    if len(vectors) < 2:
        return 0
    distances, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(vectors).kneighbors(vectors)
    return int((distances[:, 1] < NEAR * vectors.shape[1] ** 0.5).sum())


def reduced(images: np.ndarray) -> np.ndarray:
    """The grey values of images ``[N, S, S, C]`` in about ``REDUCED`` cells a side, float32 ``[N, cells]``."""
    grey = images.mean(axis=-1, dtype=np.float32)
    edges = np.unique(np.linspace(0, grey.shape[1], min(REDUCED, grey.shape[1]) + 1).astype(int))[:-1]
    sizes = np.diff([*edges, grey.shape[1]])
    sums = np.add.reduceat(np.add.reduceat(grey, edges, axis=1), edges, axis=2)
    return (sums / np.outer(sizes, sizes)).reshape(len(images), -1)
