"""The description of a run with shards for reports: its sampler, three accountings, and why nothing may be proven."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.hidden_split import split_of
from efsgd_jax.privacy.mechanism import REPLACE, Description
from efsgd_jax.synthesizers.sanitized_gan.published_accounting import ACCOUNTINGS, accountings

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

SAMPLERS = {
    "published": "one shard at random in each step, which trains and scores all images",
    "round_robin": "one shard in public turn in each step, which trains and scores all images",
    "independent": "every image is scored by a shard chosen at random; shards train in public turn",
    "parameter": "a random subset of shards scores the images of each step; shards train in public turn",
}


def describe(mechanism: "ShardMechanism", steps: int, delta: float, epsilon_spent: float) -> Description:
    """Describes a run that took ``steps`` steps and spent ``epsilon_spent`` at ``delta``."""
    by_name = accountings(mechanism, steps, delta, epsilon_spent)
    unproven = mechanism.noise_multiplier > 0 and not mechanism.proven
    return Description(
        summary=_summary(mechanism),
        sampler=SAMPLERS[mechanism.schedule],
        neighbouring_relation=REPLACE,
        sensitivity=2 * float(mechanism.l2_norm_clip),
        parameters=mechanism._asdict(),
        no_guarantee=_unproven(mechanism, by_name) if unproven else "",
        accountings=by_name,
        accounting_meanings={name: ACCOUNTINGS[name] for name in by_name},
    )


def _summary(mechanism: "ShardMechanism") -> str:
    where = "every generated image's gradient" if mechanism.schedule != "parameter" else "each scoring shard's gradient"
    plain = f"gradient-sanitised generator: {where} clipped and noised, discriminators on {mechanism.num_shards} shards"
    if mechanism.feedback == "hidden":
        share = split_of(mechanism)
        return f"{plain}; hidden error feedback, {share:.4f} of the noise's variance on the fresh gradients"
    return plain if mechanism.feedback == "none" else f"{plain}; {mechanism.feedback} error feedback, at no cost"


def _unproven(mechanism: "ShardMechanism", by_name: Mapping[str, float]) -> str:
    """The reason why no epsilon near the target is proven for this mechanism."""
    if mechanism.real_codes:
        return (
            "the reconstruction loss is computed in image space: its gradient contains the generator's derivative at "
            "the code of a real image, which reveals the code, and no accounting covers this"
        )
    return (
        "the schedule is the published code's: all images of a step share one draw of a shard, and that shard's "
        "networks depend on when it was drawn, so that subsampling does not amplify; the published accounting gives "
        f"epsilon {format_epsilon(by_name['as_published'])}, and {format_epsilon(by_name['proven'])} is proven"
    )
