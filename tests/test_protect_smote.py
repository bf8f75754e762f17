"""``efsgd protect smote``: rows that are replaced, the attacks on them, and the private form."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect.private_smote import fit_centres
from efsgd_jax.protect.rows import read_rows
from efsgd_jax.protect.smote import near_rows, reflected, smote
from efsgd_jax.protect.smote_attacks import at_risk, linked, linked_by_likelihood

DECLARED = {"age": {"range": [0, 120]}, "weight": {"range": [0, 300]}, "finding": ["benign", "malignant"]}


def patients(n=60, seed=0):
    rng = np.random.default_rng(seed)
    ill = rng.integers(2, size=n)
    return {
        "age": [str(x) for x in np.clip(rng.normal(40 + 20 * ill, 10).round(), 0, 120)],
        "weight": [str(x) for x in np.clip(rng.normal(75, 15, n).round(1), 0, 300)],
        "finding": [("benign", "malignant")[i] for i in ill],
        "name": [f"person {i}" for i in range(n)],
    }


def write_csv(path, columns):
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


def digits():
    found = load_digits()
    return found.data / 16, found.target


def test_every_cell_of_every_row_is_replaced_and_stays_in_its_range():
    cells, labels = digits()
    for scale in (1e-6, 1.0, 100.0):
        moved = smote(cells, labels, noise_scale=scale)
        assert np.mean(moved == cells) == 0.0
        assert moved.min() >= 0.0
        assert moved.max() <= 1.0


def test_a_stronger_noise_is_recognised_less_and_the_method_itself_recognises_more_than_distance():
    cells, labels = digits()
    found = [linked(cells, smote(cells, labels, noise_scale=scale)) for scale in (0.3, 1.0, 3.0)]
    assert found[0] > 0.9 > found[1] > 0.3 > found[2]
    moved = smote(cells, labels, noise_scale=1.0)
    assert linked_by_likelihood(cells, moved, labels, noise_scale=1.0, neighbours=5) > found[1] + 0.2


def test_logistic_regression_still_learns_from_replaced_digits():
    cells, labels = digits()
    moved = smote(cells[:1400], labels[:1400])
    assert LogisticRegression(max_iter=1000).fit(moved, labels[:1400]).score(cells[1400:], labels[1400:]) >= 0.85


def test_near_rows_are_of_the_same_label_and_never_the_row_itself():
    cells = np.array([[0.1], [0.1], [0.1], [0.2], [0.9], [0.8]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    near = near_rows(cells, labels, 3)
    assert near.shape == (6, 1)  # the smaller class has one other row
    assert (near[:, 0] != np.arange(6)).all()
    assert (labels[near[:, 0]] == labels).all()


def test_reflection_brings_any_value_into_range():
    x = np.linspace(-5, 5, 101)
    assert ((reflected(x) >= 0) & (reflected(x) <= 1)).all()
    np.testing.assert_allclose(reflected(np.array([0.3, -0.3, 2.3])), 0.3)


def test_rows_at_risk_are_those_of_rare_values():
    assert at_risk(np.array([[0.0, 1.0]] * 3 + [[0.0, 0.5]]), 3) == 0.25


def test_private_centres_spend_their_epsilon_and_a_label_depends_on_its_rows():
    cells, labels = digits()
    columns = {f"p{i}": [str(v) for v in cells[:1400, i]] for i in range(64)} | {"y": [str(v) for v in labels[:1400]]}
    declared = {f"p{i}": {"range": [0, 1]} for i in range(64)} | {"y": [str(i) for i in range(10)]}
    rows = read_rows(columns, declared)
    found = fit_centres(rows, epsilon=10.0)
    assert 9.9 < found.epsilon <= 10.0
    assert found.dataset_size == 1400
    drawn, of = found.sample(1000)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert len(np.unique(of)) == 10
    assert LogisticRegression(max_iter=1000).fit(drawn, of).score(cells[1400:], labels[1400:]) > 0.7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delta": 0.1}, "delta is 0.1"),
        ({"centres": 0}, "centres is 0"),
        ({"l2_norm_clip": -1.0}, "l2_norm_clip is -1"),
    ],
)
def test_options_of_private_centres_out_of_range_are_one_line(change, says):
    with pytest.raises(UserError, match=says):
        fit_centres(read_rows(patients(), DECLARED), epsilon=1.0, **change)


def test_the_command_writes_rows_and_what_recognises_them_and_release_refuses_them(tmp_path, capsys):
    write_csv(tmp_path / "rows.csv", patients())
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    command = ["protect", "smote", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}"]
    assert main([*command, f"--out={tmp_path / 'moved'}", "--seed=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["guarantee"] == "none"
    written = (tmp_path / "moved/rows.csv").read_text().splitlines()
    assert written[0] == "age,weight,finding"
    assert len(written) == 61
    assert "most likely row, by the noise of the method itself" in (tmp_path / "moved/PROTECTION.md").read_text()
    assert main(["release", str(tmp_path / "moved"), str(tmp_path / "out.zip")]) == 2
    assert "efsgd protect smote" in capsys.readouterr().err
    assert main([*command, f"--out={tmp_path / 'again'}", "--seed=1"]) == 0
    assert (tmp_path / "again/rows.csv").read_text() == (tmp_path / "moved/rows.csv").read_text()
    assert main([*command, f"--out={tmp_path / 'moved'}"]) == 2
    assert "not an empty directory" in capsys.readouterr().err


def test_the_private_command_writes_a_statement_with_its_epsilon(tmp_path, capsys):
    write_csv(tmp_path / "rows.csv", patients(400))
    (tmp_path / "columns.json").write_text(json.dumps(DECLARED))
    command = ["protect", "smote", str(tmp_path / "rows.csv"), f"--columns={tmp_path / 'columns.json'}"]
    assert main([*command, f"--out={tmp_path / 'drawn'}", "--epsilon=1"]) == 0
    assert "1e-05)-differential privacy" in capsys.readouterr().out
    assert "1e-05)-differential privacy" in (tmp_path / "drawn/PRIVACY.md").read_text()
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["PRIVACY.md", "rows.csv"]
    assert main([*command, f"--out={tmp_path / 'other'}", "--epsilon=1", "--seed=3"]) == 2
    assert "has no seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "declared", "says"),
    [
        ({"age": ["old", "30"]}, {"age": {"range": [0, 120]}}, "'old' in row 1"),
        ({"age": ["130", "30"]}, {"age": {"range": [0, 120]}}, "'130' in row 1"),
        ({"age": ["nan", "30"]}, {"age": {"range": [0, 120]}}, "'nan' in row 1"),
        ({"age": ["30", "30"]}, {"age": {"range": [120, 0]}}, "low below high"),
        ({"age": ["30", "30"]}, {"age": [0, 120], "sex": ["f"]}, "lacks the column 'sex'"),
        ({"a": ["1", "2"], "b": ["1", "2"]}, {"a": ["1", "2"], "b": ["1", "2"]}, "only the label may be one"),
        ({"a": ["1", "2"]}, {"a": ["1", "2"]}, "no numeric column"),
        ({"age": ["30"]}, {"age": {"range": [0, 120]}}, "at least 2"),
        ({"a": ["1", "2"], "b": ["1"]}, {"a": {"range": [0, 9]}, "b": {"range": [0, 9]}}, "1, 2 entries"),
        ({"age": ["1", "2"], "s": ["f", "x"]}, {"age": {"range": [0, 9]}, "s": ["f", "m"]}, "'x' in row 2"),
    ],
)
def test_tables_that_cannot_be_read_are_one_line(columns, declared, says):
    with pytest.raises(UserError, match=says):
        read_rows(columns, declared)


@pytest.mark.parametrize("options", [{"noise_scale": 0.0}, {"noise_scale": float("nan")}, {"neighbours": 0}])
def test_options_out_of_range_are_one_line(options):
    with pytest.raises(UserError, match=next(iter(options))):
        smote(np.zeros((4, 2)), np.zeros(4, int), **options)


@pytest.mark.parametrize(
    ("cells", "labels", "says"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), "shape"),
        (np.full((4, 2), np.nan), np.zeros(4, int), "not in 0..1"),
        (np.full((4, 2), 16.0), np.zeros(4, int), "not in 0..1"),
        (np.zeros((4, 2)), np.full(4, -1), "at least 0"),
        (np.zeros((4, 2)), np.zeros(4), "integers"),
    ],
)
def test_rows_that_do_not_fit_are_one_line(cells, labels, says):
    with pytest.raises(UserError, match=says):
        smote(cells, labels)


def test_a_label_with_one_row_is_one_line():
    with pytest.raises(UserError, match="one row only"):
        smote(np.zeros((3, 2)), np.array([0, 0, 1]))
