"""``efsgd``: every command is there, says what it is for, and completes in a shell."""

import json
import subprocess
import sys

import pytest

from efsgd_jax.cli.main import COMMANDS, SHELLS, main
from efsgd_jax.cli.train import main as train


def test_help_names_every_command(capsys):
    for argv in ([], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("efsgd_jax ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: python -m efsgd_jax{'.' if command == 'train' else ' '}{command}" in capsys.readouterr().out


def test_it_passes_arguments_and_status_on(tmp_path, capsys):
    flags = [f"--workdir={tmp_path / 'run'}", "--config.train.steps=ten"]
    assert main(["train", *flags]) == 2 == train(flags)
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert main(["trian"]) == 2
    assert main(["completion", "fish"]) == 2
    assert "unknown command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_configs_and_keys(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("release_score", "preset:fmnist", "--config.privacy.epsilon", "--config.method.components"):
        assert word in script


def test_bash_completes(tmp_path):
    script = subprocess.run(
        [sys.executable, "-m", "efsgd_jax", "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "completion.bash").write_text(script)
    ask = f"""source {tmp_path / "completion.bash"}
    COMP_WORDS=(efsgd rel); COMP_CWORD=1; _shtab_efsgd; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["release", "release_score"]


def test_results_are_printed_as_json(tmp_path, capsys):
    """Each command prints one JSON object, and what it says is what the text says."""
    run, out = tmp_path / "run", tmp_path / "out"

    def asked(command, *flags):
        assert main([command, *map(str, flags), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    small = ["--config=configs/digits.py", "--config.train.steps=2", "--config.method.width=4"]
    trained = asked("train", f"--workdir={run}", *small)
    assert trained["privacy"]["epsilon"] <= 10
    assert trained["release"] == str(run / "release")
    drawn = asked("sample", f"--workdir={run}", f"--out={out}", "--per_class=3:2,8:1", "--formats=npz")
    assert drawn["per_class"]["3"] == 2
    scores = asked("evaluate", f"--workdir={run}", "--metrics=utility", "--classifiers=logistic_regression")
    assert 0 <= scores["gen2real"]["logistic_regression"]["accuracy"] <= 1
    assert asked("release", run, tmp_path / "a.zip")["files"][0] == "PRIVACY.md"
    assert asked("report", run)["private"] is True
    assert asked("compare", run, f"--out={tmp_path / 'c.html'}")["left_out"] == []
    assert len(asked("export", run, tmp_path / "exported")["files"]) > 1
    cost = asked("privacy", "--dataset_size=60000", "--expected_batch_size=512", "--steps=100", "--noise_multiplier=1")
    assert float(cost["epsilon by PLD (proven)"]) > 0
    score = asked("release_score", run, "gen2real.logistic_regression", "--epsilon=0.5", "--target_epsilon=10.5")
    assert score["charged"] is True
    assert main(["privacy", "--json"]) == 2
    assert "--json needs" in capsys.readouterr().err
