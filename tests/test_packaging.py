"""The package as users get it: its configs, python -m setk, and what an installation needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml

import setk as package
from conftest import ROOT
from setk import __main__ as entry, checkpoint, models, pretrained
from setk.core import config, packages
from setk.core.errors import UserError
from setk.training import settings

# ── configs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", list(config.included()))
def test_every_included_config_resolves_by_its_name(name):
    assert settings.resolve(name) == settings.resolve(str(config.included()[name]))


def test_every_config_of_a_recipe_is_included():
    named = set()
    for script in ROOT.glob("recipes/*/*.sh"):
        named |= set(re.findall(r"^\s*conf=(?:\$\{conf:-)?(\w+)\b", script.read_text(), re.MULTILINE))
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
    code, out, err = setk("prep", "get", "vbb", "none")
    assert (code, out, err) == (2, "", "se-prep: no corpus is called 'vbb'; did you mean 'vbd'?\n")
    code, out, err = setk("enhanse")
    assert (code, out, err) == (2, "", "setk: no command is called 'enhanse'; did you mean 'enhance'?\n")


# ── what is needed ──────────────────────────────────────────────────────────────────────────────────────────────────


def names_in(requirements) -> set[str]:
    """Normalized distribution names of requirement lines."""
    lines = (line.partition("#")[0].strip() for line in requirements)
    return {normalized(re.split(r"[ ;<>=!~\[]", line)[0]) for line in lines if line}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def closure(names: set[str]) -> dict[str, metadata.Distribution]:
    """Installed distributions that `names` need, themselves included."""
    found: dict[str, metadata.Distribution] = {}
    pending = sorted(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another system or Python
            continue
        pending += names_in(line for line in found[name].requires or () if "extra ==" not in line)
    return found


def test_the_set_up_pins_everything_that_it_installs():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[normalized(name)] = version
    needed = names_in([*project()["dependencies"], *project()["optional-dependencies"]["test"]])
    installed = {name: found.version.partition("+")[0] for name, found in closure(needed).items()}
    # A CUDA build of torch requires further packages, which it pins itself.
    installed = {
        name: version for name, version in installed.items() if not name.startswith(("nvidia", "cuda", "triton"))
    }
    assert {name: pinned.get(name) for name in installed} == installed


def test_the_light_installation_is_a_part_of_the_complete_one():
    light = [line for line in (ROOT / "requirements-light.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(light) == 8 and set(light) <= set(project()["dependencies"])


def test_every_package_that_setk_imports_is_a_dependency_with_a_known_use():
    imported = set()
    for path in (ROOT / "setk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    imported -= {"setk", *sys.stdlib_module_names}
    assert imported == set(packages.USES)
    assert {package for package, _ in packages.USES.values()} <= names_in(project()["dependencies"])


@pytest.mark.parametrize(
    "missing, args, words",
    [
        (
            "torch",
            ["enhance", "setk/pretrained/fspen.pt", "a.wav", "b.wav"],
            "se-enhance: the package torch is not installed",
        ),
        (
            "torch",
            ["train", "fspen", "--train", "a", "--valid", "b", "--out", "c"],
            "se-train: the package torch is not installed",
        ),
        ("onnxruntime", ["enhance", "conv_tasnet-small", "data/mini/wav/none.wav", "b.wav"], "pip install onnxruntime"),
        ("h5py", ["prep", "shards", "data/mini/train", "out"], "it is needed for shards: pip install h5py"),
        ("yaml", ["count", "setk/configs/fspen.yaml"], "it is needed for configs: pip install pyyaml"),
        ("typer", ["score", "--help"], "setk: the package typer is not installed; it is needed for every command"),
    ],
)
def test_a_missing_package_is_one_line_that_names_it(tmp_path, missing, args, words):
    code = f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = ['setk', *{args!r}]; runpy.run_module('setk', run_name='__main__')"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr, done.stderr


def test_a_missing_module_of_setk_is_not_explained_away():
    assert packages.explain(ModuleNotFoundError("No module named 'setk.x'", name="setk.x")) is None
    assert (
        packages.explain(ModuleNotFoundError("", name="numba"))
        == "the package numba is not installed: pip install numba"
    )


def test_the_index_of_the_included_models_is_current():
    facts = pretrained.index()
    assert list(facts) == list(pretrained.included())
    for name, path in pretrained.included().items():
        assert facts[name] == checkpoint.describe(path), (
            "run: python -c 'from setk import checkpoint; checkpoint.write_index()'"
        )


@pytest.mark.parametrize("name", pretrained.included())
def test_the_parameters_of_an_included_model_are_those_of_se_count(name):
    assert package.load(name).parameters == package.count(name)["params"], (
        "run: python -c 'from setk import checkpoint; checkpoint.write_index()'"
    )


# ── version, citation, references ───────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == changes[0] == package.__version__
    assert (
        citation["license"] == project()["license"]
        and {"cff-version", "message", "title", "authors"} <= citation.keys()
    )


def test_the_references_hold_every_model_with_a_key_and_balanced_braces():
    text = (ROOT / "docs/references.bib").read_text()
    entries = re.findall(r"^@(\w+)\{(\w+),\n((?:  .*\n)+)\}$", text, re.MULTILINE)
    keys = [key for _, key, _ in entries]
    assert len(keys) == text.count("\n@") and len(set(keys)) == len(keys)
    assert set(models.names()) <= set(keys)
    for kind, key, body in entries:
        fields = dict(re.findall(r"^  (\w+)\s*= \{(.*)\},$", body, re.MULTILINE))
        assert len(fields) == len(body.splitlines()) and body.count("{") == body.count("}"), key
        assert {"title", "year"} <= fields.keys() and re.fullmatch(r"\d{4}", fields["year"]), key
        needs = {"article": "journal", "inproceedings": "booktitle", "techreport": "institution"}.get(kind)
        assert needs is None or needs in fields, key
