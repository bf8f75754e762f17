"""Metrics that compare synthetic images with real ones."""

from efsgd_jax.evaluation.metrics.feature_classifier import FeatureClassifier, Training, train_feature_classifier
from efsgd_jax.evaluation.metrics.fidelity import (
    SPLITS,
    fidelity_scores,
    frechet_distance,
    frechet_distance_of_features,
    inception_score,
)
from efsgd_jax.evaluation.metrics.inception import InceptionV3
from efsgd_jax.evaluation.metrics.inception_weights import load_inception
from efsgd_jax.evaluation.metrics.kernel_distance import kernel_distance
from efsgd_jax.evaluation.metrics.manifold import ManifoldScores, manifold_scores
from efsgd_jax.evaluation.metrics.neighbours import Neighbours, Space, copying, exact_copies
from efsgd_jax.evaluation.metrics.protocols import PROTOCOLS, Protocol, protocol_lines
from efsgd_jax.evaluation.metrics.scores import FIDELITY, Scores, only, to_json, to_table
from efsgd_jax.evaluation.metrics.utility import CLASSIFIERS, DEFAULT_CLASSIFIERS, Utility, score, utility

__all__ = [
    "CLASSIFIERS",
    "DEFAULT_CLASSIFIERS",
    "FIDELITY",
    "PROTOCOLS",
    "SPLITS",
    "FeatureClassifier",
    "InceptionV3",
    "ManifoldScores",
    "Neighbours",
    "Protocol",
    "Scores",
    "Space",
    "Training",
    "Utility",
    "copying",
    "exact_copies",
    "fidelity_scores",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "kernel_distance",
    "load_inception",
    "manifold_scores",
    "only",
    "protocol_lines",
    "score",
    "to_json",
    "to_table",
    "train_feature_classifier",
    "utility",
]
