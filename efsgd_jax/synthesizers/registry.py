"""The registry: the name in ``config.method.name`` -> everything that the programs need of a method."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import DpSgdMechanism, FullBatchMechanism
from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.synthesizers.config_rules import Rule
from efsgd_jax.synthesizers.efsgd_gan import config as efsgd_gan
from efsgd_jax.synthesizers.efsgd_gan import method as gan
from efsgd_jax.synthesizers.gaussian_mixture import config as gaussian_mixture
from efsgd_jax.synthesizers.gaussian_mixture import method as mixture
from efsgd_jax.synthesizers.sanitized_gan import config as sanitized_gan
from efsgd_jax.synthesizers.sanitized_gan import method as sanitized
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism


class Method(NamedTuple):
    """One synthesis method.

    Attributes:
      hyperparameters: the dataclass behind ``config.method``.
      defaults: ``defaults() -> {group: dataclass}``, the keys that the method adds to the configuration.
      rules: ``rules(config)``: what their values must be.
      mechanism: ``mechanism(config, N)``: with its noise solved for.
      mechanism_type: its class, of which a report has the fields.
      synthesizer: ``synthesizer(spec, hyperparameters, mechanism)``; also ``mesh=`` if it ``shares_batches``.
      released_like: ``released_like(spec, hyperparameters)``: shapes and dtypes of what is released.
      make_generator: ``make_generator(spec, hyperparameters)``: the Flax module that is released; None if it is none.
      make_generate: the same as ``Synthesizer.generate``, which needs no mechanism.
      memory_hint: what to lower if it does not fit into memory.
      shares_batches: whether several devices can take a step together.
    """

    hyperparameters: Callable[..., Any]
    defaults: Callable[[], dict[str, Any]]
    rules: Callable[[ConfigDict], list[Rule]]
    mechanism: Callable[[ConfigDict, int], Any]
    mechanism_type: Callable[..., Any]
    synthesizer: Callable[..., Synthesizer]
    released_like: Callable[[Any, Any], Any]
    make_generator: Callable[[Any, Any], Any] | None
    make_generate: Callable[[Any, Any], Any]
    memory_hint: str
    shares_batches: bool = False

    def read(self, group: dict[str, Any]) -> Any:
        """``config.method`` as hyperparameters."""
        return self.hyperparameters(**{k: v for k, v in group.items() if k != "name"})


def _network(make_generator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``released_like`` of a generator that is called with a latent and labels."""

    def like(spec: Any, hp: Any) -> Any:
        keys = {"params": jax.random.key(0), "noise": jax.random.key(0)}
        inputs = jnp.zeros((1, hp.latent)), jnp.zeros(1, jnp.int32)
        return jax.eval_shape(make_generator(spec, hp).init, keys, *inputs)

    return like


METHODS: dict[str, Method] = {
    "efsgd_gan": Method(
        gan.Hyperparameters,
        efsgd_gan.defaults,
        efsgd_gan.rules,
        efsgd_gan.mechanism,
        DpSgdMechanism,
        gan.efsgd_gan,
        _network(gan.make_generator),
        gan.make_generator,
        gan.make_generate,
        "config.method.max_width",
        shares_batches=True,
    ),
    "sanitized_gan": Method(
        sanitized.Hyperparameters,
        sanitized_gan.defaults,
        sanitized_gan.rules,
        sanitized_gan.mechanism,
        ShardMechanism,
        sanitized.sanitized_gan,
        _network(sanitized.make_generator),
        sanitized.make_generator,
        sanitized.make_generate,
        "config.privacy.num_shards or config.method.critic_width",
    ),
    "gaussian_mixture": Method(
        mixture.Hyperparameters,
        gaussian_mixture.defaults,
        gaussian_mixture.rules,
        gaussian_mixture.mechanism,
        FullBatchMechanism,
        mixture.gaussian_mixture,
        mixture.released_like,
        None,
        mixture.make_generate,
        "config.data.image_size",
    ),
}


def method_named(name: str) -> Method:
    """The method.

    Raises:
      UserError: there is none of that name.
    """
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(str(name), METHODS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"unknown method {name!r}; {hint}config.method.name is one of {', '.join(METHODS)}")
