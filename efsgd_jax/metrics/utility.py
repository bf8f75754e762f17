"""Utility of synthetic images: what a classifier trained on one kind of image gets right on the other."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from efsgd_jax.metrics.feature_classifier import train_feature_classifier

Predict = Callable[[np.ndarray], np.ndarray]
Classifier = Callable[[np.ndarray, np.ndarray, int], Predict]


class Utility(NamedTuple):
    """Accuracy in [0, 1]; ``per_class`` is the recall of each class, NaN for a class without test images."""

    accuracy: float
    per_class: tuple[float, ...]
    num_train: int
    num_test: int


def logistic_regression(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
    """scikit-learn's multinomial logistic regression on pixels in [0, 1], its defaults, 200 iterations."""
    del num_classes
    return _fit(LogisticRegression(max_iter=200), images, labels)


def mlp(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
    """scikit-learn's MLPClassifier on pixels in [0, 1]: one hidden layer of 100 units and its other defaults, but at
    most 100 epochs instead of 200 (60,000 images of 28x28 take about a minute on one core)."""
    del num_classes
    return _fit(MLPClassifier(max_iter=100, random_state=0), images, labels)


def _fit(model: LogisticRegression | MLPClassifier, images: np.ndarray, labels: np.ndarray) -> Predict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the score
        model.fit(_flat(images), labels)
    return lambda x: model.predict(_flat(x))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def cnn(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Predict:
    """The CNN of ``feature_classifier``, with its default training."""
    return train_feature_classifier(images, labels, num_classes).predict


CLASSIFIERS: dict[str, Classifier] = {"logistic_regression": logistic_regression, "cnn": cnn, "mlp": mlp}
DEFAULT_CLASSIFIERS = ("logistic_regression", "cnn")


def utility(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    classifier: str,
) -> Utility:
    """Trains on one labelled set and scores on another.

    gen2real is ``train`` synthetic, ``test`` the real test split; real2gen is ``train`` the real training split,
    ``test`` synthetic.

    Args:
      train: uint8 images ``[N, S, S, C]`` and int labels ``[N]``.
      test: the same, for scoring.
      num_classes: number of labels.
      classifier: a key of ``CLASSIFIERS``.

    Formal guarantees:
      None: a score reads the real images it is given without noise and is not covered by any epsilon.
    """
    images, labels = train
    if len(np.unique(labels)) < 2:  # scikit-learn cannot fit one class; neither is there anything to learn
        predicted = np.full(len(test[1]), labels[0])
    else:
        predicted = CLASSIFIERS[classifier](images, labels, num_classes)(test[0])
    return score(predicted, test[1], num_classes, len(labels))


def score(predicted: np.ndarray, labels: np.ndarray, num_classes: int, num_train: int) -> Utility:
    """Overall accuracy and each class's recall."""
    right = predicted == labels
    per_class: Sequence[float] = [
        float(right[labels == c].mean()) if np.any(labels == c) else float("nan") for c in range(num_classes)
    ]
    return Utility(float(right.mean()), tuple(per_class), num_train, len(labels))
