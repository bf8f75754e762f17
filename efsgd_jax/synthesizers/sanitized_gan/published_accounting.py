"""The accounting that the field published for GS-WGAN and DP-GAN-DPAC, and what their code really spends.

K discriminators see one disjoint shard each; a step draws a shard and clips the gradient of each of B generated images
to C, with noise of std ``2 C sigma`` (sensitivity 2C: another shard, another discriminator). Unit: one shard. Over T
steps:

==================  ===================================================================================================
as published        every image of every step draws its own shard: one-of-K, composed T B times, by RDP, replace-one
shared draw         one shard judges all B images, as the code does it: the B releases are one with ``sigma / sqrt(B)``;
                    Poisson(1/K) stands in for one-of-K
==================  ===================================================================================================

Neither is a proof for the published code: what a discriminator is depends on when it was drawn before, which ties the
draws of different steps together. ``mechanism.py`` has schedules that are proven, and what can be proven of this.

References:
  Chen, Orekondy, Fritz, 2020, GS-WGAN, https://arxiv.org/abs/2006.08265; Wang, Balle, Kasiviswanathan, 2019, Subsampled
  Renyi DP, https://arxiv.org/abs/1808.00087 (Theorem 9); Mironov, 2017, https://arxiv.org/abs/1702.07476.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import dp_accounting
import numpy as np
from scipy.special import gammaln, logsumexp

from efsgd_jax.privacy.accounting import COARSE, FINE_ORDERS, Accountant, epsilon
from efsgd_jax.privacy.calibration import rough_noise_multiplier
from efsgd_jax.privacy.subset import REPLACE_ONE

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

ACCOUNTINGS = {
    "as_published": "as the field accounts for it (proven for no code)",
    "shared_draw": "if a step's images share their draw (a stand-in, not proven)",
    "proven": "proven for the schedule that ran",
}


class SanitizedGan(NamedTuple):
    """The published settings for MNIST and Fashion-MNIST.

    Attributes:
      num_shards: K.
      batch_size: B, generated images per step.
      steps: T, generator steps.
      noise_multiplier: sigma, noise std over ``2 C``.
      judges: M, shards that are drawn together; 1 in the papers.
    """

    num_shards: int = 1000
    batch_size: int = 32
    steps: int = 20_000
    noise_multiplier: float = 1.07
    judges: int = 1

    def published_event(self) -> dp_accounting.DpEvent:
        """One-of-K, composed T B times; for ``replace one`` and RDP."""
        image = dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_shards, self.judges, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        return dp_accounting.SelfComposedDpEvent(image, self.steps * self.batch_size)

    def shared_draw_event(self) -> dp_accounting.DpEvent:
        """One Poisson draw per step that all B images share."""
        batch = dp_accounting.GaussianDpEvent(self.noise_multiplier / math.sqrt(self.batch_size))
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(self.judges / self.num_shards, batch), self.steps
        )

    def by_wang_et_al(self, delta: float) -> float:
        """As published, by the analytical moments accountant that the authors used: Theorem 9 of Wang et al. for a
        Gaussian, and ``epsilon = rdp + log(1 / delta) / (alpha - 1)``."""
        compositions = self.steps * self.batch_size
        return min(
            compositions * _subsampled_gaussian_rdp(alpha, self.judges / self.num_shards, self.noise_multiplier)
            + math.log(1 / delta) / (alpha - 1)
            for alpha in range(2, 128)
        )

    def as_published(self, delta: float) -> float:
        """As published, by dp-accounting's RDP."""
        return epsilon(self.published_event(), delta, accountant="rdp", neighbouring_relation=REPLACE_ONE)

    def shared_draw(self, delta: float, *, accountant: Accountant = "pld") -> float:
        """The stand-in for what the published code does."""
        return epsilon(self.shared_draw_event(), delta, accountant=accountant, grid=COARSE, orders=FINE_ORDERS)


def published_form(mechanism: "ShardMechanism", steps: int) -> SanitizedGan:
    """What the field's accountings take ``steps`` steps of ``mechanism`` for, whatever its schedule and feedback."""
    judges = mechanism.judges if mechanism.schedule == "parameter" else 1
    return SanitizedGan(mechanism.num_shards, mechanism.slots, steps, mechanism.noise_multiplier, judges)


def accountings(mechanism: "ShardMechanism", steps: int, delta: float, proven: float) -> dict[str, float]:
    """Three epsilons of one run, side by side: as published, for a shared draw, and the proven one of its schedule.

    Args:
      mechanism: of the run.
      steps: T.
      delta: of all three.
      proven: from the run's ledger.
    """
    if mechanism.noise_multiplier == 0 or steps == 0:
        return {}
    form = published_form(mechanism, steps)
    published = form.as_published(delta)
    return {
        "as_published": published,
        # PLD of an epsilon in the thousands does not fit into memory.
        "shared_draw": form.shared_draw(delta, accountant="pld" if published < 100 else "rdp"),
        "proven": proven,
    }


def calibrate_as_published(
    mechanism: "ShardMechanism", steps: int, target_epsilon: float, delta: float
) -> "ShardMechanism":
    """``mechanism`` with the noise that spends ``target_epsilon`` by the published accounting, which proves nothing.

    Raises:
      UserError: not reachable.
    """
    sigma = rough_noise_multiplier(
        lambda s: published_form(mechanism._replace(noise_multiplier=s), steps).published_event(),
        target_epsilon,
        delta,
        REPLACE_ONE,
    )
    return mechanism._replace(noise_multiplier=sigma)


def _subsampled_gaussian_rdp(alpha: int, gamma: float, sigma: float) -> float:
    """RDP of order ``alpha`` of a Gaussian on a subset of share ``gamma`` drawn without replacement."""
    rdp = 1 / (2 * sigma**2)  # of order j: j times this
    j = np.arange(3, alpha + 1)
    log_binomial = gammaln(alpha + 1) - gammaln(j + 1) - gammaln(alpha - j + 1)
    second = min(math.log(4) + math.log(math.expm1(2 * rdp)), math.log(2) + 2 * rdp)
    terms = j * math.log(gamma) + log_binomial + (j - 1) * j * rdp + math.log(2)
    log_choose_two = math.log(alpha * (alpha - 1) / 2)
    return float(logsumexp([0.0, 2 * math.log(gamma) + log_choose_two + second, *terms])) / (alpha - 1)
