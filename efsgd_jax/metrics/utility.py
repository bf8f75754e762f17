"""Utility of synthetic images: what a classifier trained on one kind of image gets right on the other."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from efsgd_jax.data.dataset import to_unit_range
from efsgd_jax.models.layers import Conv

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
    model = LogisticRegression(max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations are the definition of this score
        model.fit(_flat(images), labels)
    return lambda x: model.predict(_flat(x))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


class _Cnn(nn.Module):
    """Two strided 3x3 convolutions and one hidden layer, of the size of the CNNs in the field's gen2real scores."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        for features in (32, 64):
            x = nn.relu(Conv(features, stride=2)(x))  # on a CPU max pooling's gradient costs more than all the rest
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        if dropout_key is not None:
            x = jnp.where(jax.random.bernoulli(dropout_key, 0.5, x.shape), 2.0 * x, 0.0)
        return nn.Dense(self.num_classes)(x)


def cnn(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    batch_size: int = 128,
    steps: int = 2000,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Predict:
    """A small convolutional network, ``steps`` steps of Adam with cosine decay, dropout 0.5, no augmentation."""
    model = _Cnn(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    x, y = to_unit_range(images), labels.astype(np.int32)

    def loss(params: optax.Params, image: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        logits = jnp.asarray(model.apply(params, image, key))
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(
        params: optax.Params, state: optax.OptState, image: jax.Array, label: jax.Array, key: jax.Array
    ) -> tuple[optax.Params, optax.OptState]:
        updates, state = optimizer.update(jax.grad(loss)(params, image, label, key), state)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(seed)
    params = model.init(key, x[:1])
    state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.integers(len(x), size=batch_size)
        params, state = update(params, state, x[rows], y[rows], jax.random.fold_in(key, step))

    forward = jax.jit(lambda params, x: jnp.argmax(jnp.asarray(model.apply(params, x)), axis=-1))

    def predict(images: np.ndarray) -> np.ndarray:
        chunks = [forward(params, to_unit_range(images[i : i + 500])) for i in range(0, len(images), 500)]
        return np.concatenate([np.asarray(c) for c in chunks])

    return predict


CLASSIFIERS: dict[str, Classifier] = {"logistic_regression": logistic_regression, "cnn": cnn}


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
