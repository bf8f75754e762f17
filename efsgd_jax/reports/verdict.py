"""The verdict in words at the top of a page: privacy, use, variety and copies, with the thresholds of each word."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.data.facts import NEAR, reduced
from efsgd_jax.evaluation.gross_differences import not_recognised, taken_for_others
from efsgd_jax.evaluation.metrics.neighbours import RELEVANT, SIGNIFICANT
from efsgd_jax.privacy.mechanism import IMAGE, REGION
from efsgd_jax.reports.formats import epsilon_shown, percent
from efsgd_jax.reports.scores import interval, leading, title_of
from efsgd_jax.reports.sections import Section
from efsgd_jax.runs.likely import LIMITED, SOMEWHAT, USEFUL, VARIED, use_word, variety_word
from efsgd_jax.runs.statement import (
    FALSE_POSITIVE_RATE,
    NO_OTHER_LEVEL,
    delta_of_two,
    detection_bound,
    guarantee_of_two,
)

# The largest epsilon of each word for privacy.
STRONG, MODERATE, WEAK = 1.0, 3.0, 10.0
# True positive rate above which the bound on attacks is not stated.
NO_LIMIT = 0.9
# Delta of two images of one person above which nothing worth the name is guaranteed for them.
HARDLY_RARE = 0.01
# Share of generated images with a nearly identical one of the same class above which variety is poor.
ALIKE = 0.2
# The tone of the words for use and variety.
TONES = {"good": "good", "fair": "caution", "limited": "caution", "poor": "bad"}
# A number of test images below which a score is said to be uncertain.
FEW_TEST_IMAGES = 500
# The end of the word for privacy where it was not declared who is in which image, and what that means.
FOR_ONE_IMAGE = " for one image"
NO_PERSONS = (
    "settle first who is in which image, which was not declared: a person in several images is protected less, and one "
    "in many hardly at all"
)
# The end of the word for privacy where only a region of each image is protected.
FOR_ONE_REGION = " for the region alone"
# The word of a line that nothing was measured for.
NOT_KNOWN = "not known"


class Judgement(NamedTuple):
    """One line of the verdict.

    Attributes:
      what: what is judged.
      word: the judgement; "not known" if nothing was measured.
      tone: "good", "caution" (between good and bad) or "bad"; "" where nothing is judged.
      sentence: the measurement behind it.
      rule: the thresholds of the words.
      covered: whether it depends on what was released alone, so that epsilon covers it.
    """

    what: str
    word: str
    tone: str
    sentence: str
    rule: str
    covered: bool = False


def verdict_section(
    privacy: Mapping[str, Any], scores: Mapping[str, Any] | None, drawn: np.ndarray, labels: np.ndarray, command: str
) -> Section:
    """The section with the verdict.

    Args:
      privacy: content of ``privacy.json``.
      scores: content of ``private/scores.json``, empty if there are none or they are of another generator; None for a
        page to publish, which has no scores.
      drawn: generated images, uint8 ``[n, S, S, C]``, from a public seed.
      labels: their classes, int ``[n]``.
      command: the command that computes scores.
    """
    found = [_privacy(privacy)]
    alike = alike_share(drawn, labels)
    if scores is None:
        found.append(_repetition(alike))
    else:
        scores = leading(scores)
        found += [_use(scores, command), _variety(scores, alike, command), _copies(scores, command)]
    data = {"judgements": found, "in_short": in_short(found) if scores is not None else ""}
    return Section("verdict", "Verdict", "verdict.html", data, covered_by_epsilon=scores is None)


def in_short(judgements: Sequence[Judgement]) -> str:
    """One sentence for all lines: what to settle, what speaks against publishing, what to weigh, what is not known yet.

    Privacy and copies are about those who are in the real images, and may speak against publishing. Use and variety are
    about the worth of the generated ones.
    """

    def those(tones: tuple[str, ...], about_people: bool) -> str:
        found = [j for j in judgements if j.tone in tones and (j.what in ("Privacy", "Copies")) == about_people]
        return ", ".join(f"{j.what.lower()} ({j.word})" for j in found)

    against, weighed, limits = those(("bad",), True), those(("caution",), True), those(("bad", "caution"), False)
    unknown = ", ".join(j.what.lower() for j in judgements if j.word == NOT_KNOWN)
    parts = [NO_PERSONS] if any(j.word.endswith(FOR_ONE_IMAGE) for j in judgements) else []
    other = "else " if parts else ""
    parts += [f"against publishing: {against}" if against else f"nothing {other}below speaks against publishing"]
    parts += [f"to be weighed: {weighed}"] if weighed else []
    parts += [f"limits of the images: {limits}"] if limits else []
    parts += [f"not known yet: {unknown}"] if unknown else []
    return f"In short: {'; '.join(parts)}."


def alike_share(images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that have a nearly identical one in the same class."""
    alike = 0
    for label in np.unique(labels):
        own = reduced(images[labels == label])
        apart = np.sqrt(np.mean(np.square(own[:, None] - own[None]), axis=-1))
        np.fill_diagonal(apart, np.inf)
        alike += int((apart.min(axis=1) < NEAR).sum()) if len(own) > 1 else 0
    return alike / max(len(images), 1)


