"""A score is released with noise, and the ledger is charged for it: its law, its bound, crashes, and every mistake."""

import hashlib
import json
import random
import shutil
import zipfile
from fractions import Fraction
from importlib import resources

import jsonschema
import numpy as np
import pytest
from scipy import stats

from efsgd_jax import UserError, fit, load_dataset, sample
from efsgd_jax.audit.bounds import lower_bound
from efsgd_jax.cli.release import main as publish
from efsgd_jax.cli.release_score import main as publish_score
from efsgd_jax.evaluation import release_score as release_score_module
from efsgd_jax.evaluation.metrics import CLASSIFIERS
from efsgd_jax.evaluation.release_score import release_score
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy import Composition, Ledger, PlannedPhase
from efsgd_jax.privacy.noisy_count import discrete_laplace, noisy_mean, noisy_total
from efsgd_jax.runs import queries as queries_module
from efsgd_jax.runs.ownership import sole_owner
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.privacy_report import privacy_report, public_facts, with_queries
from efsgd_jax.runs.release import check
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

NAME = "gen2real.logistic_regression"


@pytest.fixture(scope="module")
def scored_run(finished_run, tmp_path_factory):
    """A finished run with the right answers of a classifier of its images, as ``evaluate`` files them."""
    workdir = shutil.copytree(finished_run.workdir, tmp_path_factory.mktemp("scored") / "run")
    data, fake = load_dataset("digits"), sample(workdir, 200)
    predicted = CLASSIFIERS["logistic_regression"](fake.images, fake.labels, 10)(data.test_images)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (data.test_labels, predicted), 1)
    accuracy = float(np.mean(predicted == data.test_labels))
    one = {"accuracy": accuracy, "std": 0.0, "accuracies": [accuracy], "confusion": confusion.tolist(),
           "num_train": 200, "num_test": len(predicted)}  # fmt: skip
    three = {**one, "accuracies": [accuracy] * 3, "confusion": (3 * confusion).tolist()}
    head = {"num_images": 200, "seed": 0, "generator_sha256": sha256(workdir / "release/generator.msgpack")}
    scores = {**head, "gen2real": {"logistic_regression": one, "cnn": three}, "real2gen": {"cnn": one},
              "protocols": {"dpac": {**head, "gen2real": {"mlp": one}}}}  # fmt: skip
    (workdir / "private/scores.json").write_text(json.dumps(scores))
    return workdir


@pytest.fixture
def run(scored_run, tmp_path):
    return shutil.copytree(scored_run, tmp_path / "run")


pytestmark = pytest.mark.usefixtures("training_epsilon_computed_once")


@pytest.fixture
def no_grid(monkeypatch):
    """``check`` without drawing the sample grid again: of tests that call it many times."""
    monkeypatch.setattr("efsgd_jax.runs.release._check_grid", lambda *_: None)
    monkeypatch.setattr("efsgd_jax.runs.release.draw_grid", lambda *_: None)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path):
    return json.loads(path.read_text())


def edit(path, change):
    value = read(path)
    change(value)
    path.write_text(json.dumps(value, indent=2) + "\n")


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(2), Fraction(3) / Fraction(0.1)])
def test_the_noise_is_discrete_laplace(scale):
    generator = random.Random(1)
    drawn = np.array([discrete_laplace(scale, generator.randrange) for _ in range(20_000)])
    a = 1 / float(scale)
    edge = int(stats.dlaplace.ppf(0.999, a))
    bins = np.arange(-edge, edge + 1) if edge < 40 else np.linspace(-edge, edge, 41).astype(int)
    counts = np.histogram(drawn, np.concatenate([[-np.inf], bins + 0.5, [np.inf]]))[0]
    chances = np.diff(np.concatenate([[0.0], stats.dlaplace.cdf(bins, a), [1.0]]))
    assert stats.chisquare(counts, chances * len(drawn)).pvalue > 1e-3


@pytest.mark.parametrize("rounds", [1, 3])
def test_attacks_prove_no_more_than_the_claim_and_catch_too_little_noise(rounds, monkeypatch):
    """One test image more that is right in every round, against one that is wrong in every round."""
    generator, epsilon = random.Random(0), 1.0

    def proven():
        right, wrong = (
            np.array([noisy_total(rounds * n, epsilon, answers_per_unit=rounds, randbelow=generator.randrange)
                      for _ in range(15_000)])
            for n in (31, 30)
        )  # fmt: skip
        return lower_bound(right, wrong, 1e-9)

    assert 0.8 * epsilon < proven() <= epsilon
    half = "efsgd_jax.privacy.noisy_count.discrete_laplace"
    monkeypatch.setattr(half, lambda scale, randbelow: discrete_laplace(scale / 2, randbelow))
    assert proven() > 1.5 * epsilon


