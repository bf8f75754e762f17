"""Utility of synthetic images: the accuracy of classifiers trained on one kind of image and tested on the other."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from efsgd_jax.evaluation.metrics.dpdm import dpdm_cnn, dpdm_logistic_regression, dpdm_mlp
from efsgd_jax.evaluation.metrics.dpimagebench import dpimagebench_resnet, dpimagebench_resnext, dpimagebench_wrn
from efsgd_jax.evaluation.metrics.epochs import Predict
from efsgd_jax.evaluation.metrics.feature_classifier import Training, train_feature_classifier


class Classifier(Protocol):
    """Trains on uint8 images ``[N, S, S, C]`` with int labels ``[N]``; returns a function that predicts labels."""

    def __call__(self, images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict: ...


class Utility(NamedTuple):
    """The results of classifiers of one kind, one for each seed.

    Attributes:
      accuracies: the accuracy in [0, 1] for each seed.
      confusion: confusion matrix, int ``[K, K]``, summed over the seeds: rows are true classes, columns predicted ones.
      num_train: number of images that each classifier was trained on.
      num_test: number of images that each classifier was tested on.
    """

    accuracies: tuple[float, ...]
    confusion: np.ndarray
    num_train: int
    num_test: int

    @property
    def accuracy(self) -> float:
        """The mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """The sample standard deviation of the accuracy over the seeds; 0 for a single seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def per_class(self) -> tuple[float, ...]:
        """The recall of each class, NaN for a class without test images."""
        with np.errstate(invalid="ignore"):
            return tuple((self.confusion.diagonal() / self.confusion.sum(axis=1)).tolist())


def logistic_regression(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """scikit-learn's multinomial logistic regression on pixels in [0, 1]: its defaults, but at most 200 iterations."""
    del num_classes, seed
    return _fit(LogisticRegression(max_iter=200), images, labels)


def mlp(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """scikit-learn's MLPClassifier on pixels in [0, 1]: its defaults (one hidden layer of 100 units), but at most 100
    epochs instead of 200. Training on 60,000 images of 28x28 takes about a minute on one core."""
    del num_classes
    return _fit(MLPClassifier(max_iter=100, random_state=seed), images, labels)


def gradient_boosting(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """scikit-learn's histogram gradient boosting on pixels: 30 rounds with learning rate 0.2, a tenth of the pixels at
    each split, 32 bins, no early stopping. Training on 10,000 images of 28x28 takes about twelve seconds."""
    del num_classes
    model = HistGradientBoostingClassifier(
        learning_rate=0.2, max_iter=30, max_features=0.1, max_bins=32, early_stopping=False, random_state=seed
    )
    return _fit(model, images, labels)


def _fit(model: Any, images: np.ndarray, labels: np.ndarray) -> Predict:
    # A single thread: several threads are slow on a machine with other work, and the score may depend on their number.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the score
        model.fit(_flat(images), labels)
    return lambda x: model.predict(_flat(x))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def cnn(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0) -> Predict:
    """The CNN of ``feature_classifier``, with its default training."""
    return train_feature_classifier(images, labels, num_classes, Training(seed=seed)).predict


CLASSIFIERS: dict[str, Classifier] = {
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "cnn": cnn,
    "gradient_boosting": gradient_boosting,
    "dpdm_logistic_regression": dpdm_logistic_regression,
    "dpdm_mlp": dpdm_mlp,
    "dpdm_cnn": dpdm_cnn,
    "dpimagebench_resnet": dpimagebench_resnet,
    "dpimagebench_wrn": dpimagebench_wrn,
    "dpimagebench_resnext": dpimagebench_resnext,
}
DEFAULT_CLASSIFIERS = ("logistic_regression", "mlp", "cnn", "gradient_boosting")
# Classifiers whose training does not depend on the seed.
DETERMINISTIC = ("logistic_regression",)


def utility(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    classifier: str,
    seeds: Sequence[int] = (0,),
) -> Utility:
    """Trains classifiers on one labelled set of images and tests them on another.

    For gen2real, ``train`` is synthetic and ``test`` is the real test split. For real2gen, ``train`` is the real
    training split and ``test`` is synthetic.

    Args:
      train: training images, uint8 ``[N, S, S, C]``, and their labels, int ``[N]``.
      test: test images and their labels, in the same format.
      num_classes: number of classes.
      classifier: a key of ``CLASSIFIERS``.
      seeds: seeds of the classifier's training. Only the first is used for classifiers that do not depend on the seed.

    Formal guarantees:
      None: a score reads the real images it is given without noise and is not covered by any epsilon.
    """
    images, labels = train

    def predicted(seed: int) -> np.ndarray:
        if len(np.unique(labels)) < 2:  # scikit-learn cannot fit a single class, which is predicted for every image
            return np.full(len(test[1]), labels[0])
        return CLASSIFIERS[classifier](images, labels, num_classes, seed=seed)(test[0])

    used = seeds[:1] if classifier in DETERMINISTIC else seeds
    return score([predicted(seed) for seed in used], test[1], num_classes, len(labels))


def score(predicted: Sequence[np.ndarray], labels: np.ndarray, num_classes: int, num_train: int) -> Utility:
    """The ``Utility`` of predicted labels: one int array ``[M]`` for each seed, compared with ``labels`` ``[M]``."""
    accuracies = tuple(float(np.mean(p == labels)) for p in predicted)
    confusion = sum(confusion_matrix(labels, p, labels=range(num_classes)) for p in predicted)
    return Utility(accuracies, np.asarray(confusion), num_train, len(labels))