def _privacy(privacy: Mapping[str, Any]) -> Judgement:
    rule = f"strong up to epsilon {STRONG:g}, moderate up to {MODERATE:g}, weak up to {WEAK:g}"
    if not privacy["guarantee"]:
        return Judgement(
            "Privacy", "none", "bad", f"There is no guarantee: {privacy['reason_for_no_guarantee']}.", rule, True
        )
    epsilon, delta = float(privacy["epsilon"]), privacy["delta"]
    words = ((STRONG, "strong", "good"), (MODERATE, "moderate", "good"), (WEAK, "weak", "caution"))
    word, tone = next(((w, t) for limit, w, t in words if epsilon <= limit * (1 + 1e-9)), ("hardly any", "bad"))
    if privacy.get("unit") == IMAGE:  # nobody has said who is in which image
        word, tone = word + FOR_ONE_IMAGE, "caution" if word == "moderate" else tone
    if privacy.get("unit") == REGION:
        word, tone = word + FOR_ONE_REGION, "caution" if tone == "good" else tone
    bound = detection_bound(epsilon, delta)
    sentence = f"Epsilon is {epsilon_shown(epsilon)} at delta {delta:g}, for {privacy.get('unit', 'one image')}. "
    if bound > NO_LIMIT:
        sentence += (
            "So large an epsilon alone hardly limits attacks: it allows an attack that recognises nearly all that were "
            "used."
        )
    else:
        sentence += (
            f"Of those that were used, an attack recognises at most {math.ceil(1000 * bound) / 10:.1f}%, if it wrongly "
            f"takes {100 * FALSE_POSITIVE_RATE:g}% of the others for used."
        )
    if privacy.get("unit") == IMAGE:
        left = "next to nothing is guaranteed" if delta_of_two(epsilon, delta) > HARDLY_RARE else "it is weaker"
        two = guarantee_of_two(epsilon, delta)
        sentence += (
            f" Persons were not declared: for two images of one person {left}, {two}, and for more of them less still."
        )
    if privacy.get("unit") == REGION:
        sentence += f" {NO_OTHER_LEVEL}"
    return Judgement("Privacy", word, tone, sentence, rule, True)


def _unknown(what: str, command: str, rule: str) -> Judgement:
    return Judgement(what, NOT_KNOWN, "", f"It was not measured; run {command}", rule, True)


