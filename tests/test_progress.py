"""Progress: plain lines without a terminal, compilation by its name, no estimate before a step was timed."""

import io
import sys

import pytest

from efsgd_jax import fit
from efsgd_jax.training import progress as module
from efsgd_jax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_no_estimate_before_a_step_was_timed(clock, capsys):
    with Progress(10, 2) as shown:
        assert shown.seconds_left() is None
        shown.compiling("a step")
        clock[0] += 60
        shown.advance(1)
        assert shown.seconds_left() is None  # that was compilation
        for _ in range(2):
            clock[0] += 3
            shown.advance(1)
        assert shown.seconds_left() == pytest.approx(15)
        shown.summary("loss 1.5")
        clock[0] += 31
        shown.advance(1)
        clock[0] += 1
        shown.advance(4)
        shown.summary("loss 1.2")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling a step"
    assert lines[1].startswith("step 3 of 10")
    assert "left" not in lines[1]
    assert lines[2] == "step 6 of 10, 49 s left | loss 1.5"
    assert lines[3] == "step 10 of 10, loss 1.2"
    assert len(lines) == 4


def test_a_terminal_has_a_bar(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(4) as shown:
        shown.compiling("a step")
        shown.advance(1)
        clock[0] += 2
        shown.advance(1)
    text = terminal.getvalue()
    assert "compiling a step" in text
    assert "2/4" in text


def test_nothing_is_said_where_nothing_is_asked_for(capsys):
    with Progress(2, shown=False) as shown:
        shown.compiling("a step")
        shown.advance(2)
    assert capsys.readouterr().err == ""


def test_a_run_in_a_pipe_says_plain_lines(small_config, tmp_path, capsys):
    fit(small_config, tmp_path / "run")
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert lines[0] == "reading the data, solving for the noise"
    assert "training: compiling a step" in lines
    assert lines[-1].startswith("training: step 6 of 6, ")
    assert "\r" not in said
