"""Private rows, ``efsgd protect smote --epsilon``: what is claimed of them is what was released."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from test_protect_smote import DECLARED, patients, write_csv

from efsgd_jax.audit.centre_games import centre_games
from efsgd_jax.audit.mutants import mutants
from efsgd_jax.audit.suite import sound_games
from efsgd_jax.audit.white_box import audit
from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import FullBatchMechanism, fresh_key, gaussian_event
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.protect.private_smote import fit_centres, weights_of
from efsgd_jax.protect.rows import read_rows
from efsgd_jax.protect.smote_centres import COUNT_LENGTH, Record, planned, release_centres

KEY = jax.random.key(7)


def digit_rows(n=1400, kinds=10):
    cells, labels = load_digits(return_X_y=True)
    columns = {f"p{i}": [str(v / 16) for v in cells[:n, i]] for i in range(64)} | {"y": list(map(str, labels[:n]))}
    declared = {f"p{i}": {"range": [0, 1]} for i in range(64)} | {"y": list(map(str, range(kinds)))}
    return read_rows(columns, declared), (cells[n:] / 16, labels[n:])


def test_private_centres_spend_their_epsilon_and_a_label_depends_on_its_rows():
    rows, (cells, labels) = digit_rows()
    found = fit_centres(rows, epsilon=10.0)
    assert 9.9 < found.epsilon <= 10.0
    assert found.dataset_size == 1400
    drawn, of = found.sample(1000)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(np.unique(of)) == 10
    assert LogisticRegression(max_iter=1000).fit(drawn, of).score(cells, labels) > 0.7


def test_the_epsilon_is_that_of_the_mechanisms_that_were_opened(monkeypatch):
    opened = []
    sound = FullBatchMechanism.open

    def spy(self, *args, **options):
        opened.append(self)
        return sound(self, *args, **options)

    monkeypatch.setattr(FullBatchMechanism, "open", spy)
    found = fit_centres(read_rows(patients(), DECLARED), epsilon=50.0, steps=3)
    assert len(opened) == 4
    sigma = sum(m.step_noise**-2 for m in opened) ** -0.5
    assert found.epsilon == pytest.approx(epsilon_of(gaussian_event(sigma), 1e-5), rel=1e-3)


def test_what_is_released_has_the_noise_that_it_says():
    phases = tuple(p._replace(mechanism=p.mechanism.with_noise(2.0)) for p in planned(50, 2))
    blank = Record(jnp.full((50, 400), 0.5), jnp.full(50, -1))  # contributes nothing, so that only noise is released
    clip = 2.0
    found = release_centres(phases, blank, jnp.zeros((3, 2, 400)), fresh_key(), l2_norm_clip=clip)
    assert found.stds.tolist() == pytest.approx(
        [2 * math.sqrt(1 / 0.1) * 0.5 * 20, *[2 * math.sqrt(2 / 0.9) * clip * math.hypot(1, COUNT_LENGTH)] * 2],
        rel=1e-5,
    )
    assert np.std(found.total) == pytest.approx(float(found.stds[0]), rel=0.2)
    for step in (0, 1):
        assert np.std(found.sums[step]) == pytest.approx(float(found.stds[1 + step]), rel=0.1)
    counts = np.asarray(found.counts) * COUNT_LENGTH * clip
    assert 0.3 < np.std(counts) / float(found.stds[1]) < 2
    assert len({*map(float, np.ravel(found.sums))}) > 4000  # no noise is used twice


def test_the_audit_does_not_refute_the_releases_and_catches_each_fault_in_them():
    (game,) = centre_games()
    assert game in sound_games(quick=True)
    faults = [m for m in mutants() if m.name.startswith("private rows")]
    assert [m.name for m in faults] == ["private rows without noise", "private rows whose shares add up to more than 1"]
    (sound,) = audit([game], trials=5000, delta=1e-2, key=KEY)
    assert 0.5 * sound.claimed < sound.bound <= sound.claimed
    for mutant in faults:
        with mutant.broken() as broken:
            (row,) = audit([broken], trials=5000, delta=1e-2, key=KEY)
        assert row.claimed == sound.claimed
        assert row.refuted, row


def test_of_a_label_without_rows_none_is_drawn_unless_its_noisy_count_says_so():
    rows, _ = digit_rows(kinds=30)
    drawn = set(fit_centres(rows, epsilon=10.0).sample(4000)[1])
    assert set(range(10)) <= drawn
    assert len(drawn) <= 14  # each of the 20 others is left out with 98%


def test_weights_are_noisy_counts_of_labels_above_their_noise_and_no_label_is_raised_to_one_row():
    weights = weights_of(np.array([[60.0, 20.0], [0.5, 0.4], [-3.0, 20.0]]), 1.0)
    np.testing.assert_allclose(weights, [[0.6, 0.2], [0, 0], [0, 0.2]])
    np.testing.assert_allclose(weights_of(np.array([[-5.0, -2.0]]), 9.0), [[0.5, 0.5]])
    with pytest.raises(UserError, match="each of the 2 labels is lost"):
        weights_of(np.array([[1.0], [2.0]]), 1.0)


def test_private_rows_are_in_no_order_of_their_labels():
    labels = fit_centres(read_rows(patients(400), DECLARED), epsilon=10.0).sample(400)[1]
    assert 120 < np.sum(labels[1:] != labels[:-1]) < 280


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delta": 0.1}, "delta is 0.1"),
        ({"centres": 0}, "centres is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"l2_norm_clip": -1.0}, "l2_norm_clip is -1"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": math.inf}, "epsilon is inf"),
    ],
)
def test_options_of_private_centres_out_of_range_are_one_line(change, says):
    with pytest.raises(UserError, match=says):
        fit_centres(read_rows(patients(), DECLARED), **{"epsilon": 1.0, **change})


def test_the_private_command_writes_a_statement_with_its_epsilon_and_no_mark_of_a_protection(tmp_path, capsys):
    write_csv(tmp_path / "rows.csv", patients(400))
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    command = ["protect", "smote", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}"]
    assert main([*command, f"--out={tmp_path / 'drawn'}", "--epsilon=2"]) == 0
    assert "1e-05)-differential privacy" in capsys.readouterr().out
    assert "1e-05)-differential privacy" in (tmp_path / "drawn/PRIVACY.md").read_text()
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["PRIVACY.md", "rows.csv"]
    assert main([*command, f"--out={tmp_path / 'other'}", "--epsilon=1", "--seed=3"]) == 2
    assert "has no seed" in capsys.readouterr().err
    for unused in ("--noise_scale=1.0", "--neighbours=5", "--k=3"):
        assert main([*command, f"--out={tmp_path / 'other'}", "--epsilon=1", unused]) == 2
        assert f"{unused} is for rows without a guarantee" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_paths_of_the_home_directory_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_csv(tmp_path / "rows.csv", patients(20))
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    assert main(["protect", "smote", "~/rows.csv", "--columns=~/columns.json", "--out=~/moved"]) == 0
    assert (tmp_path / "moved/rows.csv").exists()
