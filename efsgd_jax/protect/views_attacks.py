"""The attack report of protected views: NeRFs that the protection has not seen learn from them in several ways."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.protect import nerf
from efsgd_jax.protect.likeness import psnr, ssim
from efsgd_jax.protect.nerf import Views, compiled
from efsgd_jax.protect.output import Measured

# Who learns from protected views: another seed and another width than the protection's own NeRF.
VICTIM = nerf.Options(width=64, depth=3, frequencies=6, samples=24, rays=256, steps=1000, learning_rate=5e-3, seed=1000)
# Adam's first learning rate of cameras that are learned (radians, and parts of the scene's radius).
POSE_RATE = 5e-4
# Steps and learning rate by which held-out cameras are aligned with what was learned.
ALIGNMENT, ALIGNMENT_RATE = 100, 2e-3
# Shares of the views that an attacker has without protection.
MIXED = (0.1, 0.25)
# Most views of a row of a picture.
SHOWN = 8
# A NeRF that shows held-out views this badly after clean views, in dB, has not learned the scene.
WEAK = 22.0
# What victims learn from, as the report names it.
CLEAN, RANDOM, PROTECTED = "clean views", "random flow", "protected views"
SAME_LENGTHS = "random flow of the same lengths"


class Outcome(NamedTuple):
    """What one victim learned.

    Attributes:
      attack: what it learned from, and how.
      psnr: dB, the mean over held-out views as they are, seen from their cameras.
      aligned: the same, after each held-out camera was moved to where what was learned looks most like its view.
      shown: uint8 ``[M, H, W, 3]``, what was learned, seen from the held-out cameras as they are.
    """

    attack: str
    psnr: float
    aligned: float
    shown: np.ndarray


class Report(NamedTuple):
    """All outcomes.

    Attributes:
      outcomes: one for each attack.
      kept: for both random flows and for the protection, the least and mean PSNR, and the least and mean SSIM of the
        views.
    """

    outcomes: tuple[Outcome, ...]
    kept: dict[str, tuple[float, float, float, float]]

    def of(self, attack: str) -> Outcome:
        """The outcome of one attack, by its name."""
        return next(o for o in self.outcomes if o.attack == attack)

    @property
    def drop(self) -> float:
        """By how many dB held-out PSNR is lower for protected views than for clean ones."""
        return self.of(CLEAN).psnr - self.of(PROTECTED).psnr

    @property
    def weak(self) -> bool:
        """Whether the victim did not learn the scene from clean views either, so that its numbers say little."""
        return self.of(CLEAN).psnr < WEAK

    @property
    def more_than_random(self) -> float:
        """By how many dB held-out PSNR is lower for protected views than for randomly warped ones, as visible."""
        return self.of(RANDOM).psnr - self.of(PROTECTED).psnr


def attack(
    clean: Views,
    bent: dict[str, Views],
    held_out: Views,
    *,
    victim: nerf.Options = VICTIM,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Trains victims and measures them on held-out views.

    Args:
      clean: the views as they are.
      bent: the same, warped: ``PROTECTED``; ``RANDOM``, by random flow of the protection's radius and under the same
        bounds on what views keep; and ``SAME_LENGTHS``, by random flow whose displacements are as long as those of the
        protection, and which keeps what it keeps.
      held_out: clean views from other cameras.
      victim: the NeRF, and how it is trained.
      seed: decides on the victim's weights and on which views are mixed in.
      say: is told of each attack that ends.
    """
    victim = victim._replace(seed=victim.seed + seed)
    refining, protected = victim._replace(pose_learning_rate=POSE_RATE), bent[PROTECTED]
    order = np.random.default_rng(seed).permutation(len(clean.poses))

    def mixed(share: float) -> Views:
        known = order[: max(1, round(share * len(order)))]
        return protected._replace(colours=jnp.asarray(protected.colours).at[known].set(clean.colours[known]))

    attacks = [
        (CLEAN, clean, victim),
        *((name, bent[name], victim) for name in (RANDOM, SAME_LENGTHS, PROTECTED)),
        (f"{CLEAN}, cameras refined", clean, refining),
        (f"{PROTECTED}, cameras refined", protected, refining),
        *((f"{PROTECTED}, {share:.0%} of them replaced by clean ones", mixed(share), victim) for share in MIXED),
    ]
    outcomes = []
    for name, views, options in attacks:
        outcomes.append(measure(name, views, held_out, options))
        say(f"{name}: {outcomes[-1].psnr:.1f} dB, {outcomes[-1].aligned:.1f} dB with held-out cameras aligned")
    kept = {name: _kept(bent[name], clean) for name in (RANDOM, SAME_LENGTHS, PROTECTED)}
    return Report(tuple(outcomes), kept)


