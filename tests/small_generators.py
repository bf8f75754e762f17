"""A small private mixture of digits whose latent is searched, in seconds."""

from efsgd_jax import default_config, fit, load_dataset
from efsgd_jax.protect.anonymise import Search

DIGITS = load_dataset("digits")
QUICK = Search(steps=4, outputs=2)


def small_mixture():
    config = default_config("gaussian_mixture")
    config.privacy.update(epsilon=50.0, delta=1e-4)
    config.method.update(components=2, directions=20, candidates=1, cluster_steps=1)
    config.train.seed = 0
    return config


def train(directory):
    """Trains it in a new directory below ``directory``, and returns the run."""
    fit(small_mixture(), directory / "run", progress=False)
    return directory / "run"
