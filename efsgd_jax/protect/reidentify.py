"""Re-identification: of which original is a changed image? Attackers who have the originals, and the tool, guess."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

# Maps images, uint8 ``[N, S, S, C]``, and their classes to vectors ``[N, E]``, which are compared by their cosine.
Vectors = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Attack(NamedTuple):
    """One attacker.

    Attributes:
      name: who it is.
      vectors: the vectors of images that are to be recognised.
      gallery: the vectors of the originals, ``[N, E]``.
    """

    name: str
    vectors: Vectors
    gallery: np.ndarray


def rank_one(probes: np.ndarray, gallery: np.ndarray) -> float:
    """The share of probes i, ``[N, E]``, that are nearest, by the cosine, to row i of the gallery, ``[N, E]``.

    Examples:
      >>> rank_one(np.array([[1.0, 0.1], [0.0, 2.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]))
      0.6666666666666666
    """
    return float(np.mean(np.argmax(_unit(probes) @ _unit(gallery).T, axis=1) == np.arange(len(gallery))))


def rank_one_in_class(probes: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> float:
    """``rank_one`` for an attacker who knows the class of each probe: its gallery has the originals of this class.

    Examples:
      >>> rank_one_in_class(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([0, 1]))
      1.0
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return float(sum(len(rows) * rank_one(probes[rows], gallery[rows]) for rows in members) / len(labels))


def cosines(probes: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """``[N, M]``: the cosine of each row of one with each row of the other."""
    return np.asarray(_unit(probes) @ _unit(gallery).T)


def assigned_in_class(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of images i that an attacker finds to be of original i who knows classes and uses each original once.

    Among all such assignments within the classes it takes the one with the largest sum of scores.

    Args:
      scores: ``[N, N]``, how likely image i was made of original j.
      labels: their classes, int ``[N]``.

    Examples:
      >>> assigned_in_class(np.array([[0.9, 0.8], [0.9, 0.1]]), np.array([0, 0]))
      0.0
      >>> assigned_in_class(np.array([[0.9, 0.8], [0.9, 0.1]]), np.array([0, 1]))
      1.0
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    right = sum(np.sum(linear_sum_assignment(-scores[np.ix_(m, m)])[1] == np.arange(len(m))) for m in members)
    return float(right / len(labels))


def own_cosine(probes: np.ndarray, gallery: np.ndarray) -> float:
    """The mean cosine of row i of both.

    Examples:
      >>> own_cosine(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
      0.5
    """
    return float(np.mean(np.sum(_unit(probes) * _unit(gallery), axis=1)))


def attack_row(
    attack: Attack, kinds: tuple[np.ndarray, np.ndarray, np.ndarray], labels: np.ndarray
) -> tuple[float, float, float, float]:
    """``rank_one`` of each kind of images, and ``rank_one_in_class`` of the last one.

    Args:
      attack: who attacks.
      kinds: three kinds of images, one for each original, uint8 ``[N, S, S, C]``.
      labels: the classes of the originals, int ``[N]``.
    """
    copies, fresh, anonymised = (attack.vectors(x, labels) for x in kinds)
    shares = (rank_one(copies, attack.gallery), rank_one(fresh, attack.gallery), rank_one(anonymised, attack.gallery))
    return *shares, rank_one_in_class(anonymised, attack.gallery, labels)


def pixels(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The pixels themselves, less their mean over the image, as vectors."""
    del labels
    flat = images.reshape(len(images), -1).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)


def linear_map(given: np.ndarray, wanted: np.ndarray, ridge: float) -> np.ndarray:
    """The matrix W ``[d, d]`` of least ``|given W - wanted|^2 + ridge |W - 1|^2``, for rows ``[N, d]`` of both.

    With few rows it stays near the identity, so that what it corrects is hardly worse than what it was given.

    Examples:
      >>> linear_map(np.eye(2), 3 * np.eye(2), ridge=1.0)
      array([[2., 0.],
             [0., 2.]])
    """
    eye = np.eye(given.shape[1])
    return np.linalg.solve(given.T @ given + ridge * eye, given.T @ wanted + ridge * eye)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
