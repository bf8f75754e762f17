"""``pearl``: a generator whose characteristic function matches a noisy one of the private images."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.pearl.config import Hyperparameters, defaults, plan, rules
from efsgd_jax.synthesizers.pearl.method import make_generate, phases, released_like

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.method.frequencies or config.method.images_per_step",
    shares_batches=True,
)
