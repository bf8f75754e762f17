"""The verdict at the top of a report page: each word follows from its thresholds, and says what it was measured by."""

import numpy as np
import pytest

from efsgd_jax.reports.verdict import alike_share, verdict_section

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
LABELS = np.arange(40) % 2
PRIVACY = {"guarantee": True, "epsilon": 1.0, "delta": 1e-5, "unit": "one image with its label"}


def scores(accuracy=0.9, recall=0.6, flagged=False, n=2000, exact=0):
    utility = {"accuracy": accuracy, "per_class": {"a": 1.0, "b": 0.95}, "num_test": n}
    return {
        "gen2real": {"cnn": utility, "mlp": {**utility, "accuracy": accuracy - 0.1}},
        "fidelity": {"classifier": {"recall": recall}},
        "copying": {"flagged": flagged, "exact_copies": exact},
    }


def words(found, privacy=PRIVACY, images=IMAGES):
    section = verdict_section(privacy, found, images, LABELS, "COMMAND")
    return {j.what: (j.word, j.tone) for j in section.data["judgements"]}, section


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [
        (0.5, ("strong for one image", "good")),
        (3.0, ("moderate for one image", "caution")),
        (10.0, ("weak for one image", "caution")),
        (10.1, ("hardly any for one image", "bad")),
    ],
)
def test_privacy_by_epsilon(epsilon, expected):
    assert words({}, {**PRIVACY, "epsilon": epsilon})[0]["Privacy"] == expected


def test_a_moderate_guarantee_of_persons_is_good():
    person = {**PRIVACY, "epsilon": 3.0, "unit": "one person with all their images"}
    assert words({}, person)[0]["Privacy"] == ("moderate", "good")


def test_without_a_guarantee_privacy_is_none():
    without = {**PRIVACY, "guarantee": False, "reason_for_no_guarantee": "no noise was added", "epsilon": "inf"}
    found, section = words({}, without)
    assert found["Privacy"] == ("none", "bad")
    assert "no noise was added" in section.data["judgements"][0].sentence


def test_the_bound_on_attacks_is_that_of_the_epsilon():
    sentence = words({})[1].data["judgements"][0].sentence
    assert "for one image with its label" in sentence
    assert "Of those that were used, an attack recognises at most 2.8%, if it wrongly takes 1% of" in sentence
    weak = words({}, {**PRIVACY, "epsilon": 10.0})[1].data["judgements"][0].sentence
    assert "hardly limits attacks" in weak
    assert "next to nothing is guaranteed, epsilon 20 at delta 0.23, and for more" in weak


def test_use_is_measured_from_guessing_and_by_the_best_classifier():
    # Two classes: 0.9 is 80% of the way from one half to one, 0.75 is half of the way.
    assert words(scores(0.9))[0]["Use"] == ("good", "good")
    assert words(scores(0.89))[0]["Use"] == ("fair", "caution")
    assert words(scores(0.74))[0]["Use"] == ("poor", "bad")
    use = next(j for j in words(scores(0.9))[1].data["judgements"] if j.what == "Use")
    assert "(CNN)" in use.sentence
    assert "90.0% of the real test images; guessing would be 50.0%" in use.sentence
    assert "Of the real images of class b it is right for only 95.0%." in use.sentence
    few = next(j for j in words(scores(0.9, n=40))[1].data["judgements"] if j.what == "Use")
    assert "With 40 test images it may also be 77 to 96%" in few.sentence


def test_classes_that_a_classifier_of_real_images_does_not_see_are_named():
    found = scores(0.9)
    found["real2gen"] = {"cnn": {"per_class": {"a": 0.9, "b": 0.1}}}
    use = next(j for j in words(found)[1].data["judgements"] if j.what == "Use")
    assert "trained on real images takes more than 80% of the generated images of b for another class." in use.sentence
    found["real2gen"]["cnn"]["per_class"]["b"] = 0.3
    assert "other way round" not in next(j for j in words(found)[1].data["judgements"] if j.what == "Use").sentence


def test_use_is_measured_against_a_classifier_of_real_images_where_its_accuracy_is_known():
    found = scores(0.83)
    assert words(found)[0]["Use"] == ("fair", "caution")
    found["fidelity"]["classifier"]["real_accuracy"] = 0.9  # 0.33 of 0.4 is more than 80% of the way
    verdict, section = words(found)
    assert verdict["Use"] == ("good", "good")
    use = next(j for j in section.data["judgements"] if j.what == "Use")
    assert "trained on the real ones is right for 90.0%" in use.sentence
    assert [j.covered for j in section.data["judgements"]] == [True, False, False, False]


