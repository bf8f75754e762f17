"""The hyperparameters of ``sanitized_gan``: the keys of ``config.method``."""

import dataclasses

LATENT_PRIORS = ("bernoulli", "normal")
RECONSTRUCTIONS = ("codes", "prior")


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Network sizes, weights of the losses and learning rates of ``sanitized_gan``.

    The defaults are GS-WGAN's. ``classifier_weight`` adds DP-GAN-DPAC's auxiliary classifier, and
    ``reconstruction_weight`` EFSGD's reconstruction. The keys ``critic_*`` are about the shards' discriminators, which
    GS-WGAN calls critics.

    Attributes:
      latent: number of dimensions of the latent vector z.
      latent_prior: distribution of each component of z: ``bernoulli`` (0 or 1 with equal probability) or ``normal``.
      generator_width: number of channels of the generator's finest stage; each coarser stage has twice as many.
      max_width: largest number of channels of any stage of the generator.
      noise_injection: whether the generator adds noise at every upsampling stage.
      generator_learning_rate: Adam's learning rate for the generator.
      ema_decay: decay of the moving average of the generator's parameters, which is what is released.
      adam_b1: Adam's decay rate of the first moment, for generator, discriminators and encoders.
      adam_b2: Adam's decay rate of the second moment, for generator, discriminators and encoders.
      critic_width: number of channels of the first convolution in the discriminator, classifier and encoder of each
        shard.
      critic_steps: number of steps of a shard's discriminator each time the shard trains.
      critic_batch_size: number of real images of the shard in each training step of its discriminator, classifier or
        encoder.
      critic_learning_rate: Adam's learning rate for discriminators and encoders.
      gradient_penalty: lambda, the weight of the gradient penalty in the discriminator's loss.
      logit_penalty: epsilon, the weight of the penalty on D(x)^2 of real images in the discriminator's loss.
      warm_steps: number of steps of every discriminator before the generator's first step.
      adversarial_weight: weight of the discriminator in the generator's loss while the classifier is part of it;
        otherwise the weight is 1.
      classifier_weight: weight of the auxiliary classifier in the generator's loss; 0 disables the classifier.
      classifier_from: generator step from which shards train classifiers. The generator's loss includes them as soon
        as every shard that may score images has trained one.
      classifier_generated_steps: number of steps of a new classifier on generated images, each time the shard trains.
      classifier_real_steps: number of steps of a new classifier on images of its shard, after those on generated ones;
        0 disables the classifier too.
      classifier_learning_rate: Adam's learning rate for classifiers.
      reconstruction_weight: weight of the reconstruction in the generator's loss; 0 disables the encoders.
      reconstruction_from: ``codes`` adds |G(E(x), y) - x|^2 for half of the images, as published, with real images x of
        the shard whose discriminator scores the image. ``prior`` adds |G(z, y) - x|^2 for every image, with z from the
        prior; x is the image whose code is nearest to z among images with label y that this shard reads. In image space
        only ``prior`` is covered by the sanitiser, because its z does not depend on any image.
      candidates: number of real images that a shard reads for each image that its discriminator scores, with ``prior``
        only.
      kl_weight: beta, the weight of the KL divergence in the encoder's loss.
      encoder_steps: number of steps of a shard's encoder each time the shard trains.
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
