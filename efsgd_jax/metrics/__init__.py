"""Scores of synthetic images against real ones."""

from efsgd_jax.metrics.copying import Neighbours, Space, copying, exact_copies
from efsgd_jax.metrics.feature_classifier import FeatureClassifier, Training, train_feature_classifier
from efsgd_jax.metrics.fidelity import SPLITS, frechet_distance, frechet_distance_of_features, inception_score
from efsgd_jax.metrics.protocols import FID_IMAGES, PROTOCOLS, Protocol
from efsgd_jax.metrics.scores import Scores, to_json, to_table
from efsgd_jax.metrics.utility import CLASSIFIERS, DEFAULT_CLASSIFIERS, Utility, score, utility

__all__ = [
    "CLASSIFIERS",
    "DEFAULT_CLASSIFIERS",
    "FID_IMAGES",
    "PROTOCOLS",
    "SPLITS",
    "FeatureClassifier",
    "Neighbours",
    "Protocol",
    "Scores",
    "Space",
    "Training",
    "Utility",
    "copying",
    "exact_copies",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "score",
    "to_json",
    "to_table",
    "train_feature_classifier",
    "utility",
]
