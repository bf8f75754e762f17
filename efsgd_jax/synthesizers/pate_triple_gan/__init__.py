"""``pate_triple_gan``: few labels; a private classifier labels the rest, and discriminators on shards score images."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.pate_triple_gan.config import defaults, plan, rules
from efsgd_jax.synthesizers.pate_triple_gan.method import make_generate, phases, released_like
from efsgd_jax.synthesizers.pate_triple_gan.options import Hyperparameters

METHOD = Method(
    hyperparameters=Hyperparameters,
    defaults=defaults,
    rules=rules,
    plan=plan,
    phases=phases,
    released_like=released_like,
    make_generate=make_generate,
    memory_hint="config.privacy.num_shards, config.method.critic_width, config.data.image_size",
    reads_units=False,
)
