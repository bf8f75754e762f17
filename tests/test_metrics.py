"""Scores: known answers on easy data and in closed form."""

import math

import numpy as np
import pytest

from efsgd_jax import load_dataset
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import (
    Training,
    frechet_distance,
    frechet_distance_of_features,
    inception_score,
    score,
    train_feature_classifier,
    utility,
)


def test_score_is_accuracy_and_recall():
    got = score([np.array([0, 0, 1, 1, 1])], np.array([0, 0, 0, 1, 1]), 3, 7)
    assert got.accuracy == pytest.approx(0.8)
    assert got.per_class[:2] == pytest.approx((2 / 3, 1.0))
    assert math.isnan(got.per_class[2])
    assert (got.num_train, got.num_test) == (7, 5)
    assert got.std == 0.0


def test_scores_of_several_seeds_are_averaged():
    labels = np.array([0, 0, 1, 1])
    got = score([np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])], labels, 2, 7)
    assert got.accuracies == (1.0, 0.5)
    assert (got.accuracy, got.std) == (0.75, pytest.approx(0.5 / np.sqrt(2)))
    np.testing.assert_array_equal(got.confusion, [[3, 1], [1, 3]])
    assert got.per_class == (0.75, 0.75)


def test_classifiers_differ_by_seed_where_they_can():
    data = load_dataset("digits")
    train, test = (data.train_images[:300], data.train_labels[:300]), (data.test_images, data.test_labels)
    assert len(utility(train, test, 10, "logistic_regression", (0, 1)).accuracies) == 1
    for classifier in ("mlp", "gradient_boosting"):
        a, b = utility(train, test, 10, classifier, (0, 1)).accuracies
        assert a != b
        assert utility(train, test, 10, classifier, (0,)).accuracy == a


@pytest.mark.parametrize("classifier", ["logistic_regression", "mlp", "gradient_boosting"])
def test_classifiers_learn_real_digits_and_also_wrong_labels(classifier):
    data = load_dataset("digits")
    test = data.test_images, data.test_labels
    right = utility((data.train_images, data.train_labels), test, 10, classifier)
    assert right.accuracy > 0.94
    wrong = utility((data.train_images, (data.train_labels + 1) % 10), test, 10, classifier)
    assert wrong.accuracy < 0.05


def test_one_class_of_synthetic_images_scores_chance():
    data = load_dataset("digits")
    train = data.train_images[:5], np.full(5, 3)
    got = utility(train, (data.test_images, data.test_labels), 10, "logistic_regression")
    assert got.accuracy == pytest.approx(np.mean(data.test_labels == 3))
    assert got.per_class[3] == 1.0


@pytest.fixture(scope="module")
def digits_cnn():
    data = load_dataset("digits")
    return train_feature_classifier(data.train_images, data.train_labels, 10, Training(steps=120))


def test_cnn_learns_digits(digits_cnn):
    data = load_dataset("digits")
    assert np.mean(digits_cnn.predict(data.test_images) == data.test_labels) > 0.93


def test_cnn_views_agree(digits_cnn):
    images = load_dataset("digits").test_images[:50]
    features, logits, p = digits_cnn.features(images), digits_cnn.logits(images), digits_cnn.probabilities(images)
    assert features.shape == (50, 128)
    last = digits_cnn.params["params"]["Dense_1"]
    np.testing.assert_allclose(features @ last["kernel"] + last["bias"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), p, rtol=1e-4)
    np.testing.assert_array_equal(digits_cnn.predict(images), p.argmax(axis=1))


def test_the_same_training_gives_the_same_network():
    data = load_dataset("digits")
    a, b, c = (
        train_feature_classifier(data.train_images, data.train_labels, 10, Training(steps=5, seed=seed))
        for seed in (0, 0, 1)
    )
    images = data.test_images[:5]
    np.testing.assert_array_equal(a.logits(images), b.logits(images))
    assert (a.logits(images) != c.logits(images)).any()


def test_frechet_distance_of_commuting_covariances_is_the_closed_form():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    a, b = np.array([1.0, 4.0, 0.0, 9.0, 0.01]), np.array([4.0, 0.25, 1.0, 9.0, 100.0])
    sigma = [(rotation * values) @ rotation.T for values in (a, b)]
    mu = np.arange(5.0), np.zeros(5)
    expected = 30.0 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(mu[0], sigma[0], mu[1], sigma[1]) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_of_covariances_that_do_not_commute_is_the_closed_form():
    """Against the 2x2 closed form: tr((AB)^(1/2)) = sqrt(tr(AB) + 2 sqrt(det(AB)))."""
    a, b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.6], [-0.6, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * cross
    assert expected > 0.1
    assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(np.zeros(2), b, np.zeros(2), a) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_samples_is_that_of_their_distributions():
    rng = np.random.default_rng(1)
    d = 4
    m, root = np.arange(d) / 2, rng.normal(size=(d, d))
    x, y = rng.normal(size=(100_000, d)), m + rng.normal(size=(100_000, d)) @ root.T
    sigma = root @ root.T
    expected = m @ m + d + np.trace(sigma) - 2 * np.sqrt(np.linalg.eigvalsh(sigma)).sum()
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=0.01)
    assert frechet_distance_of_features(y, x) == pytest.approx(expected, rel=0.01)


def test_frechet_distance_of_equal_samples_is_zero_also_of_few():
    x = np.random.default_rng(2).normal(size=(10, 128)).astype(np.float32)  # a singular covariance
    assert 0 <= frechet_distance_of_features(x, x) < 1e-4
    assert frechet_distance_of_features(x, x + 2) == pytest.approx(4 * 128, rel=1e-4)
    with pytest.raises(UserError, match="at least 2"):
        frechet_distance_of_features(x, x[:1])


def test_inception_score_is_the_closed_form():
    confident = np.tile(np.eye(10), (50, 1))
    assert inception_score(confident) == pytest.approx((10.0, 0.0))
    assert inception_score(np.full((500, 10), 0.1)) == pytest.approx((1.0, 0.0))
    assert inception_score(np.tile(np.eye(10)[3], (500, 1))) == pytest.approx((1.0, 0.0))  # one class
    p = np.tile([[0.9, 0.1], [0.1, 0.9]], (50, 1))
    kl = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert inception_score(p) == pytest.approx((np.exp(kl), 0.0))
    # Half of the parts have both classes, half have one: scores 2 and 1.
    mixed = np.concatenate([np.tile(np.eye(2), (50, 1)), np.tile([[1.0, 0.0]], (100, 1))])
    assert inception_score(mixed, splits=2) == pytest.approx((1.5, 0.5))


def test_inception_score_needs_an_image_for_each_split():
    with pytest.raises(UserError, match="9 images in 10 splits"):
        inception_score(np.full((9, 2), 0.5))
    with pytest.raises(UserError, match="0 splits"):
        inception_score(np.full((9, 2), 0.5), splits=0)
