"""``private_diffusion``: a diffusion of what a private mixture's images lack, trained by DP-SGD."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.private_diffusion.config import defaults, plan, rules
from efsgd_jax.synthesizers.private_diffusion.method import make_generate, phases, released_like
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters

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
