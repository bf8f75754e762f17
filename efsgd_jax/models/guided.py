"""Guided sampling: classifier-free guidance that notices a memorised condition and is turned away from it (PRSS).

Let e_c be the noise that a diffusion model predicts for a noisy image under the condition c, e_0 the one without a
condition, and s the scale of guidance. Ordinary guidance (Ho, Salimans, 2022, arXiv 2207.12598) is ``e_0 + s (e_c -
e_0)``. Where c leads to a single training image, ``|e_c - e_0|`` is large from the first step on (Wen et al., 2024,
arXiv 2407.21720). PRSS (Chen et al., 2025, arXiv 2504.18032) then searches an alternative c', and guides by::

    e = e_c + s' (e_c' - e_c) + (s - s') (e_c' - e_0),   s' = min(1 + (s - 1) (m - t) / (M - t), s),   m = |e_c' - e_0|

for m > t: away from c itself from M on, and at t ordinary guidance to c', which is what it is for m <= t.

All weights of e add up to one, so that the same formula holds for predictions of the clean image.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.errors import UserError
from efsgd_jax.models.alternatives import MOST_ALTERNATIVES, Alternatives

# denoiser(x, sigma, condition) -> prediction, for [B, ...], [B] and [B, d].
Denoiser = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def of_images(sigma: jax.Array) -> jax.Array:
    """The factor from a difference of clean images x_0 to one of noise, of a denoiser of ``x = x_0 + sigma noise``."""
    return 1 / sigma


@dataclasses.dataclass(frozen=True)
class Policy:
    """When a condition counts as memorised, and how sampling is turned away from it.

    Magnitudes are root mean squares over the dimensions of a sample, so that they do not depend on the images' size:
    the norms of the paper's code, of latents of 16384 dimensions, are 128 times as large (its t = 3 and M = 5 are 0.023
    and 0.039 here).

    Attributes:
      scale: scale s of guidance, at least 1, which is none.
      threshold: lambda, above 0; larger magnitudes at the first step trigger the search, which takes the first
        alternative that is not above it. ``inf`` never triggers.
      anchor_from: magnitude t of the alternative, at least 0, above which guidance begins to turn away from c.
      anchor_to: magnitude M, above t, from which on it turns away in full.
      alternatives: ``alternatives(condition)`` are at most 25 other conditions, ``[A, d]`` for one of shape ``[d]``, in
        the order of the search; see ``models.alternatives``.
      noise_factor: ``noise_factor(sigma)`` times a difference of predictions is one of noise: ``of_images``, or
        ``jnp.ones_like`` for a denoiser that predicts the noise.

    Raises:
      UserError: a value out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.models.alternatives import mixtures
      >>> from efsgd_jax.models.guided import Policy
      >>> policy = Policy(scale=2.0, threshold=0.5, anchor_from=0.5, anchor_to=1.0, alternatives=mixtures(jnp.eye(3)))
    """

    scale: float
    threshold: float
    anchor_from: float
    anchor_to: float
    alternatives: Alternatives
    noise_factor: Callable[[jax.Array], jax.Array] = of_images

    def __post_init__(self) -> None:
        rules = (
            ("scale", self.scale, 1 <= self.scale < math.inf, "a number of at least 1"),
            ("threshold", self.threshold, self.threshold > 0, "above 0"),
            ("anchor_from", self.anchor_from, 0 <= self.anchor_from < math.inf, "a number of at least 0"),
            (
                "anchor_to",
                self.anchor_to,
                self.anchor_from < self.anchor_to < math.inf,
                f"a number above anchor_from, which is {self.anchor_from:g}",
            ),
        )
        for name, value, valid, wanted in rules:
            if not valid:
                raise UserError(f"{name} of the guidance policy is {value:g}; it must be {wanted}")
        for name in ("alternatives", "noise_factor"):
            if not callable(getattr(self, name)):
                raise UserError(f"{name} of the guidance policy is {getattr(self, name)!r}; it must be a function")


class Decision(NamedTuple):
    """What the first step of sampling decided for each sample.

    Attributes:
      condition: the condition c, ``[B, d]``.
      alternative: the condition c', ``[B, d]``; c itself where nothing was triggered.
      magnitude: root mean square of e_c - e_0, float32 ``[B]``.
      alternative_magnitude: that of e_c' - e_0, float32 ``[B]``.
      triggered: whether the magnitude is above the threshold, bool ``[B]``.
    """

    condition: jax.Array
    alternative: jax.Array
    magnitude: jax.Array
    alternative_magnitude: jax.Array
    triggered: jax.Array


class Guided(NamedTuple):
    """The two functions of guided sampling, see ``guided``.

    Attributes:
      decide: ``decide(x, sigma, condition) -> Decision``, for the noise from which sampling begins.
      denoise: ``denoise(x, sigma, decision) -> prediction`` ``[B, ...]``, for every step.
    """

    decide: Callable[[jax.Array, jax.Array, jax.Array], Decision]
    denoise: Callable[[jax.Array, jax.Array, Decision], jax.Array]


def guided(denoiser: Denoiser, policy: Policy, null: jax.Array | None = None) -> Guided:
    """Guidance by a policy, for any denoiser; pure functions, for ``jit``, ``scan`` and ``vmap``.

    Samples that trigger nothing are those of ordinary guidance (``classifier_free``), whatever else is in their batch.
    A compiler may round the two programs differently, though, in the last bits.

    Args:
      denoiser: ``denoiser(x, sigma, condition)`` predicts the clean images, or the noise, of ``x = x_0 + sigma noise``;
        float ``[B, ...]`` of any dtype, float ``[B]``, and conditions float ``[B, d]``, such as one-hot vectors or
        embeddings of classes, and what lies between them. Each prediction depends on its own sample only.
      policy: when a condition counts as memorised, and what happens then.
      null: the condition that is none, ``[d]``; zeros if None.

    Returns:
      ``decide`` for the first step and ``denoise`` for all. The first needs a prediction for each alternative that is
      tried, and none without a trigger. The second needs three predictions in each step, ordinary guidance two.

    Raises:
      UserError: when called, for alternatives whose shape is not ``[A, d]`` with A from 1 to 25.

    Formal guarantees:
      It is post-processing of the denoiser: epsilon is unchanged, whatever it was. It does not make a model private
      that is not: who has its weights, or calls it without this, gets the memorised images. The threshold is
      heuristic. Memorised images that do not raise the magnitude pass, and so do conditions that someone has chosen in
      order not to raise it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.models.alternatives import mixtures
      >>> from efsgd_jax.models.guided import Policy, guided
      >>> def denoiser(x, sigma, condition):  # the second class is a single image of 9s
      ...     return condition @ jnp.array([[1.0], [9.0]]) + 0 * x
      >>> policy = Policy(2.0, threshold=2.0, anchor_from=2.0, anchor_to=4.0, alternatives=mixtures(jnp.eye(2)))
      >>> sampler = guided(denoiser, policy)
      >>> x, sigma = jnp.zeros((2, 1)), jnp.full(2, 2.0)
      >>> decision = sampler.decide(x, sigma, jnp.eye(2))
      >>> print(decision.triggered, decision.alternative[1].round(2))
      [False  True] [0.75 0.25]
      >>> print(sampler.denoise(x, sigma, decision).ravel())
      [2. 6.]
    """

    def none_like(condition: jax.Array) -> jax.Array:
        return jnp.zeros_like(condition) if null is None else jnp.broadcast_to(null, condition.shape)

    def magnitude(prediction: jax.Array, without: jax.Array, sigma: jax.Array) -> jax.Array:
        difference = prediction.astype(jnp.float32) - without.astype(jnp.float32)
        rms = jnp.sqrt(jnp.mean(jnp.square(difference), axis=range(1, difference.ndim)))
        return policy.noise_factor(sigma.astype(jnp.float32)) * rms

    def decide(x: jax.Array, sigma: jax.Array, condition: jax.Array) -> Decision:
        without = denoiser(x, sigma, none_like(condition))
        found = magnitude(denoiser(x, sigma, condition), without, sigma)
        triggered = found > policy.threshold
        alternatives = _alternatives(policy, condition)

        def searching(least: jax.Array) -> jax.Array:
            return triggered & (least > policy.threshold)

        def searches(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            i, _, least = state
            return (i < alternatives.shape[1]) & jnp.any(searching(least))

        def search(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            i, chosen, least = state
            tried = alternatives[:, i]
            m = magnitude(denoiser(x, sigma, tried), without, sigma)
            better = searching(least) & (m < least)
            return i + 1, jnp.where(better[:, None], tried, chosen), jnp.where(better, m, least)

        # The first alternative is better than none, however large its magnitude is.
        start = jnp.int32(0), condition, jnp.full_like(found, jnp.inf)
        _, chosen, least = jax.lax.while_loop(searches, search, start)
        return Decision(condition, chosen, found, jnp.where(triggered, least, found), triggered)

    def denoise(x: jax.Array, sigma: jax.Array, decision: Decision) -> jax.Array:
        with_c, without = denoiser(x, sigma, decision.condition), denoiser(x, sigma, none_like(decision.condition))
        other = denoiser(x, sigma, decision.alternative)
        m = magnitude(other, without, sigma).reshape(-1, *[1] * (x.ndim - 1))
        # The extra prediction is made without a trigger, too: with a conditional around it the compiler rounds
        # what follows differently, and no sample would be bit for bit that of ordinary guidance.
        plain = classifier_free(with_c, without, policy.scale)
        away = reanchored(with_c, other, without, m, policy).astype(plain.dtype)
        return jnp.where(decision.triggered.reshape(m.shape), away, plain)

    return Guided(decide, denoise)


def classifier_free(with_c: jax.Array, without: jax.Array, scale: float) -> jax.Array:
    """Ordinary guidance, ``e_0 + s (e_c - e_0)``: predictions with the condition and without one, of one shape.

    Examples:
      >>> from efsgd_jax.models.guided import classifier_free
      >>> classifier_free(3.0, 1.0, scale=2.5)
      6.0
    """
    return without + scale * (with_c - without)


def reanchored(
    with_c: jax.Array, with_alternative: jax.Array, without: jax.Array, magnitude: jax.Array, policy: Policy
) -> jax.Array:
    """The predictions e of the module's formula: ordinary guidance to c' up to t, in full away from c from M on.

    Args:
      with_c: predictions e_c, ``[B, ...]``.
      with_alternative: predictions e_c'.
      without: predictions e_0.
      magnitude: m, of a shape that broadcasts to theirs.
      policy: s, t and M.

    Returns:
      Float32 ``[B, ...]``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.models.alternatives import mixtures
      >>> from efsgd_jax.models.guided import Policy, reanchored
      >>> policy = Policy(3.0, threshold=1.0, anchor_from=1.0, anchor_to=2.0, alternatives=mixtures(jnp.eye(3)))
      >>> c, other, none = jnp.array(9.0), jnp.array(2.0), jnp.array(1.0)
      >>> [float(reanchored(c, other, none, jnp.array(m), policy)) for m in (0.5, 1.0, 1.5, 2.0, 7.0)]
      [4.0, 4.0, -4.0, -12.0, -12.0]
    """
    s, t, end = policy.scale, policy.anchor_from, policy.anchor_to
    away = jnp.clip(1 + (s - 1) * (magnitude - t) / (end - t), 1, s)
    c, other, none = (e.astype(jnp.float32) for e in (with_c, with_alternative, without))
    return c + away * (other - c) + (s - away) * (other - none)


def _alternatives(policy: Policy, condition: jax.Array) -> jax.Array:
    """``[B, A, d]``."""
    found = jax.vmap(policy.alternatives)(condition)
    if found.ndim != 3 or found.shape[2] != condition.shape[1] or not 1 <= found.shape[1] <= MOST_ALTERNATIVES:
        raise UserError(
            f"the guidance policy's alternatives of a condition of shape {condition.shape[1:]} have shape "
            f"{found.shape[1:]}; they must be 1 to {MOST_ALTERNATIVES} conditions of that shape"
        )
    return found
