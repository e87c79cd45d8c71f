"""The package as users get it: its configs, python -m setk, and what an installation needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT
from setk import __main__ as entry
from setk.core import config
from setk.core.errors import UserError
from setk.training import settings

# ── configs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(config.included()))
def test_every_included_config_resolves_by_its_name(name):
    assert settings.resolve(name) == settings.resolve(str(config.included()[name]))


def test_every_config_of_a_recipe_is_included():
    named = set()
    for script in ROOT.glob("recipes/*/*.sh"):
        for line in script.read_text().splitlines():
            key, _, value = line.strip().partition("=")
            if key == "conf":
                named.add(value)
    assert len(named) > 15 and named <= set(config.included())


def test_a_config_is_a_name_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find("fspen").read_text().startswith("#")
    assert str(config.find("none.yaml")) == "none.yaml" and str(config.find("./fspen")) == "fspen"
    (tmp_path / "fspen").write_text("model: fspen\n")  # a file that is there goes before an included name
    assert str(config.find("fspen")) == "fspen"
    with pytest.raises(UserError, match="no config is called 'fspem'; name a .yaml file .*did you mean 'fspen'"):
        config.find("fspem")


# ── python -m setk ──────────────────────────────────────────────────────────────────────────────────────────────────


def setk(*args):
    done = subprocess.run([sys.executable, "-P", "-m", "setk", *args], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_python_m_setk_lists_the_commands_that_are_installed():
    code, out, err = setk()
    assert (code, err) == (0, "") and out == entry.usage() + "\n"
    assert {f"se-{name}" for name in entry.COMMANDS} == {p.name for p in (ROOT / "bin").glob("se-*")}
    assert setk("-h")[:2] == (0, out)


def test_python_m_setk_runs_a_command_as_its_program_does():
    code, out, err = setk("enhance", "--help")
    assert code == 0 and out.startswith("Usage: se-enhance ") and err == ""
    code, out, err = setk("train", "fspem", "--train", "a", "--valid", "b", "--out", "c")
    assert (code, out) == (2, "") and err == "se-train: no config is called 'fspem'; name a .yaml file or an included config (did you mean 'fspen'?)\n"
    code, out, err = setk("enhanse")
    assert (code, out, err) == (2, "", "setk: no command is called 'enhanse'; did you mean 'enhance'?\n")
