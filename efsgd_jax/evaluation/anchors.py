"""Published gen2real accuracies of CNNs on MNIST and Fashion-MNIST, as reference points.

The papers differ in the classifier, in the number of images and in how the best run was chosen, so that small
differences between their numbers mean nothing. Delta is 1e-5 where the protocol does not name another.
"""

from typing import NamedTuple


class Anchor(NamedTuple):
    """One published accuracy.

    Attributes:
      method: name of the synthesis method.
      data: the data set, ``mnist`` or ``fashion_mnist``.
      epsilon: epsilon as the paper states it.
      accuracy: gen2real accuracy of the paper's CNN or, for FETA-Pro, the mean of its three CNNs, in [0, 1].
      paper: the paper that the number is from.
      protocol: how the number was obtained, as far as it matters for a comparison.
    """

    method: str
    data: str
    epsilon: float
    accuracy: float
    paper: str
    protocol: str


_GS_WGAN = (
    "Chen, Orekondy, Fritz, 2020, arXiv 2006.08265",
    "its own CNN on 60,000 generated images; epsilon as published, not proven for the published code "
    "(docs/privacy/shards.md)",
)
_DPDM = (
    "Dockhorn, Cao, Vahdat, Kreis, 2023, arXiv 2210.09929",
    "its paper's CNN, trained on generated images; a diffusion model by DP-SGD; epsilon by RDP at delta 1e-5",
)
_PRIVATE_GANS = (
    "Bie, Kamath, Zhang, 2023, arXiv 2302.02936",
    "its paper's CNN, trained on generated images; a GAN whose discriminator is trained by DP-SGD",
)
_FETA_PRO = (
    "Gong, Li, Lin, Wang, 2026, arXiv 2601.06368",
    "the mean of three classifiers by DPImageBench's protocol (arXiv 2503.14681); epsilon by RDP at delta 1/(N ln N), "
    "N = 55,000",
)

ANCHORS = (
    Anchor("GS-WGAN", "mnist", 10.0, 0.80, *_GS_WGAN),
    Anchor("GS-WGAN", "fashion_mnist", 10.0, 0.65, *_GS_WGAN),
    Anchor("Private GANs, Revisited", "mnist", 10.0, 0.950, *_PRIVATE_GANS),
    Anchor("DPDM", "mnist", 10.0, 0.981, *_DPDM),
    Anchor("DPDM", "mnist", 1.0, 0.953, *_DPDM),
    Anchor("DPDM", "fashion_mnist", 10.0, 0.862, *_DPDM),
    Anchor("DPDM", "fashion_mnist", 1.0, 0.794, *_DPDM),
    Anchor("FETA-Pro", "mnist", 10.0, 0.984, *_FETA_PRO),
    Anchor("FETA-Pro", "mnist", 1.0, 0.968, *_FETA_PRO),
    Anchor("FETA-Pro", "fashion_mnist", 10.0, 0.878, *_FETA_PRO),
    Anchor("FETA-Pro", "fashion_mnist", 1.0, 0.822, *_FETA_PRO),
)


def anchors_of(data: str, image_size: int, channels: int) -> list[Anchor]:
    """The published accuracies for a data set; empty if the images do not have its original shape, 28x28x1."""
    if (image_size, channels) != (28, 1):
        return []
    return [anchor for anchor in ANCHORS if anchor.data == data]