def test_noise_for_one_round_is_too_little_for_the_sum_of_three():
    """The mutant that forgets that one image has an answer for each seed of the classifier."""
    generator = random.Random(0)
    right, wrong = (
        np.array([noisy_total(n, 1.0, randbelow=generator.randrange) for _ in range(8_000)]) for n in (93, 90)
    )
    assert lower_bound(right, wrong, 1e-9) > 1.5


@pytest.mark.parametrize(("chance", "rounds", "epsilon"), [(0.9, 1, 0.5), (0.3, 3, 0.1), (1.0, 1, 0.2), (0.0, 1, 5.0)])
def test_the_interval_covers_the_accuracy_on_new_images(chance, rounds, epsilon):
    generator, rng, units = random.Random(0), np.random.default_rng(0), 100
    covered = []
    for _ in range(400):
        total = int(rng.binomial(units, chance, rounds).sum())
        value = noisy_mean(total, units, epsilon, answers_per_unit=rounds, randbelow=generator.randrange)
        assert 0 <= value.low <= value.mean <= value.high <= 1
        covered.append(value.low <= chance <= value.high)
    assert np.mean(covered) >= 0.95


def test_a_score_is_released_and_charged(run, tmp_path, capsys, no_grid):
    training = read(run / "release/privacy.json")
    assert publish_score([str(run), NAME, "--epsilon=2", "--target_epsilon=20"]) == 0
    printed = capsys.readouterr().out
    assert "95% interval" in printed
    assert "states the epsilon of before" in printed
    report, released = read(run / "release/privacy.json"), read(run / "release/scores.json")
    assert report["training_epsilon"] == training["epsilon"]
    assert report["epsilon"] == pytest.approx(training["epsilon"] + 2)
    (query,) = report["queries"]
    assert {**query, "accuracy": 0} == {"name": NAME, "epsilon": 2.0, "num_test": 375, "accuracy": 0}
    assert report["caveats"][0].endswith("except those released through noisy queries, which this report lists.")
    text = (run / "release/PRIVACY.md").read_text()
    assert text.startswith(f"# ({format_epsilon(report['epsilon'])}, 1e-05)-differential privacy")
    assert f"- 2 of epsilon: the score {NAME}" in text
    assert "of 375 test images, a number that is public" in text
    quoted = text.split("\n\n")[1]
    assert quoted.startswith(
        "The model that generated the images, and the scores that were released with noise, have ("
    )
    assert "except those that were released with noise, which the report lists" in quoted
    assert "was used for training or testing" in quoted
    (score,) = released["scores"]
    assert query["accuracy"] == score["accuracy"]
    assert f"{NAME} = {100 * score['accuracy']:.1f}%" in text
    exact = read(run / "private/scores.json")["gen2real"]["logistic_regression"]["accuracy"]
    assert score["accuracy"] == pytest.approx(exact, abs=20 / 2 / 375)  # false alarm: e^-20
    assert score["interval_95"][0] < score["accuracy"] < score["interval_95"][1]
    assert score["noise_std"] == pytest.approx(stats.dlaplace.std(2.0) / 375)

    assert publish_score([str(run), NAME, "--epsilon=2"]) == 0
    assert "nothing is spent" in capsys.readouterr().out
    assert read(run / "release/scores.json") == released
    for name in ("gen2real.cnn", "dpac.gen2real.mlp"):
        assert publish_score([str(run), name, "--epsilon=0.5"]) == 0
    assert publish_score([str(run), NAME, "--epsilon=0.25", "--again"]) == 0
    report = read(run / "release/privacy.json")
    assert [q["epsilon"] for q in report["queries"]] == [2.0, 0.5, 0.5, 0.25]
    assert report["epsilon"] == pytest.approx(training["epsilon"] + 3.25)
    assert [s["name"] for s in read(run / "release/scores.json")["scores"]] == [
        NAME, "gen2real.cnn", "dpac.gen2real.mlp", NAME,
    ]  # fmt: skip
    sample(run, 10, out=tmp_path / "samples", formats=["npz"])
    assert read(tmp_path / "samples/manifest.json")["privacy"] == report


