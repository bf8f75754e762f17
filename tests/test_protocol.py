"""Evaluation by protocol: IS and FID of a run, what is cached and for whom, what is filed where, and mistakes."""

import json
import re
import shutil
import stat

import numpy as np
import pytest

from efsgd_jax import UserError, evaluate, load_dataset
from efsgd_jax.cli.evaluate import main as score
from efsgd_jax.evaluation import evaluate as module
from efsgd_jax.evaluation import feature_cache, scoring
from efsgd_jax.evaluation.metrics import CLASSIFIERS, PROTOCOLS, Training, to_table, train_feature_classifier
from efsgd_jax.runs.sampling import Samples

QUICK = Training(steps=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for the whole module, so that the digits' classifier is trained once."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFSGD_JAX_DATA", str(directory))
        yield directory / "classifiers"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "own"))
    return tmp_path / "own" / "classifiers"


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A run of its own, whose scores no other test writes."""
    return shutil.copytree(finished_run.workdir, tmp_path_factory.mktemp("protocol") / "run")


def real_for_synthetic(monkeypatch, change=lambda images: images):
    """Lets a run have 'generated' the digits' test images, sorted by class as ``sample`` sorts them."""
    data = load_dataset("digits")
    order = np.argsort(data.test_labels, kind="stable")
    images, labels = change(data.test_images[order]), data.test_labels[order]
    monkeypatch.setattr(module, "sample", lambda workdir, n, seed: Samples(images[:n], labels[:n], data.class_names))
    return len(labels)


@pytest.mark.slow
def test_fidelity_tells_good_images_from_bad(run, cache, monkeypatch):
    n = real_for_synthetic(monkeypatch)

    def fidelity():
        scores = evaluate(run, num_images=n, metrics=("fidelity",))
        assert (scores.num_images, list(scores.fidelity)) == (n, ["classifier"])
        assert not scores.gen2real
        assert not scores.copying
        return scores.fidelity["classifier"]

    good = fidelity()
    assert good["num_images"] == n
    assert 7 < good["inception_score"] <= 10  # sorted by class it would be 1
    assert min(good["precision"], good["recall"], good["coverage"]) > 0.8
    noise = np.random.default_rng(0).normal(0, 120, (n, 8, 8, 1))
    real_for_synthetic(monkeypatch, lambda images: np.clip(images + noise, 0, 255).astype(np.uint8))
    bad = fidelity()
    assert bad["fid"] > 3 * good["fid"]
    assert bad["kid"] > good["kid"] + 0.01
    assert bad["inception_score"] < good["inception_score"]
    assert bad["precision"] < good["precision"] - 0.3
    real_for_synthetic(monkeypatch, lambda images: np.repeat(images[:1], n, axis=0))
    one = fidelity()
    assert one["inception_score"] == pytest.approx(1.0, abs=1e-4)
    assert one["fid"] > 3 * good["fid"]
    assert one["recall"] < 0.05


