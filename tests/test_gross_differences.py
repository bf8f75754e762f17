"""A run whose images differ grossly from real ones says so: at the end of training, and beside the scores."""

import numpy as np
import pytest

from efsgd_jax import evaluate_samples, load_dataset
from efsgd_jax.config import default_config
from efsgd_jax.images import class_grid
from efsgd_jax.training.brightness import brightness, warn_of_brightness

DATA = load_dataset("digits")


def test_a_run_with_bright_images_warns(recwarn):
    x, y = DATA.train_images, DATA.train_labels
    warn_of_brightness(DATA, class_grid(x, y, 10))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"too bright: 70% of white on average, real ones 31%.*private"):
        warn_of_brightness(DATA, class_grid(255 - x, y, 10))
    with pytest.warns(UserWarning, match="too dark"):
        warn_of_brightness(DATA, class_grid(x // 2, y, 10))


def test_a_rare_class_does_not_move_the_brightness():
    images = np.zeros((100, 8, 8, 1), np.uint8)
    images[0] = 255
    assert brightness(images, (np.arange(100) > 0).astype(int)) == 0.5


def scored(tmp_path, images, labels):
    np.savez(tmp_path / "samples.npz", x_train=images, y_train=labels)
    config = default_config("gaussian_mixture")
    options = {"classifiers": ("logistic_regression",), "classifier_seeds": 1, "metrics": ("utility", "fidelity")}
    return evaluate_samples(tmp_path / "samples.npz", config, **options)


def test_real_images_have_no_warning(tmp_path):
    assert scored(tmp_path, DATA.train_images, DATA.train_labels).remarks == ()


def test_equal_images_and_wrong_classes_are_named(tmp_path):
    first = np.array([np.argmax(DATA.train_labels == k) for k in range(10)])
    labels = np.arange(1000) % 10
    remarks = scored(tmp_path, DATA.train_images[first][labels], labels).remarks
    assert any(r.startswith("WARNING: Generated images have little variety: recall is 0.0") for r in remarks)
    y = DATA.train_labels
    swapped = np.select([y == 3, y == 7], [7, 3], y)
    assert scored(tmp_path, DATA.train_images, swapped).remarks == (
        "WARNING: A classifier (logistic_regression) that was trained on real images takes more than 80% of the "
        "generated images of 3, 7 for another class.",
    )
