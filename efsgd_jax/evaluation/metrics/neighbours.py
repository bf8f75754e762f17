"""Tests whether generated images are closer to training images than to held-out images of the same distribution."""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

# The distance that defines a near-duplicate is chosen such that this share of the held-out images is closer than it to
# a training image.
NEAR = 0.01
# Copying is flagged if z is above the first value and the share of copies is above the second.
SIGNIFICANT, RELEVANT = 4.0, 0.1


class Space(NamedTuple):
    """Measures of copying from the distances between generated and real images in one space (pixels or features).

    A generated image is a near-duplicate of a real one if their distance is below the 1% quantile of the held-out
    images' distances to their nearest training images.

    Attributes:
      authenticity: share of generated images whose nearest training image is closer to another training image than to
        them (Alaa et al., arXiv 2102.08921). 0 if all are copies, about 1/2 for new images of the same distribution.
      near_duplicates: share of generated images that are near-duplicates of a training image.
      near_duplicates_of_test: share of generated images that are near-duplicates of a held-out image.
      closer_to_train: share of generated images whose nearest real image is a training image; ties count as 1/2.
      expected_closer_to_train: share of training images among all real images. It is the expected value of
        ``closer_to_train`` if training images have no advantage over held-out ones.
      z: excess of ``closer_to_train`` over its expected value, in standard deviations under a random division of the
        real images into training and held-out ones.
      copied_share: ``(closer - expected) / (1 - expected)``, the share of copies that would explain the excess.
      z_of_closest: ``z``, computed only for the near-duplicates of a training or held-out image.
      copied_share_of_closest: ``copied_share``, computed only for these near-duplicates.
      median_distance_train: median distance of a generated image to its nearest training image.
      median_distance_test: median distance of a generated image to its nearest held-out image.
    """

    authenticity: float
    near_duplicates: float
    near_duplicates_of_test: float
    closer_to_train: float
    expected_closer_to_train: float
    z: float
    copied_share: float
    z_of_closest: float
    copied_share_of_closest: float
    median_distance_train: float
    median_distance_test: float

    @property
    def flagged(self) -> bool:
        """Whether the excess is both significant and large, among all generated images or among near-duplicates."""
        pairs = (self.z, self.copied_share), (self.z_of_closest, self.copied_share_of_closest)
        return any(z > SIGNIFICANT and share > RELEVANT for z, share in pairs)


class Neighbours(NamedTuple):
    """For each generated image, the row of its nearest training image and the distance to it."""

    rows: np.ndarray
    distances: np.ndarray


def copying(fake: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[Space, Neighbours]:
    """Compares the distances of generated images to training images with those to held-out images.

    Args:
      fake: generated images, or their features, float ``[n, d]``.
      train: the images that the generator was trained on, ``[N, d]``.
      test: held-out images of the same distribution, ``[M, d]``.

    Returns:
      The measures of copying, and each generated image's nearest training image.

    Formal guarantees:
      None: everything here is a function of real images without noise.
    """
    fake, train, test = (np.asarray(x, np.float32) for x in (fake, train, test))
    of_train = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train)
    to_train, rows = _nearest(of_train, fake)
    to_test, test_rows = _nearest(NearestNeighbors(n_neighbors=1, algorithm="brute").fit(test), fake)
    near = float(np.quantile(_nearest(of_train, test)[0], NEAR))
    matched, position = np.unique(rows, return_inverse=True)
    # Distance of each training image in ``matched`` to the nearest other one; the first neighbour is the image itself.
    own = of_train.kneighbors(train[matched], n_neighbors=2)[0][:, 1]

    closer = np.where(to_train == to_test, 0.5, to_train < to_test)
    expected = len(train) / (len(train) + len(test))
    # The null hypothesis assigns real images to the two parts at random. Generated images with the same nearest real
    # image are therefore one observation.
    nearest_real = np.where(closer >= 0.5, rows, len(train) + test_rows)
    is_near = np.minimum(to_train, to_test) < near
    space = Space(
        authenticity=float(np.mean(to_train > own[position])),
        near_duplicates=float(np.mean(to_train < near)),
        near_duplicates_of_test=float(np.mean(to_test < near)),
        closer_to_train=float(closer.mean()),
        expected_closer_to_train=expected,
        z=_z(closer, nearest_real, expected),
        copied_share=_copied_share(closer, expected),
        z_of_closest=_z(closer[is_near], nearest_real[is_near], expected),
        copied_share_of_closest=_copied_share(closer[is_near], expected),
        median_distance_train=float(np.median(to_train)),
        median_distance_test=float(np.median(to_test)),
    )
    return space, Neighbours(rows, to_train)


def _nearest(neighbours: NearestNeighbors, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances, rows = neighbours.kneighbors(x)
    return distances[:, 0], rows[:, 0]


def _z(closer: np.ndarray, nearest_real: np.ndarray, expected: float) -> float:
    """The excess in standard deviations, if each real image is a training image with probability ``expected``."""
    if len(closer) == 0:
        return 0.0
    sizes = np.unique(nearest_real, return_counts=True)[1]
    return float(np.sum(closer - expected) / np.sqrt(expected * (1.0 - expected) * np.sum(sizes.astype(float) ** 2)))


def _copied_share(closer: np.ndarray, expected: float) -> float:
    return float((closer.mean() - expected) / (1.0 - expected)) if len(closer) else 0.0


def exact_copies(fake: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Which of the uint8 images ``fake`` equal a training image in every pixel, but no held-out image: bool ``[n]``."""

    def of(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    trained, held_out = of(train), of(test)
    return np.array([image.tobytes() in trained and image.tobytes() not in held_out for image in fake], bool)
