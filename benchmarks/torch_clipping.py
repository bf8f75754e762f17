"""`efsgd_gan`'s discriminator in PyTorch, and its gradient: plain, and clipped per example by Opacus.

A peer for ``clipping.py``: the same layers on the same weights.
"""

import itertools
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.sizes import base_and_stages, stage_widths


class TorchDiscriminator(nn.Module):
    """``efsgd_jax.models.Discriminator``.

    ``row_major`` is for Opacus 1.6: images of one channel lead PyTorch's convolution to a channels-last result, whose
    patches Opacus reads as if it were row-major; its per-example gradients are wrong then, without a word.
    """

    def __init__(self, spec: ImageSpec, width: int, max_width: int, features: int, row_major: bool = False) -> None:
        super().__init__()
        self.row_major = row_major
        base, stages = base_and_stages(spec.image_size)
        widths = [spec.channels, *stage_widths(width, stages, max_width)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.flat = (widths[-1], base, base)
        self.phi = nn.Linear(widths[-1] * base * base, features)
        self.embed = nn.Embedding(spec.num_classes, features)
        self.psi = nn.Linear(features, 1)
        self.classes = nn.Linear(features, spec.num_classes)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if self.row_major:
                x = x.contiguous()
            if i > 0:
                x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
            x = F.leaky_relu(x, 0.2)
        phi = F.leaky_relu(self.phi(x.flatten(1)), 0.2)
        return self.psi(phi)[:, 0] + (self.embed(y) * phi).sum(-1), self.classes(phi)

    def load(self, params: Any) -> "TorchDiscriminator":
        """Flax's parameters: NHWC and HWIO there, NCHW and OIHW here."""
        p = jax.tree.map(lambda x: torch.tensor(np.array(x)), params["params"])
        with torch.no_grad():
            for i, conv in enumerate(self.convs):
                conv.weight.copy_(p["ConvTrunk_0"][f"Conv_{i}"]["kernel"].permute(3, 2, 0, 1))
                conv.bias.copy_(p["ConvTrunk_0"][f"Conv_{i}"]["bias"])
            c, h, w = self.flat
            phi = p["Dense_0"]["kernel"].reshape(h, w, c, -1).permute(3, 2, 0, 1)
            for layer, kernel, bias in (
                (self.phi, phi.flatten(1), p["Dense_0"]["bias"]),
                (self.psi, p["Dense_1"]["kernel"].T, p["Dense_1"]["bias"]),
                (self.classes, p["Dense_2"]["kernel"].T, p["Dense_2"]["bias"]),
            ):
                layer.weight.copy_(kernel)
                layer.bias.copy_(bias)
            self.embed.weight.copy_(p["Embed_0"]["embedding"])
        return self

    def as_flax(self, gradients: dict[str, Tensor]) -> dict[str, Any]:
        """Gradients by the names of this module's parameters, as Flax's tree of NumPy arrays."""
        g = {name.removeprefix("_module."): x for name, x in gradients.items()}
        c, h, w = self.flat
        convs = {
            f"Conv_{i}": {"kernel": g[f"convs.{i}.weight"].permute(2, 3, 1, 0), "bias": g[f"convs.{i}.bias"]}
            for i in range(len(self.convs))
        }
        phi = g["phi.weight"].reshape(-1, c, h, w).permute(2, 3, 1, 0).reshape(c * h * w, -1)
        tree = {
            "ConvTrunk_0": convs,
            "Dense_0": {"kernel": phi, "bias": g["phi.bias"]},
            "Dense_1": {"kernel": g["psi.weight"].T, "bias": g["psi.bias"]},
            "Dense_2": {"kernel": g["classes.weight"].T, "bias": g["classes.bias"]},
            "Embed_0": {"embedding": g["embed.weight"]},
        }
        return {"params": jax.tree.map(lambda x: x.detach().cpu().numpy(), tree)}


def losses(judgement: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    realness, logits = judgement
    return F.softplus(-realness) + F.cross_entropy(logits, y, reduction="none")


class Plain:
    """The gradient of the sum of losses."""

    def __init__(self, model: TorchDiscriminator) -> None:
        self.model = model

    def __call__(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.model.zero_grad()
        losses(self.model(x, y), y).sum().backward()
        return {name: p.grad for name, p in self.model.named_parameters()}


class Hooks:
    """Opacus' per-example gradients, clipped and summed."""

    def __init__(self, model: TorchDiscriminator, l2_norm_clip: float) -> None:
        self.model, self.clip = GradSampleModule(model, loss_reduction="sum"), l2_norm_clip

    def __call__(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.model.zero_grad()
        losses(self.model(x, y), y).sum().backward()
        samples = {name: p.grad_sample for name, p in self.model.named_parameters()}
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in samples.values()], dim=1).norm(dim=1)
        factors = (self.clip / norms).clamp(max=1.0)
        return {name: torch.einsum("i,i...", factors, g) for name, g in samples.items()}


class Ghost:
    """Opacus' ghost clipping: norms, and a second pass back through weighted losses."""

    def __init__(self, model: TorchDiscriminator, l2_norm_clip: float) -> None:
        self.model = GradSampleModuleFastGradientClipping(
            model, loss_reduction="sum", max_grad_norm=l2_norm_clip, use_ghost_clipping=True
        )

    def __call__(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.model.zero_grad()
        each = losses(self.model(x, y), y)
        each.sum().backward(retain_graph=True)
        factors = self.model.get_clipping_coef()
        self.model.zero_grad()
        self.model.disable_hooks()
        (factors * each).sum().backward()
        self.model.enable_hooks()
        return {name: p.grad for name, p in self.model.named_parameters()}
