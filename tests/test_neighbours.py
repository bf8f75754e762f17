"""Copying: replayed training images are found, new images of the same law are not."""

import numpy as np
import pytest

from efsgd_jax.evaluation.metrics import copying, exact_copies


@pytest.fixture
def real():
    """Training part, held-out part and new points, of one law."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 10))
    points = centres[rng.integers(20, size=3000)] + 0.5 * rng.normal(size=(3000, 10))
    return points[:1500], points[1500:2000], points[2000:]


def test_replayed_training_points_are_flagged(real):
    train, test, _ = real
    space, neighbours = copying(train[:800], train, test)
    assert space.flagged
    assert space.authenticity == 0.0
    assert space.near_duplicates == 1.0
    assert space.closer_to_train == 1.0
    assert space.copied_share == pytest.approx(1.0)
    np.testing.assert_array_equal(neighbours.rows, np.arange(800))


def test_new_and_held_out_points_are_not(real):
    train, test, new = real
    for points in (new, test):
        space, _ = copying(points, train, test)
        assert not space.flagged
        assert space.expected_closer_to_train == 0.75
    space, _ = copying(new, train, test)
    assert abs(space.closer_to_train - 0.75) < 0.05
    assert abs(space.z) < 3
    assert 0.4 < space.authenticity < 0.8
    assert space.near_duplicates < 0.03


def test_a_few_noisy_copies_among_many_new_points_are_found(real):
    train, test, new = real
    rng = np.random.default_rng(1)
    copies = train[:60] + 0.05 * rng.normal(size=(60, 10))
    space, _ = copying(np.concatenate([new[:940], copies]), train, test)
    assert space.flagged
    assert space.z < 4  # too few to be seen among all
    assert space.near_duplicates > 0.03 > space.near_duplicates_of_test


def test_prototypes_are_near_everything_and_copy_nothing(real):
    """Means of classes are closer to training points than new points are, and as close to held-out ones."""
    train, test, _ = real
    rng = np.random.default_rng(2)
    means = np.stack([train[rng.integers(len(train), size=200)].mean(axis=0) for _ in range(300)])
    space, _ = copying(means, train, test)
    assert not space.flagged


def test_one_memorised_image_counts_once(real):
    """A thousand times the same image is one coincidence, or one copy: exact copies are another matter."""
    train, test, _ = real
    space, _ = copying(np.repeat(train[:1] + 0.01, 1000, axis=0), train, test)
    assert space.z == pytest.approx(np.sqrt(0.25 / 0.75))
    assert not space.flagged


def test_exact_copies_are_those_of_training_images_alone_or_of_both():
    rng = np.random.default_rng(3)
    train, test = (rng.integers(0, 256, (5, 4, 4, 1), np.uint8) for _ in range(2))
    changed = train[:1].copy()
    changed[0, 0, 0, 0] ^= 1
    fake = np.concatenate([train[2:4], test[:1], changed])
    assert exact_copies(fake, train, test).tolist() == [True, True, False, False]
    assert exact_copies(fake, np.concatenate([train, test]), test).tolist() == [True, True, False, False]