def test_dpac_is_filed_under_its_name(run, own_cache, capsys, monkeypatch):
    assert score([f"--workdir={run}", "--n=60", "--metrics=utility", "--classifiers=logistic_regression"]) == 0
    plain = json.loads((run / "private/scores.json").read_text())
    capsys.readouterr()
    monkeypatch.setattr(feature_cache, "train_feature_classifier", lambda *a: train_feature_classifier(*a[:3], QUICK))
    monkeypatch.setitem(CLASSIFIERS, "cnn", CLASSIFIERS["mlp"])
    assert score([f"--workdir={run}", "--n=60", "--protocol=dpac"]) == 0
    out, err = capsys.readouterr()
    assert re.findall(r"^scoring, 1 of \d+: gen2real", err, re.M)
    assert "\r" not in err  # plain lines in a pipe, no bar
    for words in ("gen2real", "real2gen", "MLP", "CNN", "features of a CNN trained on the real training split"):
        assert words in out
    assert "NOT the protocol's 60000" in out
    assert re.search(r"^scoring, 5 of 5, after \d+ s: fidelity classifier$", err, re.M)
    assert score([f"--workdir={run}", "--n=60", "--metrics=utility", "--classifiers=logistic_regression"]) == 0
    assert "gen2real logistic_regression, kept from before\n" in capsys.readouterr().err

    saved = json.loads((run / "private/scores.json").read_text())
    dpac = saved.pop("protocols")["dpac"]
    assert saved == plain
    assert sorted(dpac["gen2real"]) == sorted(dpac["real2gen"]) == ["cnn", "mlp"]
    assert dpac["real2gen"]["mlp"]["num_train"] == dpac["real2gen"]["cnn"]["num_train"] == 1422  # the whole split
    assert (
        dpac["gen2real"]["cnn"]["num_train"] == dpac["num_images"] == dpac["fidelity"]["classifier"]["num_images"] == 60
    )
    evaluate(run, num_images=60, metrics=("utility",), classifiers=("mlp",), classifier_seeds=1)
    both = json.loads((run / "private/scores.json").read_text())
    assert sorted(both["gen2real"]) == sorted(both["real2gen"]) == ["logistic_regression", "mlp"]
    assert both["gen2real"]["logistic_regression"] == plain["gen2real"]["logistic_regression"]
    evaluate(run, num_images=50, metrics=("utility",), classifiers=("logistic_regression",))
    again = json.loads((run / "private/scores.json").read_text())
    assert again["protocols"]["dpac"] == dpac
    assert again["gen2real"]["logistic_regression"]["num_train"] == 50


def test_dpac_asks_for_60000_images_and_its_output_does_not_complain(run, monkeypatch):
    asked = []

    def stop(workdir, n, seed):
        asked.append(n)
        raise UserError("enough")

    monkeypatch.setattr(module, "sample", stop)
    with pytest.raises(UserError, match="enough"):
        evaluate(run, protocol="dpac")
    assert asked == [60_000]
    assert PROTOCOLS["dpac"].classifiers == ("mlp", "cnn")


def test_scores_are_computed_once(run, own_cache, monkeypatch):
    n = real_for_synthetic(monkeypatch)
    monkeypatch.setattr(feature_cache, "train_feature_classifier", lambda *a: train_feature_classifier(*a[:3], QUICK))
    monkeypatch.setitem(CLASSIFIERS, "cnn", CLASSIFIERS["logistic_regression"])
    options = {"num_images": n, "classifiers": ("logistic_regression", "cnn"), "classifier_seeds": 2}
    first = evaluate(run, **options)
    assert len(first.real2gen["cnn"].accuracies) == 2
    assert len(list(own_cache.iterdir())) == 3  # real2gen's two, and the one of the whole training part
    files = sorted((own_cache.parent / "scores").iterdir())
    assert len(files) == 6
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in files)
    for name in ("utility", "fidelity_scores", "copying", "trained_on_real"):
        monkeypatch.setattr(scoring, name, None)
    again = evaluate(run, **options)
    assert to_table(again) == to_table(first)
    files[0].write_text("rubbish")
    with pytest.raises(TypeError):  # only what is damaged is computed again
        evaluate(run, **options)


def test_scores_of_other_images_are_others(run, own_cache, monkeypatch):
    n = real_for_synthetic(monkeypatch)
    options = {"num_images": n, "metrics": ("utility",), "classifiers": ("logistic_regression",)}
    good = evaluate(run, **options).gen2real["logistic_regression"].accuracy
    real_for_synthetic(monkeypatch, lambda images: 255 - images)
    assert evaluate(run, **options).gen2real["logistic_regression"].accuracy < good - 0.3