def measure(attack: str, views: Views, held_out: Views, options: nerf.Options) -> Outcome:
    """What a NeRF that learned from ``views`` shows of held-out views."""
    params = nerf.fit(views, options).learned["params"]
    poses = compiled(align)(params, held_out, options)

    def show(poses: jax.Array) -> jax.Array:
        return compiled(nerf.render_views)(params, poses, held_out.focal, options, held_out.shape)

    shown = show(held_out.poses)
    given, aligned = (float(psnr(x, held_out.colours).mean()) for x in (shown, show(poses)))
    return Outcome(attack, given, aligned, np.round(255 * np.asarray(shown)).astype(np.uint8))


def align(params: nerf.PyTree, held_out: Views, options: nerf.Options) -> jax.Array:
    """The cameras of held-out views, moved to where the NeRF looks most like them, by Adam on random rays."""
    shape, colours = held_out.shape, held_out.colours.reshape(-1, 3)
    pixels = shape[0] * shape[1]
    adam = optax.adam(optax.cosine_decay_schedule(ALIGNMENT_RATE, ALIGNMENT, 0.05))

    def step(carry: nerf.PyTree, key: jax.Array) -> tuple[nerf.PyTree, None]:
        twists, state = carry
        rays = jax.random.randint(key, (2 * options.rays,), 0, len(colours))

        def loss(twists: jax.Array) -> jax.Array:
            poses = nerf.moved(held_out.poses, twists)[rays // pixels]
            origins, directions = nerf.rays_of(poses, rays % pixels, shape, held_out.focal)
            return jnp.mean(jnp.square(nerf.render(params, options, origins, directions) - colours[rays]))

        change, state = adam.update(jax.grad(loss)(twists), state)
        return (optax.apply_updates(twists, change), state), None

    twists = jnp.zeros((len(held_out.poses), 6))
    keys = jax.random.split(jax.random.key(options.seed + 2), ALIGNMENT)
    (twists, _), _ = jax.lax.scan(step, (twists, adam.init(twists)), keys)
    return nerf.moved(held_out.poses, twists)


def tables(report: Report) -> list[Measured]:
    """The report as tables of ``PROTECTION.md``."""
    first = report.of(CLEAN).psnr
    rows = [(o.attack, o.psnr, first - o.psnr, o.aligned) for o in report.outcomes]
    views = [(name, *numbers) for name, numbers in report.kept.items()]
    return [
        Measured(
            "what a NeRF of another seed and width shows of held-out views (PSNR in dB against clean views)",
            ("learned from", "held-out PSNR", "lower than for clean views by", "held-out cameras aligned"),
            rows,
        ),
        Measured(
            "what the views keep (against the clean ones)",
            ("views", "least PSNR", "mean PSNR", "least SSIM", "mean SSIM"),
            views,
        ),
    ]


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """A picture ``[H, W, 3]`` with the first ``SHOWN`` of each row of pictures uint8 ``[N, H, W, 3]``."""
    gap = 1
    padded = [np.pad(row[:SHOWN], ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=128) for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in padded])[:-gap, :-gap]


def _kept(views: Views, clean: Views) -> tuple[float, float, float, float]:
    ratios, likeness = psnr(views.colours, clean.colours), ssim(views.colours, clean.colours)
    return float(ratios.min()), float(ratios.mean()), float(likeness.min()), float(likeness.mean())
