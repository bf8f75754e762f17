"""Phased training of a variational autoencoder with a mixture as prior (P3GM, arXiv 2006.12101).

The phases of ``gaussian_mixture`` release the class means, a basis V and a mixture of the codes; together they spend a
part of epsilon. The posterior of a real image x of class y is normal. Its mean is fixed to the image's code in the
released basis, and a network g gives its variances. Decoder f and g are trained by DP-SGD on

    |G(z, y) - x|^2 - lambda log sum_k w_yk exp(-KL(q || N_yk)),    z ~ q = N(V^T (x - m_y), diag(exp g))

where N_yk are the components of the class and G is the decoder of ``efsgd_mixture``. That method is the same without a
posterior: z is the code itself.

The published code centres its rows by an exact mean that its accounting does not charge, takes fixed contiguous blocks
as batches and accounts for them as Poisson samples. Here the means are released with noise, and batches are Poisson
samples. Its decoder is first trained on samples of the mixture; here it starts as the mixture's own images.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers import gaussian_mixture
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.synthesizers.efsgd_mixture.method import Decoder, check_size, reconstruction_error
from efsgd_jax.synthesizers.efsgd_mixture.training import training_phase
from efsgd_jax.synthesizers.gaussian_mixture.appearance import vector_size
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, code_scale
from efsgd_jax.synthesizers.p3gm.config import Hyperparameters

PyTree = Any
# Initial log-variance of the posterior, relative to the mean square of the codes: a tenth of it.
FIRST_LOG_VARIANCE = -2.3
# Smallest variance of a component, relative to the mean square of the codes.
SMALLEST_VARIANCE = 1e-3


class LogVariances(nn.Module):
    """Log-variances ``[d]`` of the posterior, relative to the mean square of the codes, for a code ``[d]``."""

    width: int

    @nn.compact
    def __call__(self, code: jax.Array) -> jax.Array:
        first = nn.initializers.constant(FIRST_LOG_VARIANCE)
        hidden = nn.silu(nn.Dense(self.width)(code))
        return nn.Dense(code.shape[-1], kernel_init=nn.initializers.zeros, bias_init=first)(hidden)


def divergence(mixture: Mixture, label: jax.Array, mean: jax.Array, variances: jax.Array) -> jax.Array:
    """``-log sum_k w_k exp(-KL(N(mean, diag variances) || N_k))`` for the components of a class: a scalar.

    Args:
      mixture: the mixture.
      label: the class.
      mean: mean of the posterior, ``[d]``.
      variances: its variances, ``[d]``, above 0.
    """
    smallest = SMALLEST_VARIANCE * jnp.square(code_scale(mixture))
    axes = mixture.axes[label]  # [M, d, d]
    along = jnp.maximum(mixture.variances[label], jnp.einsum("mij,i->mj", jnp.square(axes), smallest))  # [M, d]
    spread = jnp.einsum("mij,i->mj", jnp.square(axes), variances)  # the posterior's variance along each axis
    apart = jnp.einsum("mij,mi->mj", axes, mean - mixture.centres[label])
    of_logs = jnp.sum(jnp.log(along), axis=1) - jnp.sum(jnp.log(variances))
    kl = 0.5 * (jnp.sum((spread + jnp.square(apart)) / along, axis=1) + of_logs - len(mean))
    return -jax.nn.logsumexp(jnp.log(mixture.weights[label]) - kl)


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases of the mixture, then DP-SGD for the decoder and the posterior's variances.

    Raises:
      UserError: images of an odd size, or one that ``gaussian_mixture`` refuses.

    Formal guarantees:
      Those of ``training_phase``. The posterior is a function of one record and of what was released before.
    """
    hp, decoder = hyperparameters, Decoder(spec, hyperparameters)
    network = LogVariances(hp.posterior_width)
    *mixture_plan, planned = plan
    check_size(spec, "p3gm")

    def init(key: jax.Array) -> PyTree:
        first, second = jax.random.split(key)
        decoder_params = decoder.init(first)
        size = min(hp.directions, vector_size(spec, hp))
        return {"decoder": decoder_params, "posterior": network.init(second, jnp.zeros(size))}

    def loss(params: PyTree, mixture: Mixture, vector: jax.Array, record: Record, key: Any, autoencoder: Any) -> Any:
        noise_key, decoder_key = jax.random.split(key)
        scale, mean = code_scale(mixture), (vector - mixture.means[record.label]) @ mixture.basis
        log_variances = network.apply(params["posterior"], mean / scale)
        deviations = scale * jnp.exp(0.5 * log_variances)  # type: ignore[operator]
        z = mean + deviations * jax.random.normal(noise_key, mean.shape)
        drawn = mixture.means[record.label] + mixture.basis @ z
        rebuilt = decoder(
            params["decoder"], mixture, drawn[None], record.label[None], decoder_key[None], autoencoder=autoencoder
        )
        error = reconstruction_error(rebuilt, record, hp)
        return error + hp.prior_weight * divergence(mixture, record.label, mean, jnp.square(deviations))

    training = training_phase(planned, hp, init, loss, network="decoder", metric="loss")
    whole = training.release

    def release(state: Any) -> PyTree:
        released = whole(state)
        return {**released, "decoder": released["decoder"]["decoder"]}  # images need the decoder alone

    return [*gaussian_mixture.METHOD.phases(spec, hp, mixture_plan, mesh), training._replace(release=release)]
