"""The hyperparameters of ``efsgd_gan``: the keys of ``config.method``."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Network sizes, weights of the losses and learning rates of ``efsgd_gan``.

    Attributes:
      latent: number of dimensions of the latent vector z.
      generator_width: number of channels of the generator's finest stage; each coarser stage has twice as many.
      discriminator_width: number of channels of the discriminator's finest stage; each coarser stage has twice as many.
      encoder_width: number of channels of the encoder's finest stage; each coarser stage has twice as many.
      max_width: largest number of channels of any stage.
      features: number of dimensions of the discriminator's feature vector.
      noise_injection: whether the generator adds noise at every upsampling stage.
      adversarial_weight: w_adv, the weight of the adversarial loss of the discriminator, on real and generated images.
      classifier_weight: w_cls, the weight of the auxiliary classifier's cross-entropy on real images.
      reconstruction_weight: w_rec, the weight of the VAE's loss (reconstruction error and KL divergence).
      kl_weight: beta, the weight of the KL divergence relative to the reconstruction error.
      generator_classifier_weight: v_cls, the weight of the classifier's cross-entropy in the generator's own loss; 0
        leaves it out.
      learning_rate: Adam's learning rate for the private update.
      generator_learning_rate: Adam's learning rate for the generator's own step; with 0 the generator is trained as the
        decoder of a private VAE only.
      adam_b1: decay rate of the first moment in both Adam optimisers.
      private_steps_per_generator_step: number of private updates for each step of the generator's own.
      generated_batch_size: number of generated images in an update.
      ema_decay: decay of the moving average of the generator's parameters, which is what is released.
      augmentation_multiplicity: number of copies of an example whose losses are averaged into the example's one
        gradient. Each copy has its own latent and noise; if there is more than one, each is shifted by a few pixels.
      microbatch_size: number of examples whose gradients are computed at a time; None for the whole batch.
      compute_dtype: dtype of the networks' computation in training, ``float32`` or ``bfloat16``. Parameters, losses,
        norms, sums, noise and what is released are float32 in either case.
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
