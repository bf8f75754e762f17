"""``gaussian_mixture``: a Gaussian mixture for each class, fitted by full-batch releases, without a neural network."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.gaussian_mixture.config import defaults, plan, rules
from efsgd_jax.synthesizers.gaussian_mixture.method import make_generate, phases, released_like
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.data.image_size",
    shares_batches=True,
)
