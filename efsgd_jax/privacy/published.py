"""The accounting that the field published for GS-WGAN and DP-GAN-DPAC, and what their code really spends.

K discriminators see one disjoint shard each; a step draws a shard and clips the gradient of each of B generated images
to C, with noise of std ``2 C sigma`` (sensitivity 2C: another shard, another discriminator). Unit: one shard. Over T
steps:

==================  ===================================================================================================
as published        every image of every step draws its own shard: one-of-K, composed T B times, by RDP, replace-one
shared draw         one shard judges all B images, as the code does it: the B releases are one with ``sigma / sqrt(B)``;
                    Poisson(1/K) stands in for one-of-K
round robin         shards in a fixed public order: no amplification, ``ceil(T / K)`` visits each
==================  ===================================================================================================

References:
  Chen, Orekondy, Fritz, 2020, GS-WGAN, https://arxiv.org/abs/2006.08265; Wang, Balle, Kasiviswanathan, 2019, Subsampled
  Renyi DP, https://arxiv.org/abs/1808.00087 (Theorem 9); Mironov, 2017, https://arxiv.org/abs/1702.07476.
"""

import math
from typing import NamedTuple

import dp_accounting
import numpy as np
from scipy.special import gammaln, logsumexp

from efsgd_jax.privacy.accounting import COARSE, FINE_ORDERS, epsilon, gaussian_event

REPLACE_ONE = dp_accounting.NeighboringRelation.REPLACE_ONE


class SanitizedGan(NamedTuple):
    """The published settings for MNIST and Fashion-MNIST.

    Attributes:
      num_shards: K.
      batch_size: B, generated images per step.
      steps: T, generator steps.
      noise_multiplier: sigma, noise std over ``2 C``.
    """

    num_shards: int = 1000
    batch_size: int = 32
    steps: int = 20_000
    noise_multiplier: float = 1.07

    def published_event(self) -> dp_accounting.DpEvent:
        """One-of-K, composed T B times; for ``replace one`` and RDP."""
        image = dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_shards, 1, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        return dp_accounting.SelfComposedDpEvent(image, self.steps * self.batch_size)

    def shared_draw_event(self) -> dp_accounting.DpEvent:
        """One Poisson draw per step that all B images share."""
        batch = dp_accounting.GaussianDpEvent(self.noise_multiplier / math.sqrt(self.batch_size))
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(1 / self.num_shards, batch), self.steps
        )

    def round_robin_event(self) -> dp_accounting.DpEvent:
        """A public order: each shard's visits, and no other's, concern it."""
        visits = math.ceil(self.steps / self.num_shards)
        return gaussian_event(self.noise_multiplier / math.sqrt(self.batch_size), visits)

    def epsilons(self, delta: float) -> dict[str, float]:
        """Every accounting by name, at ``delta``."""
        published, shared = self.published_event(), self.shared_draw_event()
        return {
            "as published: one-of-K, T*B times, RDP of Wang et al., replace one": self._as_published(delta),
            "the same by dp-accounting's RDP": epsilon(
                published, delta, accountant="rdp", neighbouring_relation=REPLACE_ONE
            ),
            "shared draw, RDP": epsilon(shared, delta, accountant="rdp", orders=FINE_ORDERS),
            "shared draw, PLD": epsilon(shared, delta, grid=COARSE),
            "round robin, PLD": epsilon(self.round_robin_event(), delta),
        }

    def _as_published(self, delta: float) -> float:
        """Theorem 9 of Wang et al. for a Gaussian, and ``epsilon = rdp + log(1 / delta) / (alpha - 1)``: what the
        analytical moments accountant that the authors used computes."""
        compositions = self.steps * self.batch_size
        return min(
            compositions * _subsampled_gaussian_rdp(alpha, 1 / self.num_shards, self.noise_multiplier)
            + math.log(1 / delta) / (alpha - 1)
            for alpha in range(2, 128)
        )


def _subsampled_gaussian_rdp(alpha: int, gamma: float, sigma: float) -> float:
    """RDP of order ``alpha`` of a Gaussian on a subset of share ``gamma`` drawn without replacement."""
    rdp = 1 / (2 * sigma**2)  # of order j: j times this
    j = np.arange(3, alpha + 1)
    log_binomial = gammaln(alpha + 1) - gammaln(j + 1) - gammaln(alpha - j + 1)
    second = min(math.log(4) + math.log(math.expm1(2 * rdp)), math.log(2) + 2 * rdp)
    terms = j * math.log(gamma) + log_binomial + (j - 1) * j * rdp + math.log(2)
    log_choose_two = math.log(alpha * (alpha - 1) / 2)
    return float(logsumexp([0.0, 2 * math.log(gamma) + log_choose_two + second, *terms])) / (alpha - 1)
