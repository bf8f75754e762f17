"""Private classifiers that accept or refuse generated images: see ``Reranker``."""

from efsgd_jax.synthesizers.reranking.options import RerankerOptions, follows_mixture, reranker_rules, steps_of
from efsgd_jax.synthesizers.reranking.reranker import Reranker, reranker_of

__all__ = ["Reranker", "RerankerOptions", "follows_mixture", "reranker_of", "reranker_rules", "steps_of"]
