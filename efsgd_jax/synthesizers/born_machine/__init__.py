"""``born_machine``: a matrix product state with exact likelihood and exact sampling, trained by DP-SGD."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.born_machine.config import Hyperparameters, defaults, plan, rules
from efsgd_jax.synthesizers.born_machine.method import make_generate, make_log_likelihood, phases, released_like

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.method.microbatch_size, config.method.bond, config.data.image_size",
    make_log_likelihood=make_log_likelihood,
)
