"""``p3gm``: a private mixture as prior, and a variational decoder for it that is trained by DP-SGD."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.efsgd_mixture.method import make_generate, released_like
from efsgd_jax.synthesizers.p3gm.config import Hyperparameters, defaults, plan, rules
from efsgd_jax.synthesizers.p3gm.method import phases

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
