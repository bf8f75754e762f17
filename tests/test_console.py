"""``efsgd``: every command is there, says what it is for, and completes in a shell."""

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
