"""The published family as a person would write it in PyTorch: networks, and a plain loop over discriminators.

A peer for ``generator_step.py``; the layers are those of ``efsgd_jax/models``, one by one.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.critic import STAGES
from efsgd_jax.models.sizes import base_and_stages, stage_widths
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters

SPEC = ImageSpec(28, 1, 10)


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class TorchBlock(nn.Module):
    """``efsgd_jax.models.generator.UpsamplingBlock`` without noise injection."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.skip = nn.Conv2d(channels, features, 1)
        self.first = nn.Conv2d(channels, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(upsample(act(pixel_norm(x))))
        return upsample(self.skip(x)) + self.second(act(pixel_norm(h)))


class TorchGenerator(nn.Module):
    """``efsgd_jax.models.generator.Generator``."""

    def __init__(self, spec: ImageSpec, hp: Hyperparameters):
        super().__init__()
        self.base, stages = base_and_stages(spec.image_size)
        widths = stage_widths(hp.generator_width, stages, hp.max_width)[::-1]
        self.num_classes = spec.num_classes
        self.dense = nn.Linear(hp.latent + spec.num_classes, self.base**2 * widths[0])
        self.blocks = nn.Sequential(*(TorchBlock(c, f) for c, f in itertools.pairwise(widths)))
        self.last = nn.Conv2d(widths[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        label = z.shape[1] ** 0.5 * F.one_hot(labels, self.num_classes).to(z.dtype)
        h = self.dense(torch.cat([z, label], 1))
        h = self.blocks(h.reshape(len(z), -1, self.base, self.base))
        return torch.tanh(self.last(act(pixel_norm(h))))

    def load(self, params: Any) -> None:
        """Takes the values of Flax's parameters."""
        dense = params["Dense_0"]
        for ours, theirs in ((dense["kernel"], self.dense.weight), (dense["bias"][None], self.dense.bias)):
            channels_first = np.asarray(ours).reshape(len(ours), self.base, self.base, -1).transpose(0, 3, 1, 2)
            _set(theirs, channels_first.reshape(len(ours), -1).T.reshape(theirs.shape))
        for i, block in enumerate(self.blocks):
            for j, conv in enumerate((block.skip, block.first, block.second)):
                _set_conv(conv, params[f"UpsamplingBlock_{i}"][f"Conv_{j}"])
        _set_conv(self.last, params["Conv_0"])


class TorchCritic(nn.Module):
    """``efsgd_jax.models.critic.Critic``."""

    def __init__(self, spec: ImageSpec, width: int):
        super().__init__()
        channels = [spec.channels, *(width * 2**i for i in range(STAGES))]
        self.trunk = nn.ModuleList(nn.Conv2d(c, f, 5, stride=2, padding=2) for c, f in itertools.pairwise(channels))
        self.side = -(-spec.image_size // 2**STAGES)
        features = self.side**2 * channels[-1]
        self.embedding, self.head = nn.Embedding(spec.num_classes, features), nn.Linear(features, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        for conv in self.trunk:
            x = act(conv(x))
        phi = x.flatten(1)
        return self.head(phi)[:, 0] + (self.embedding(labels) * phi).sum(1)

    def load(self, params: Any) -> None:
        """Takes the values of Flax's parameters."""
        for i, conv in enumerate(self.trunk):
            _set_conv(conv, params["StridedTrunk_0"][f"Conv_{i}"])
        head = params["Dense_0"]
        rows = (params["Embed_0"]["embedding"], self.embedding.weight), (head["kernel"].T, self.head.weight)
        for ours, theirs in rows:
            image = np.asarray(ours).reshape(len(ours), self.side, self.side, -1)
            _set(theirs, image.transpose(0, 3, 1, 2).reshape(theirs.shape))
        _set(self.head.bias, head["bias"])


def _set(parameter: nn.Parameter, value: Any) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.asarray(value)))


def _set_conv(conv: Any, params: Any) -> None:
    _set(conv.weight, np.asarray(params["kernel"]).transpose(3, 2, 0, 1))
    _set(conv.bias, params["bias"])


def critics_of(state: Any) -> Any:
    """Parameters of all shards' critics, leading axis K, out of the wrapper that keeps a phase from reading them."""
    return state.members._value.critic


class PlainLoop:
    """The same method as a person would write it in PyTorch, after the published code.

    Args:
      state: ours, to begin with the same parameters.
      images: uint8 ``[N, S, S, C]``.
      labels: int ``[N]``.
    """

    def __init__(self, hp: Hyperparameters, mechanism: ShardMechanism, state: Any, images: Any, labels: Any):
        self.hp, self.mechanism, self.steps = hp, mechanism, 0
        self.images = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.tensor(labels, dtype=torch.long)
        shard = torch.randint(mechanism.num_shards, (len(labels),))
        self.shards = [torch.nonzero(shard == k)[:, 0] for k in range(mechanism.num_shards)]
        self.generator = TorchGenerator(SPEC, hp)
        self.generator.load(jax.device_get(state.params)["params"])
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        betas = (hp.adam_b1, hp.adam_b2)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), hp.generator_learning_rate, betas)
        self.critics = [TorchCritic(SPEC, hp.critic_width) for _ in range(mechanism.num_shards)]
        members = jax.device_get(critics_of(state)["params"])
        for k, critic in enumerate(self.critics):
            critic.load(jax.tree.map(lambda x, k=k: x[k], members))
        critic_rate = hp.critic_learning_rate
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), critic_rate, betas) for c in self.critics]

    def step(self) -> Tensor:
        training, scoring = self.turn()
        for k in training:
            self.train_critic(k)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.in_parameters(scoring) if self.mechanism.schedule == "parameter" else self.in_images(scoring)
        self.optimizer.step()
        decay = min(self.hp.ema_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for average, parameter in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(parameter, 1 - decay)
        self.steps += 1
        return loss

    def turn(self) -> tuple[list[int], list[int]]:
        m = self.mechanism
        if m.schedule == "published":
            one = torch.randint(m.num_shards, (1,)).tolist()
            return one, one
        if m.schedule == "round_robin":
            return [self.steps % m.num_shards], [self.steps % m.num_shards]
        training = [(self.steps * m.trained_per_step + i) % m.num_shards for i in range(m.trained_per_step)]
        if m.schedule == "independent":
            return training, torch.randint(m.num_shards, (m.images_per_step,)).tolist()
        return training, torch.randperm(m.num_shards)[: m.judges_per_step].tolist()

    def latent(self, n: int) -> Tensor:
        shape = (n, self.hp.latent)
        return torch.randint(2, shape).float() if self.hp.latent_prior == "bernoulli" else torch.randn(shape)

    def train_critic(self, k: int) -> None:
        for _ in range(self.hp.critic_steps):
            rows = self.shards[k][torch.randint(len(self.shards[k]), (self.hp.critic_batch_size,))]
            real, labels = self.images[rows].float() / 127.5 - 1, self.labels[rows]
            with torch.no_grad():
                fake = self.generator(self.latent(len(rows)), labels)
            loss = self.critic_loss(self.critics[k], real, fake, labels, torch.rand(len(rows), 1, 1, 1))
            self.critic_optimizers[k].zero_grad(set_to_none=True)
            loss.backward()
            self.critic_optimizers[k].step()

    def critic_loss(self, critic: TorchCritic, real: Tensor, fake: Tensor, labels: Tensor, mix: Tensor) -> Tensor:
        on_real, on_fake = critic(torch.cat([real, fake]), labels.repeat(2)).chunk(2)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between, labels).sum(), between, create_graph=True)
        penalty = ((slope.square().sum((1, 2, 3)) + 1e-12).sqrt() - 1).square().mean()
        return (
            on_fake.mean()
            - on_real.mean()
            + self.hp.gradient_penalty * penalty
            + self.hp.logit_penalty * on_real.square().mean()
        )

    def in_images(self, scoring: Sequence[int]) -> Tensor:
        """One image for each scoring shard, or all for one."""
        m = self.mechanism
        labels = torch.randint(SPEC.num_classes, (m.images_per_step,))
        fakes = self.generator(self.latent(m.images_per_step), labels)
        scored = fakes.detach().requires_grad_()
        parts = zip(scoring, scored.chunk(len(scoring)), labels.chunk(len(scoring)), strict=True)
        loss = -torch.cat([self.critics[k](x, y) for k, x, y in parts]).sum()
        (gradient,) = torch.autograd.grad(loss, scored)
        lengths = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
        clipped = gradient * (m.l2_norm_clip / lengths).clamp_max(1)[:, None, None, None]
        noise = 2 * m.l2_norm_clip * m.noise_multiplier * torch.randn_like(clipped)
        fakes.backward((clipped + noise) / m.images_per_step)
        return loss.detach()

    def in_parameters(self, scoring: Sequence[int]) -> Tensor:
        m, parameters, losses = self.mechanism, list(self.generator.parameters()), []
        total = [torch.zeros_like(p) for p in parameters]
        for k in scoring:
            labels = torch.randint(SPEC.num_classes, (m.images_per_step // len(scoring),))
            loss = -self.critics[k](self.generator(self.latent(len(labels)), labels), labels).mean()
            gradient = torch.autograd.grad(loss, parameters)
            length = torch.stack([g.norm() for g in gradient]).norm().clamp_min(1e-12)
            scale = (m.l2_norm_clip / length).clamp_max(1)
            for t, g in zip(total, gradient, strict=True):
                t += scale * g
            losses.append(loss.detach())
        for p, t in zip(parameters, total, strict=True):
            p.grad = (t + 2 * m.l2_norm_clip * m.noise_multiplier * torch.randn_like(t)) / len(scoring)
        return torch.stack(losses).mean()
