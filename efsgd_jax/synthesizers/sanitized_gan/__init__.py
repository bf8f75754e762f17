"""``sanitized_gan``: the published methods GS-WGAN, DP-GAN-DPAC and EFSGD, with discriminators on disjoint shards."""

from efsgd_jax.synthesizers.base import Method, network_like
from efsgd_jax.synthesizers.sanitized_gan.config import defaults, plan, rules
from efsgd_jax.synthesizers.sanitized_gan.method import make_generate, make_generator, phases
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=network_like(make_generator),
    make_generate=make_generate,
    make_generator=make_generator,
    memory_hint="config.privacy.num_shards or config.method.critic_width",
    reads_units=False,
)
