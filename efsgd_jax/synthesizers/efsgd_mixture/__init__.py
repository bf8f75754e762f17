"""``efsgd_mixture``: a private mixture as latent space, and a decoder trained by DP-SGD, optionally with feedback."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.efsgd_mixture.config import defaults, plan, rules
from efsgd_jax.synthesizers.efsgd_mixture.method import make_generate, phases, released_like
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.method.microbatch_size, config.method.width, config.data.image_size",
    shares_batches=True,
)
