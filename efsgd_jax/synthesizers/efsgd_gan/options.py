"""``config.method`` of ``efsgd_gan``."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Sizes, weights and rates of ``efsgd_gan``.

    Attributes:
      latent: length of z.
      generator_width: channels of the generator's finest stage, doubled per coarser stage.
      discriminator_width: channels of the discriminator's finest stage, doubled per coarser stage.
      encoder_width: channels of the encoder's finest stage, doubled per coarser stage.
      max_width: upper bound of the channels of any stage.
      features: length of the discriminator's feature vector.
      noise_injection: inject noise at every upsampling stage.
      adversarial_weight: w_adv.
      classifier_weight: w_cls.
      reconstruction_weight: w_rec.
      kl_weight: beta.
      generator_classifier_weight: v_cls; 0 leaves the classifier out of the generator's loss.
      learning_rate: Adam's, for the private update.
      generator_learning_rate: Adam's, for the generator's own step; 0 makes a private VAE of the method.
      adam_b1: Adam's first-moment decay, of both.
      private_steps_per_generator_step: private updates between two generator steps.
      generated_batch_size: generated images per update.
      ema_decay: of the generator that is released.
      augmentation_multiplicity: copies of an example within its one gradient, each with draws of its own and, if there
        are several, moved by a few pixels.
      microbatch_size: examples whose gradients exist at one time; None for all.
      compute_dtype: of the networks in training, ``float32`` or ``bfloat16``. Parameters, losses, norms, sums, noise
        and what is released are float32 in either case.
    """

    latent: int = 8
    generator_width: int = 8
    discriminator_width: int = 8
    encoder_width: int = 8
    max_width: int = 16
    features: int = 32
    noise_injection: bool = True
    adversarial_weight: float = 1.0
    classifier_weight: float = 1.0
    reconstruction_weight: float = 1.0
    kl_weight: float = 1.0
    generator_classifier_weight: float = 2.0
    learning_rate: float = 6e-3
    generator_learning_rate: float = 1e-3
    adam_b1: float = 0.9
    private_steps_per_generator_step: int = 2
    generated_batch_size: int = 64
    ema_decay: float = 0.998
    augmentation_multiplicity: int = 1
    microbatch_size: int | None = 32
    compute_dtype: str = "float32"
