"""Scores: known answers on easy data, per-class recall, and both directions."""

import math

import numpy as np
import pytest

from efsgd_jax import load_dataset
from efsgd_jax.metrics import utility
from efsgd_jax.metrics.utility import cnn, score


def test_score_is_accuracy_and_recall():
    got = score(np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1]), 3, 7)
    assert got.accuracy == pytest.approx(0.8)
    assert got.per_class[:2] == pytest.approx((2 / 3, 1.0))
    assert math.isnan(got.per_class[2])
    assert (got.num_train, got.num_test) == (7, 5)


def test_logistic_regression_on_real_digits_and_on_wrong_labels():
    data = load_dataset("digits")
    test = data.test_images, data.test_labels
    right = utility((data.train_images, data.train_labels), test, 10, "logistic_regression")
    assert right.accuracy > 0.95
    wrong = utility((data.train_images, (data.train_labels + 1) % 10), test, 10, "logistic_regression")
    assert wrong.accuracy < 0.05


def test_one_class_of_synthetic_images_scores_chance():
    data = load_dataset("digits")
    train = data.train_images[:5], np.full(5, 3)
    got = utility(train, (data.test_images, data.test_labels), 10, "logistic_regression")
    assert got.accuracy == pytest.approx(np.mean(data.test_labels == 3))
    assert got.per_class[3] == 1.0


def test_cnn_learns_digits():
    data = load_dataset("digits")
    predict = cnn(data.train_images, data.train_labels, 10, steps=300)
    assert np.mean(predict(data.test_images) == data.test_labels) > 0.93
