"""The accounting that was published for GS-WGAN and DP-GAN-DPAC, and one that is closer to what their code does.

Each of K discriminators is trained on one of K disjoint shards. A step samples a shard and clips the gradient of each
of B generated images to C, with noise of std ``2 C sigma``. (The sensitivity is 2C: if the shard changes, so does its
discriminator.) The unit of privacy is one shard. T steps are accounted for in two ways:

==================  ===================================================================================================
as published        every image of every step samples its own shard: one-of-K, composed T B times, by RDP, replace-one
shared draw         one shard scores all B images, as in the code: the B releases are one with ``sigma / sqrt(B)``;
                    Poisson sampling with probability 1/K approximates one-of-K
==================  ===================================================================================================

Neither is a proof for the published code. A discriminator's state depends on the steps in which its shard was sampled
before, so that the samples of different steps are not independent. ``mechanism.py`` has schedules with a proof;
``revealed.py`` has what can be proven for the published one.

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
    "as_published": "as papers of this family account for it (not a proof)",
    "shared_draw": "if a step's images share their draw (a stand-in, not proven)",
    "proven": "proven for the schedule that ran",
}


class SanitizedGan(NamedTuple):
    """What the published accountings depend on; the defaults are the published settings for MNIST and Fashion-MNIST.

    Attributes:
      num_shards: number K of shards.
      batch_size: number B of generated images in a step.
      steps: number T of generator steps.
      noise_multiplier: sigma, the standard deviation of the noise divided by ``2 C``.
      num_sampled: number M of shards that are sampled together; 1 in the papers.
    """

    num_shards: int = 1000
    batch_size: int = 32
    steps: int = 20_000
    noise_multiplier: float = 1.07
    num_sampled: int = 1

    def published_event(self) -> dp_accounting.DpEvent:
        """The event as published: M-of-K (M = 1 in the papers), composed T B times; for replace-one and RDP."""
        image = dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_shards, self.num_sampled, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        return dp_accounting.SelfComposedDpEvent(image, self.steps * self.batch_size)

    def shared_draw_event(self) -> dp_accounting.DpEvent:
        """The event of one Poisson sample of shards in each step, which all B images share."""
        batch = dp_accounting.GaussianDpEvent(self.noise_multiplier / math.sqrt(self.batch_size))
        return dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(self.num_sampled / self.num_shards, batch), self.steps
        )

    def by_wang_et_al(self, delta: float) -> float:
        """Epsilon as published, by the analytical moments accountant that the authors used.

        It uses Theorem 9 of Wang et al. for a Gaussian, and ``epsilon = rdp + log(1 / delta) / (alpha - 1)``.
        """
        compositions = self.steps * self.batch_size
        return min(
            compositions * _subsampled_gaussian_rdp(alpha, self.num_sampled / self.num_shards, self.noise_multiplier)
            + math.log(1 / delta) / (alpha - 1)
            for alpha in range(2, 128)
        )

    def as_published(self, delta: float) -> float:
        """Epsilon of ``published_event`` by dp-accounting's RDP."""
        return epsilon(self.published_event(), delta, accountant="rdp", neighbouring_relation=REPLACE_ONE)

    def shared_draw(self, delta: float, *, accountant: Accountant = "pld") -> float:
        """Epsilon of ``shared_draw_event``, which approximates what the published code does."""
        return epsilon(self.shared_draw_event(), delta, accountant=accountant, grid=COARSE, orders=FINE_ORDERS)


def published_form(mechanism: "ShardMechanism", steps: int) -> SanitizedGan:
    """The parameters of the published accountings for ``steps`` steps of ``mechanism``; feedback is ignored."""
    sampled = mechanism.num_scoring if mechanism.schedule == "parameter" else 1
    return SanitizedGan(mechanism.num_shards, mechanism.slots, steps, mechanism.noise_multiplier, sampled)


def accountings(mechanism: "ShardMechanism", steps: int, delta: float, proven: float) -> dict[str, float]:
    """Three epsilons of one run: as published, for a shared draw, and the proven one of its schedule.

    Empty if there is no noise or no step.

    Args:
      mechanism: the run's mechanism.
      steps: number T of steps.
      delta: the delta of all three epsilons.
      proven: the proven epsilon, from the run's ledger.
    """
    if mechanism.noise_multiplier == 0 or steps == 0:
        return {}
    form = published_form(mechanism, steps)
    published = form.as_published(delta)
    return {
        "as_published": published,
        # For an epsilon in the thousands, PLD does not fit into memory.
        "shared_draw": form.shared_draw(delta, accountant="pld" if published < 100 else "rdp"),
        "proven": proven,
    }


def calibrate_as_published(
    mechanism: "ShardMechanism", steps: int, target_epsilon: float, delta: float
) -> "ShardMechanism":
    """``mechanism`` with the noise that spends ``target_epsilon`` by the published accounting, which proves nothing.

    Raises:
      UserError: no noise multiplier reaches the target.
    """
    sigma = rough_noise_multiplier(
        lambda s: published_form(mechanism._replace(noise_multiplier=s), steps).published_event(),
        target_epsilon,
        delta,
        REPLACE_ONE,
    )
    return mechanism._replace(noise_multiplier=sigma)


def _subsampled_gaussian_rdp(alpha: int, gamma: float, sigma: float) -> float:
    """RDP of order ``alpha`` of a Gaussian on a fraction ``gamma`` of the data, sampled without replacement.

    This is Theorem 9 of Wang et al.; ``sigma`` is the standard deviation of the noise over the sensitivity.
    """
    rdp = 1 / (2 * sigma**2)  # the Gaussian's RDP of order 1; that of order j is j times this
    j = np.arange(3, alpha + 1)
    log_binomial = gammaln(alpha + 1) - gammaln(j + 1) - gammaln(alpha - j + 1)
    second = min(math.log(4) + math.log(math.expm1(2 * rdp)), math.log(2) + 2 * rdp)
    terms = j * math.log(gamma) + log_binomial + (j - 1) * j * rdp + math.log(2)
    log_choose_two = math.log(alpha * (alpha - 1) / 2)
    return float(logsumexp([0.0, 2 * math.log(gamma) + log_choose_two + second, *terms])) / (alpha - 1)
