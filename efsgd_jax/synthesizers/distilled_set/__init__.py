"""``distilled_set``: a few images of each class whose random-network features match noisy means of private ones."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.distilled_set.config import Hyperparameters, defaults, plan, rules
from efsgd_jax.synthesizers.distilled_set.method import make_generate, phases, released_like

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.method.networks or config.method.width",
    shares_batches=True,
)
