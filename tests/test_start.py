"""Start-up: a command line of arguments and flags runs without typer, and means what typer makes of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main
from commands import ROOT

from setk.cli import app, enhance
from setk.native import kernels

PARSER = typer.main.get_command(enhance.app.parser)
# What the native engine does not need, and what takes longest to import.
SLOW = (
    "typer",
    "pydantic",
    "torch",
    "onnxruntime",
    "yaml",
    "soxr",
    "multiprocessing",
    "concurrent.futures",
    "importlib.metadata",
)


@pytest.mark.skipif(kernels.library() is None, reason="setk's kernels were not built")
@pytest.mark.parametrize(
    "words, more", [(["fspen", "{source}", "{out}"], []), (["fspen", "-", "-", "--raw"], ["soundfile"])]
)
def test_a_short_command_imports_only_what_it_runs(tmp_path, words, more):
    argv = [
        word.format(source=ROOT / "data/mini/test/noisy/mona_0001.flac", out=tmp_path / "out.wav") for word in words
    ]
    code = (
        f"import sys; sys.argv = ['se-enhance', *{argv!r}]\nfrom setk.cli import enhance\nenhance.main()\n"
        f"bad = [m for m in {(*SLOW, *more)!r} if m in sys.modules]\nassert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, input=bytes(2048))
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout) == (2048 if "-" in argv else 0)


def parsed(words: list[str]) -> tuple[dict, dict]:
    ctx = PARSER.make_context("se-enhance", list(words))
    return ctx.params, app.given(ctx)


@pytest.mark.parametrize(
    "line",
    [
        "fspen",
        "fspen in.wav out.wav",
        "fspen - -",
        "fspen - - --raw --live",
        "--raw fspen - out.raw --raw --strict",
        "fspen in.wav in.wav --force",
    ],
)
def test_a_line_without_typer_means_the_same(line):
    words = line.split()
    found = app.plain_line(enhance.enhance, enhance.PLAIN, words)
    params, given = parsed(words)
    assert found.params == params
    assert found.given.keys() == given.keys()
    assert all(found.given[name] == given[name] for name in enhance.PLAIN.flags if name in given)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-h",
        "fspen --version",
        "fspen in.wav out.wav -q",
        "fspen in.wav out.wav --limit 12",
        "fspen in.wav out.wav --limit=12",
        "fspen in.wav out.wav more.wav",
        "fspen - - --raw --rate 8000",
        "fspen - - --ra",
        "fspen -- -in.wav out.wav",
        "fspen --list n.scp --out e",
        "--list-models",
    ],
)
def test_any_other_line_is_for_typer(line):
    assert app.plain_line(enhance.enhance, enhance.PLAIN, line.split()) is None


def test_every_flag_without_typer_is_one_of_typer():
    by_name = {param.name: param for param in PARSER.params}
    assert all(by_name[name].is_flag and by_name[name].opts == [f"--{name}"] for name in enhance.PLAIN.flags)
    arguments = [param.name for param in PARSER.params if param.param_type_name == "argument"]
    assert list(enhance.PLAIN.arguments) == arguments


def test_options_that_do_not_apply_are_refused_without_typer_too(se, tmp_path):
    refused = se("enhance", "fspen", "data/mini/test/noisy/mona_0001.flac", tmp_path / "o.wav", "--live")
    assert refused.returncode == 2 and "--live is for standard input" in refused.err
    refused = se("enhance", "fspen", "in.wav", tmp_path / "o.wav", "--raw")
    assert refused.returncode == 2 and "--raw is for pipes" in refused.err
    refused = se("enhance", "fspen", "in.wav")
    assert refused.returncode == 2 and "write 'se-enhance MODEL noisy.wav out.wav'" in refused.err
