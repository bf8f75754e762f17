"""Whether generated images are closer to the images that were trained on than to others like them."""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

# Of held-out images, the share that is called a near-duplicate of a training image.
NEAR = 0.01
# Standard deviations, and share of copies, above which copying is flagged.
SIGNIFICANT, RELEVANT = 4.0, 0.1


class Space(NamedTuple):
    """Distances of generated images to real ones, in one space.

    Attributes:
      authenticity: share of generated images that are farther from their nearest training image than that one is from
        its own nearest (Alaa et al., arXiv 2102.08921); 0 if all are copies, about 1/2 for new images of the same law.
      near_duplicates: share within the distance below which 1% of the held-out images have a training image.
      near_duplicates_of_test: share within that distance of a held-out image.
      closer_to_train: share whose nearest real image is one of the training part.
      expected_closer_to_train: the training part's share of the real images, which is what it would be if training
        had not known which part is which.
      z: by how many standard deviations it is more, if the real images are divided between the two parts at random.
      copied_share: ``(closer - expected) / (1 - expected)``: the share of copies that explains the excess.
      z_of_closest: ``z`` of the near-duplicates only, of whichever part.
      copied_share_of_closest: ``copied_share`` of these.
      median_distance_train: to the nearest training image.
      median_distance_test: to the nearest held-out image.
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
        """Whether an excess is both certain and large, among all images or among the closest."""
        pairs = (self.z, self.copied_share), (self.z_of_closest, self.copied_share_of_closest)
        return any(z > SIGNIFICANT and share > RELEVANT for z, share in pairs)


class Neighbours(NamedTuple):
    """``rows[i]`` of the training part is the nearest to generated image i, at ``distances[i]``."""

    rows: np.ndarray
    distances: np.ndarray


def copying(fake: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[Space, Neighbours]:
    """Compares distances to the training part with distances to the held-out one.

    Args:
      fake: generated, float ``[n, d]``.
      train: what the generator was trained on, ``[N, d]``.
      test: held out, of the same law, ``[M, d]``.

    Returns:
      The measures, and each generated image's nearest training image.

    Formal guarantees:
      None: everything here is a function of real images without noise.
    """
    fake, train, test = (np.asarray(x, np.float32) for x in (fake, train, test))
    of_train = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train)
    to_train, rows = _nearest(of_train, fake)
    to_test, test_rows = _nearest(NearestNeighbors(n_neighbors=1, algorithm="brute").fit(test), fake)
    near = float(np.quantile(_nearest(of_train, test)[0], NEAR))
    matched, position = np.unique(rows, return_inverse=True)
    own = of_train.kneighbors(train[matched], n_neighbors=2)[0][:, 1]

    closer = np.where(to_train == to_test, 0.5, to_train < to_test)
    expected = len(train) / (len(train) + len(test))
    # Images with the same nearest real one are one observation: what is assigned to a part is that image.
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
    """The excess in standard deviations: every real image is of the training part with probability ``expected``."""
    if len(closer) == 0:
        return 0.0
    sizes = np.unique(nearest_real, return_counts=True)[1]
    return float(np.sum(closer - expected) / np.sqrt(expected * (1.0 - expected) * np.sum(sizes.astype(float) ** 2)))


def _copied_share(closer: np.ndarray, expected: float) -> float:
    return float((closer.mean() - expected) / (1.0 - expected)) if len(closer) else 0.0


def exact_copies(fake: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Bool ``[n]``: uint8 images that are a training image to the last pixel, and no held-out one."""

    def of(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    trained, held_out = of(train), of(test)
    return np.array([image.tobytes() in trained and image.tobytes() not in held_out for image in fake], bool)