def test_a_weak_classifier_is_not_set_against_a_cnn_of_real_images():
    found = scores(0.62)
    found["fidelity"]["classifier"]["real_accuracy"] = 0.87
    found["gen2real"] = {"logistic_regression": found["gen2real"].popitem()[1]}
    verdict, section = words(found)
    assert verdict["Use"] == ("not known", "")
    use = next(j for j in section.data["judgements"] if j.what == "Use")
    assert "--classifiers=cnn compares one kind" in use.sentence
    found["gen2real"]["cnn"] = found["gen2real"]["logistic_regression"]
    assert words(found)[0]["Use"] != ("not known", "")


def test_variety_by_recall_and_by_images_that_are_alike():
    assert words(scores(recall=0.5))[0]["Variety"] == ("good", "good")
    assert words(scores(recall=0.3))[0]["Variety"] == ("limited", "caution")
    near = scores(recall=0.52)
    near["fidelity"]["classifier"]["num_images"] = 1422
    assert "it may also be 0.494 to 0.546" in words(near)[1].data["judgements"][2].sentence
    near["fidelity"]["classifier"]["num_images"] = 60_000
    assert "may also" not in words(near)[1].data["judgements"][2].sentence
    assert words(scores(recall=0.004))[0]["Variety"] == ("poor", "bad")
    one = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    assert words(scores(recall=0.9), images=one)[0]["Variety"] == ("poor", "bad")
    assert alike_share(IMAGES, LABELS) == 0.0
    assert alike_share(one, LABELS) == 1.0
    half = np.where((np.arange(40) < 20)[:, None, None, None], IMAGES[:1], IMAGES)
    assert alike_share(half, LABELS) == 0.5
    assert alike_share(one, np.arange(40)) == 0.0  # of different classes


def test_scores_of_a_protocol_count_where_there_are_no_others():
    own = scores(0.9)
    alone = {"protocols": {"dpac": {k: own[k] for k in ("gen2real", "fidelity")}}}
    assert words(alone)[0]["Use"] == ("good", "good")
    assert words(alone)[0]["Variety"] == ("good", "good")
    assert words(alone)[0]["Copies"] == ("not known", "")


def test_copies_are_flagged_as_the_scores_say():
    assert words(scores())[0]["Copies"] == ("none found", "good")
    assert words(scores(flagged=True))[0]["Copies"] == ("flagged", "bad")
    exact = next(j for j in words(scores(exact=3))[1].data["judgements"] if j.what == "Copies")
    assert "3 of them are a training image" in exact.sentence


def test_what_was_not_measured_is_not_known_and_names_the_command():
    found, section = words({})
    assert [found[what][0] for what in ("Use", "Variety", "Copies")] == ["not known"] * 3
    assert all("COMMAND" in j.sentence for j in section.data["judgements"][1:])
    assert not section.covered_by_epsilon


def test_a_page_to_publish_judges_only_what_is_public():
    found, section = words(None)
    assert found == {"Privacy": ("strong for one image", "good"), "Repetition": ("none seen", "")}
    assert section.data["in_short"] == ""
    assert section.covered_by_epsilon
    one = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    assert words(None, images=one)[0]["Repetition"] == ("much", "bad")


def test_one_sentence_says_what_speaks_against_publishing_what_is_to_be_weighed_and_what_is_not_known():
    persons = {**PRIVACY, "unit": "one person with all their images"}
    assert words(scores(), persons)[1].data["in_short"] == "In short: nothing below speaks against publishing."
    weak = words(scores(recall=0.3), {**PRIVACY, "epsilon": 10.0})[1].data["in_short"]
    assert weak.endswith(
        "hardly at all; nothing else below speaks against publishing; to be weighed: privacy (weak for one image); "
        "limits of the images: variety (limited)."
    )
    poor = words(scores(recall=0.01), persons)[1].data["in_short"]
    assert poor == "In short: nothing below speaks against publishing; limits of the images: variety (poor)."
    copied = words(scores(flagged=True), {**PRIVACY, "epsilon": 20.0})[1].data["in_short"]
    assert copied == (
        "In short: settle first who is in which image, which was not declared: a person in several images is protected "
        "less, and one in many hardly at all; against publishing: privacy (hardly any for one image), copies (flagged)."
    )
    assert words({}, persons)[1].data["in_short"].endswith("publishing; not known yet: use, variety, copies.")