def _use(scores: Mapping[str, Any], command: str) -> Judgement:
    real = scores.get("fidelity", {}).get("classifier", {}).get("real_accuracy")
    best_possible = "always being right" if real is None else "a CNN that was trained on real images"
    rule = (
        f"good from {100 * USEFUL:g}% of the way from guessing to {best_possible}, fair from {100 * SOMEWHAT:g}%, "
        "else poor"
    )
    gen2real = {c: u for c, u in scores.get("gen2real", {}).items() if u.get("accuracy") is not None}
    if not gen2real:
        return _unknown("Use", command, rule)
    classifier, best = max(gen2real.items(), key=lambda item: item[1]["accuracy"])
    if real is not None and "cnn" in gen2real:  # the same classifier on both sides
        classifier, best = "cnn", gen2real["cnn"]
    guessing = 1 / max(len(best.get("per_class", {})), 2)
    way = (best["accuracy"] - guessing) / max((1.0 if real is None else real) - guessing, 1e-9)
    word = use_word(way)
    tone = TONES[word]
    sentence = (
        f"A classifier ({title_of(classifier)}) that was trained on generated images alone is right for "
        f"{percent(best['accuracy'])}% of the real test images; guessing would be {percent(guessing)}%."
    )
    by_class = {name: share for name, share in best.get("per_class", {}).items() if share is not None}
    if len(by_class) > 1:
        worst = min(by_class, key=by_class.__getitem__)
        sentence += f" Of the real images of class {worst} it is right for only {percent(by_class[worst])}%."
    if real is not None:
        sentence += f" A CNN that was trained on the real ones is right for {percent(real)}%."
        if classifier != "cnn" and way < USEFUL:
            word, tone = NOT_KNOWN, ""
            sentence += (
                " These are two kinds of classifier, and the first may be unable to show more even of real images; "
                "`efsgd evaluate` with --classifiers=cnn compares one kind."
            )
    unseen = not_recognised(scores.get("real2gen", {}).get(classifier, {}).get("per_class", {}))
    if unseen:
        sentence += f" The other way round, a classifier that was trained on real images {taken_for_others(unseen)}."
    if word == "poor":
        sentence += " Publish such images as a sample of the method, or not at all."
    n = best.get("num_test")
    if n and n < FEW_TEST_IMAGES:
        low, high = interval(best["accuracy"], n)
        sentence += f" With {n} test images it may also be {100 * low:.0f} to {100 * high:.0f}%."
    return Judgement("Use", word, tone, sentence, rule)


def _variety(scores: Mapping[str, Any], alike: float, command: str) -> Judgement:
    rule = (
        f"good from a recall of {VARIED:g}, limited from {LIMITED:g}, else poor; poor if more than {100 * ALIKE:g}% of "
        "the images shown below have a nearly identical one"
    )
    recall = scores.get("fidelity", {}).get("classifier", {}).get("recall")
    if recall is None:
        return _unknown("Variety", command, rule) if alike <= ALIKE else _repetition(alike)
    word = "poor" if alike > ALIKE else variety_word(recall)
    tone = TONES[word]
    shown = f"{recall:.{3 if recall < LIMITED else 2}f}"
    sentence = (
        f"Recall is {shown}: that share of real images lies within what the generated ones cover, as a classifier of "
        "real images sees them."
    )
    compared = scores["fidelity"]["classifier"].get("num_images")
    if compared:
        low, high = interval(recall, int(compared))
        if any(low < limit <= high for limit in (VARIED, LIMITED)):
            sentence += f" With {int(compared):,} images it may also be {low:.3f} to {high:.3f}: near a limit."
    sentence += f" Of the images shown below, {percent(alike)}% have a nearly identical one of the same class."
    return Judgement("Variety", word, tone, sentence, rule)


def _repetition(alike: float) -> Judgement:
    """Of the images alone. It says little of variety, which is judged by comparing with real ones."""
    word, tone = ("much", "bad") if alike > ALIKE else ("none seen", "")
    sentence = f"Of the images shown below, {percent(alike)}% have a nearly identical one of the same class."
    rule = f"much if they are more than {100 * ALIKE:g}%; whether all kinds of real images occur is not judged here"
    return Judgement("Repetition", word, tone, sentence, rule, True)


def _copies(scores: Mapping[str, Any], command: str) -> Judgement:
    rule = (
        f"flagged if more generated images are nearest to a training image than chance explains: {SIGNIFICANT:g} "
        f"standard deviations more, and so many that at least {100 * RELEVANT:g}% would have to be copies"
    )
    copying = scores.get("copying", {})
    if copying.get("flagged") is None:
        return _unknown("Copies", command, rule)
    exact = copying.get("exact_copies") or 0
    if copying["flagged"]:
        return Judgement(
            "Copies", "flagged", "bad", "Generated images are closer to training images than new ones would be.", rule
        )
    sentence = "Generated images are no closer to training images than to held-out ones, beyond what chance explains."
    if exact:
        sentence += f" {exact:,} of them are a training image to the last pixel, as blank ones may be."
    return Judgement("Copies", "none found", "good", sentence, rule)