@pytest.mark.slow
def test_copying_is_flagged_for_replays_only(run, cache, monkeypatch):
    data = load_dataset("digits")
    monkeypatch.setattr(module, "sample", lambda workdir, n, seed: Samples(*of_part, data.class_names))
    for replayed, of_part in (
        (True, (data.train_images[:300], data.train_labels[:300])),
        (False, (data.test_images, data.test_labels)),
    ):
        found = evaluate(run, num_images=len(of_part[1]), metrics=("copying",)).copying
        assert found["flagged"] == replayed
        assert (found["exact_copies"] > 250) == replayed
        assert len(found["closest"]) == 12


def test_fewer_real_images_are_chosen_from_all_classes(run, monkeypatch):
    """A data set in folders is sorted by class; its first images are all of the first."""
    workdir, data = module.finished_run(run)
    order = np.argsort(data.train_labels, kind="stable")
    data.train_images[:], data.train_labels[:] = data.train_images[order], data.train_labels[order]
    monkeypatch.setattr(module, "finished_run", lambda _: (workdir, data))
    real_for_synthetic(monkeypatch)
    scores = evaluate(run, num_images=300, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.real2gen["logistic_regression"].accuracy > 0.8


def classifier(seed=0):
    data = load_dataset("digits")
    training = QUICK._replace(seed=seed)
    return feature_cache.trained_on_real(data.train_images[:100], data.train_labels[:100], 10, training)


def test_the_cache_is_private_and_trains_once(own_cache, monkeypatch):
    first = classifier()
    (file,) = own_cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    classifier(seed=1)
    assert len(list(own_cache.iterdir())) == 2
    monkeypatch.setattr(feature_cache, "train_feature_classifier", None)
    images = load_dataset("digits").test_images
    np.testing.assert_array_equal(classifier().logits(images), first.logits(images))


def test_the_cache_tells_data_sets_apart(own_cache):
    data = load_dataset("digits")
    images, labels = data.train_images[:100], data.train_labels[:100]
    for x, y in ((images, labels), (images[::-1], labels), (images, labels[::-1]), (images[:99], labels[:99])):
        feature_cache.trained_on_real(x, y, 10, QUICK)
    assert len(list(own_cache.iterdir())) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"rubbish",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    ],
    ids=["empty", "rubbish", "cut", "one bit"],
)
def test_a_damaged_cache_is_trained_again(damage, own_cache):
    first = classifier()
    (file,) = own_cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    images = load_dataset("digits").test_images
    np.testing.assert_array_equal(classifier().logits(images), first.logits(images))
    assert file.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("words")
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="trained again next time"):
        assert classifier().num_classes == 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocol=dcap"], ["unknown protocol", "'dcap'", "dpac"]),
        (["--protocol="], ["unknown protocol", "dpac"]),
        (["--protocol=dpac", "--classifiers=cnn"], ["dpac", "leave out"]),
        (["--protocol=dpac", "--n=9"], ["9", "at least 10"]),
        (["--protocol=dpac", "--n=0"], ["0", "at least 10"]),
        (["--metrics=fidelity", "--n=9"], ["9", "at least 10"]),
        (["--metrics=beauty"], ["beauty", "utility, fidelity, copying"]),
        (["--classifier_seeds=0"], ["0", "at least 1"]),
        (["--config=configs/digits.py"], ["leave --config out"]),
        (["--protocol=dpac", "--metrics=fidelity"], ["dpac", "leave out"]),
        (["--n=0"], ["0", "at least 1"]),
        (["--n=-3"], ["-3", "at least 1"]),
        (["--n=many"], ["many"]),
        (["--classifiers=forest"], ["forest", "logistic_regression, mlp, cnn, gradient_boosting"]),
    ],
)
def test_mistakes_are_one_line(flags, words, run, own_cache, capsys):
    before = (run / "private/scores.json").read_bytes() if (run / "private/scores.json").exists() else None
    assert score([f"--workdir={run}", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    after = (run / "private/scores.json").read_bytes() if (run / "private/scores.json").exists() else None
    assert before == after
    assert not own_cache.exists()