def test_a_release_with_a_score_is_packed(run, tmp_path):
    release_score(run, NAME, 0.5, target_epsilon=20.0)
    assert publish([str(run), str(tmp_path / "out.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("scores.json") == (run / "release/scores.json").read_bytes()


def test_a_finished_run_that_is_trained_again_reports_its_queries(run, small_config, no_grid):
    spent = release_score(run, NAME, 0.5, target_epsilon=20.0).privacy["epsilon"]
    assert fit(small_config, run, progress=False).epsilon == spent


def test_the_report_of_a_sanitised_run_lists_queries_too():
    mechanism = ShardMechanism(1000, 10, "round_robin", 5.0, images_per_step=2)
    ledger = Ledger(Composition((PlannedPhase("training", mechanism, 5),)), 10.0, 1e-5, 5)
    public = public_facts(1000, {"image_size": 8, "channels": 1, "class_names": ["a", "b"]}, "0..16")
    training = privacy_report(ledger, 5, debugging_seed=False, public=public)
    report = with_queries(training, [{"name": NAME, "epsilon": 0.1, "score": None}], 10.0)
    schema = resources.files("efsgd_jax.runs").joinpath("privacy.schema.json").read_text(encoding="utf-8")
    jsonschema.validate(report, json.loads(schema))
    assert report["epsilon"] == training["epsilon"] + 0.1
    assert report["accountings"] == training["accountings"]
    assert "that values range over 0..16." in to_markdown(report)
    assert len(report["caveats"]) == len(training["caveats"]) + 1


class Killed(BaseException):
    pass


def killed_at(monkeypatch, moment, after):
    """The program dies at its ``moment``-th write or draw, before or after that is done."""
    done = 0

    def wrap(module, name):
        original = getattr(module, name)

        def step(*args, **kwargs):
            nonlocal done
            done += 1
            if done == moment and not after:
                raise Killed
            result = original(*args, **kwargs)
            if done == moment:
                raise Killed
            return result

        monkeypatch.setattr(module, name, step)

    for module, name in ((queries_module, "write_json"), (queries_module, "write_text"),
                         (release_score_module, "noisy_mean")):  # fmt: skip
        wrap(module, name)


@pytest.mark.usefixtures("no_grid")
def test_killed_at_any_point_the_ledger_never_understates(scored_run, tmp_path, monkeypatch):
    training = read(scored_run / "release/privacy.json")["epsilon"]
    moments = 0
    for moment in range(1, 20):
        for after in (False, True):
            run = shutil.copytree(scored_run, tmp_path / f"run{moment}{after}")
            with monkeypatch.context() as patch:
                killed_at(patch, moment, after)
                try:
                    release_score(run, NAME, 0.5, target_epsilon=20.0)
                except Killed:
                    moments += 1
                else:
                    assert moments >= 12  # charge, draw, record, fingerprints, three files: each before and after
                    return
            directory, ledger = Workdir(run), run / "private/queries.json"
            charged = read(ledger)["charged"] if ledger.is_file() else []
            assert len(charged) == (moment > 1 or after)
            if (run / "release/scores.json").is_file():  # a released score is charged, in the report too
                assert read(run / "release/privacy.json")["epsilon"] == pytest.approx(training + 0.5)
                assert charged[0]["score"] == read(run / "release/scores.json")["scores"][0]
            if charged and read(run / "release/privacy.json").get("epsilon") == training:
                with pytest.raises(UserError, match="not released"):
                    check(directory)
            drawn = charged[0]["score"] if charged else None
            again = release_score(run, NAME, 0.5, target_epsilon=20.0)
            assert drawn is None or again.score == drawn
            assert again.charged == (not charged)
            assert again.privacy["epsilon"] == pytest.approx(training + 0.5)
            check(directory)
    pytest.fail("it never ended")


def scores(change):
    return lambda run: edit(run / "private/scores.json", change)


def off_by_one(s):
    s["gen2real"]["logistic_regression"]["confusion"][0][0] += 1


def without_scores(run):
    (run / "private/scores.json").unlink()


def seeded(run):
    edit(run / "private/run.json", lambda r: r["config"]["train"].update(seed=3))


def no_guarantee(run):
    edit(run / "release/privacy.json", lambda r: r.update(guarantee=False, reason_for_no_guarantee="it was late"))
    edit(run / "private/released.json", lambda r: r.update({"privacy.json": sha256(run / "release/privacy.json")}))


def edited_report(run):
    edit(run / "release/privacy.json", lambda r: r.update(epsilon=1.0))


def damaged_record(run):
    (run / "private/queries.json").write_text('{"training": {}, "target_epsilon": 1, "charged": [{}]}')


def unchanged(run):
    pass


@pytest.mark.usefixtures("no_grid")
@pytest.mark.parametrize(
    ("change", "name", "flags", "reason"),
    [
        (unchanged, "real2gen.cnn", [], "trained on real images"),
        (unchanged, "dpac.real2gen.cnn", [], "trained on real images"),
        (unchanged, "fidelity.classifier.fid", [], "no bound is known"),
        (unchanged, "copying.exact_copies", [], "single training images"),
        (unchanged, "gen2real.resnet", [], "gen2real.CLASSIFIER with one of"),
        (unchanged, "gen2real.cnn.per_class", [], "unknown score"),
        (unchanged, "gen2real", [], "unknown score"),
        (unchanged, NAME, ["--epsilon=0"], "above 0"),
        (unchanged, NAME, ["--epsilon=nan"], "above 0"),
        (unchanged, NAME, ["--epsilon=1e9"], "at most 100"),
        (unchanged, NAME, ["--epsilon=much"], "invalid float"),
        (unchanged, NAME, ["--target_epsilon=inf"], "finite"),
        (unchanged, NAME, ["--epsilon=3"], "--target_epsilon="),
        (unchanged, NAME, ["--target_epsilon=1"], "of which 0 is left"),
        (unchanged, "gen2real.mlp", [], "has no gen2real.mlp; make it with: efsgd evaluate"),
        (unchanged, "dpac.gen2real.cnn", [], "--protocol=dpac"),
        (without_scores, NAME, [], "is missing; make it with: efsgd evaluate"),
        (scores(lambda s: s.update(generator_sha256="0" * 64)), NAME, [], "another generator"),
        (scores(off_by_one), NAME, [], "does not add up"),
        (scores(lambda s: s["gen2real"]["logistic_regression"].pop("confusion")), NAME, [], "damaged"),
        (seeded, NAME, [], "train.seed was set"),
        (no_guarantee, NAME, [], "no guarantee"),
        (damaged_record, NAME, [], "restore it from a copy"),
        (edited_report, NAME, [], "not what training wrote"),
    ],
)
def test_mistakes_are_one_line_and_cost_nothing(run, capsys, change, name, flags, reason):
    change(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert publish_score([str(run), name, "--epsilon=0.001", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert reason in message
    assert message.count("\n") == 1
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        release_score(tmp_path, NAME, 0.1)


@pytest.mark.usefixtures("no_grid")
def test_the_target_that_is_named_in_a_refusal_suffices(run):
    with pytest.raises(UserError, match="--target_epsilon") as refused:
        release_score(run, NAME, 3.0)
    target = float(str(refused.value).split("--target_epsilon=")[1].split()[0])
    assert release_score(run, NAME, 3.0, target_epsilon=target).privacy["target_epsilon"] == target


def test_two_programs_do_not_charge_at_once(run):
    with sole_owner(Workdir(run)), pytest.raises(UserError, match="another process"):
        release_score(run, NAME, 0.1)


def one_score_more(run):
    edit(run / "release/scores.json", lambda s: s["scores"].append({**s["scores"][0], "name": "gen2real.cnn"}))


def the_exact_score(run):
    edit(run / "release/scores.json", lambda s: s["scores"][0].update(accuracy=0.5))


def a_remark(run):
    edit(run / "release/scores.json", lambda s: s.update(real2gen=0.9))


def fewer_queries(run):
    edit(run / "release/privacy.json", lambda r: (r.pop("queries"), r.pop("training_epsilon")))


def cheaper(run):
    edit(run / "release/privacy.json", lambda r: r.update(epsilon=r["training_epsilon"]))


def cheaper_training(run):
    edit(run / "release/privacy.json", lambda r: r.update(training_epsilon=1.0))


def forgotten(run):
    (run / "private/queries.json").unlink()


def forgotten_but_for_the_report(run):
    (run / "private/queries.json").unlink()
    (run / "release/scores.json").unlink()


@pytest.mark.usefixtures("no_grid")
@pytest.mark.parametrize(
    ("tamper", "file", "reason"),
    [
        (one_score_more, "scores.json", "does not have the scores of the queries"),
        (the_exact_score, "scores.json", "does not have the scores of the queries"),
        (a_remark, "scores.json", "does not have the scores of the queries"),
        (
            lambda run: (run / "release/scores.json").write_text("[]"),
            "scores.json",
            "does not have the scores of the queries",
        ),
        (lambda run: (run / "release/scores.json").unlink(), "scores.json", "is missing"),
        (fewer_queries, "privacy.json", "lists other queries"),
        (cheaper, "privacy.json", "its mechanism spends"),
        (cheaper_training, "privacy.json", "training spends"),
        (forgotten, "scores.json", "does not belong"),
        (forgotten_but_for_the_report, "privacy.json", "lists queries"),
    ],
)
def test_scores_without_a_charge_in_the_ledger_are_not_packed(run, tmp_path, capsys, tamper, file, reason):
    release_score(run, NAME, 0.5, target_epsilon=20.0)
    tamper(run)
    assert publish([str(run), str(tmp_path / "out.zip")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: not released: ")
    assert f"release/{file} " in message
    assert reason in message
    assert not (tmp_path / "out.zip").exists()


def test_the_noise_is_the_systems():
    assert len({noisy_total(0, 1e-9) for _ in range(3)}) == 3
