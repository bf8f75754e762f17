"""Sizes, weights and rates of the published family."""

import dataclasses

LATENT_PRIORS = ("bernoulli", "normal")
RECONSTRUCTIONS = ("codes", "prior")


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The defaults are GS-WGAN's; ``classifier_weight`` and ``reconstruction_weight`` switch the later ideas on.

    Attributes:
      latent: length of z.
      latent_prior: ``bernoulli``, fair coins in {0, 1}, or ``normal``.
      generator_width: channels of the generator's finest stage, doubled per coarser stage.
      max_width: upper bound of that.
      noise_injection: inject noise at every upsampling stage of the generator.
      generator_learning_rate: Adam's.
      ema_decay: of the generator that is released.
      adam_b1: Adam's first-moment decay, of generator, critics and encoders.
      adam_b2: and second-moment decay.
      critic_width: channels of the first convolution of every network of a shard.
      critic_steps: of a shard's critic in one turn.
      critic_batch_size: real images per step of a shard's network.
      critic_learning_rate: Adam's, of critics and encoders.
      gradient_penalty: lambda.
      logit_penalty: epsilon, on D(x)^2 of real images.
      warm_steps: steps of every critic before the generator's first.
      adversarial_weight: of the critic in the generator's loss once the classifier has begun; before, 1.
      classifier_weight: of the auxiliary classifier; 0 leaves it out.
      classifier_from: the generator's step with which the classifier begins.
      classifier_generated_steps: of the new classifier on generated images.
      classifier_real_steps: then on its shard's.
      classifier_learning_rate: Adam's.
      reconstruction_weight: of the reconstruction in the generator's loss; 0 leaves the encoder out.
      reconstruction_from: ``codes``, |G(E(x), y) - x|^2 for half of the images, as published; or ``prior``, |G(z, y) -
        x|^2 for every image, with z from the prior and x the nearest by code of ``candidates`` images of the judge's
        shard with that label. In image space only the latter is covered by the sanitiser: its z belongs to no image.
      candidates: of ``prior``, images that a judge looks at for each that it judges.
      kl_weight: beta, in the encoder's loss.
      encoder_steps: of a shard's encoder in one turn.
    """

    latent: int = 10
    latent_prior: str = "bernoulli"
    generator_width: int = 64
    max_width: int = 256
    noise_injection: bool = False
    generator_learning_rate: float = 1e-4
    ema_decay: float = 0.999
    adam_b1: float = 0.5
    adam_b2: float = 0.9
    critic_width: int = 64
    critic_steps: int = 5
    critic_batch_size: int = 32
    critic_learning_rate: float = 1e-4
    gradient_penalty: float = 10.0
    logit_penalty: float = 1e-3
    warm_steps: int = 0
    adversarial_weight: float = 0.8
    classifier_weight: float = 0.0
    classifier_from: int = 6000
    classifier_generated_steps: int = 5
    classifier_real_steps: int = 5
    classifier_learning_rate: float = 1e-3
    reconstruction_weight: float = 0.0
    reconstruction_from: str = "codes"
    candidates: int = 16
    kl_weight: float = 1.0
    encoder_steps: int = 1
