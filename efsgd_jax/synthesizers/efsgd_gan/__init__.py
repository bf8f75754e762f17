"""``efsgd_gan``: the method of arXiv 2601.15061, with per-example gradients."""

from efsgd_jax.synthesizers.base import Method, network_like
from efsgd_jax.synthesizers.efsgd_gan.config import defaults, plan, rules
from efsgd_jax.synthesizers.efsgd_gan.method import make_generate, make_generator, phases
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=network_like(make_generator),
    make_generate=make_generate,
    make_generator=make_generator,
    memory_hint="config.method.max_width",
    shares_batches=True,
)
