"""What all commands share for a person at a shell: help, versions, one-line errors, man pages, completions, tables on a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

import pytest
from conftest import PATIENCE, ROOT
from setk.cli import COMMANDS, manual
from setk.core import keys
from setk.core.errors import UserError
from setk.training.settings import Settings, resolve


def pages():
    return [manual.page(command) for command in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_groups_examples_and_a_short_form(se, command):
    short, long = se(command, "-h"), se(command, "--help")
    assert short.returncode == 0 and short.out == long.out
    for title in ("Usage: ", "General:", "Examples:"):
        assert title in short.out
    for option in ("-q, --quiet", "--version", "--print-completion SHELL"):
        assert option in short.out


@pytest.mark.parametrize("command", COMMANDS)
def test_version_is_one_line_with_the_libraries(se, command):
    done = se(command, "--version")
    assert done.returncode == 0 and done.out.count("\n") == 1
    assert done.out.startswith("setk ") and "torch " in done.out and "onnxruntime " in done.out


def test_every_option_says_what_it_accepts_and_means():
    for top in pages():
        for one in (top, *top.subcommands):
            assert one.examples, one.name
            for parameter in one.parameters:
                assert parameter.help, f"{one.name} {parameter.label}"
                assert "<" not in parameter.label, f"{one.name} {parameter.label}"


def test_every_example_uses_options_that_exist():
    for top in pages():
        for one in (top, *top.subcommands):
            for line in one.examples:
                words = line.split("#")[0].split("|")[-1 if one.name not in line.split("|")[0] else 0].split()
                known = {name for parameter in one.parameters for name in parameter.names}
                known |= {name for sub in one.subcommands for parameter in sub.parameters for name in parameter.names}
                if words[:1] == [top.name]:
                    assert not {word for word in words if word.startswith("--")} - known, line


@pytest.mark.parametrize(
    "args, words",
    [
        (("enhance", "fspen", "--jobs", "0"), "--jobs"),
        (("score", "--nope"), "--nope"),
        (("train", "fspen"), "--train"),
        (("quant", "exprot"), "exprot"),
        (("count",), "MODEL"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_help(se, args, words):
    done = se(*args)
    assert done.returncode == 2 and done.out == ""
    assert done.err.count("\n") == 1 and words.lower() in done.err.lower() and done.err.rstrip().endswith("-h")


@pytest.mark.parametrize("setting", ["lr=abc", "mixing.snr=[1]", "optimizer=sgd"])
def test_a_wrong_setting_names_the_option(setting):
    with pytest.raises(UserError, match=f"^--set {setting.split('=')[0]}="):
        resolve("fspen", [setting])


def test_quiet_prints_only_errors(se, tmp_path):
    noisy = ROOT / "data" / "mini" / "test" / "noisy" / "mona_0001.flac"
    assert se("enhance", "fspen", noisy, tmp_path / "a.wav").err
    assert se("enhance", "fspen", noisy, tmp_path / "b.wav", "-q").err == ""
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert "missing.wav" in se("enhance", "fspen", "missing.wav", tmp_path / "c.wav", "--quiet").err


def test_bash_completes_commands_options_and_values(tmp_path):
    script = tmp_path / "all.bash"
    script.write_text(manual.completion("bash"))

    def complete(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f". {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _setk; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        return set(
            subprocess.run(
                ["bash", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
            ).stdout.splitlines()
        )

    assert {"--list", "--limit"} <= complete("se-enhance", "fspen", "--l")
    assert complete("se-count", "fspen", "--convention", "") == {"setk", "ptflops", "legacy"}
    assert {"shards", "split", "sources"} <= complete("se-prep", "s")
    assert complete("se-quant", "ptq", "--method", "m") == {"minmax", "mse"}
    assert "average" in complete("se-train", "av") and "--metrics" in complete("se-train", "average", "--m")
    assert "--dry-run" in complete("se-train", "fspen", "--d")
    (tmp_path / "my file.wav").touch()
    assert complete("se-score", "my") == {"my file.wav"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_valid_scripts(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed (Debian: apt-get install {shell})")
    script = tmp_path / "script"
    script.write_text(manual.completion(shell))
    subprocess.run([shell, "-n", script], check=True)


def test_an_unknown_shell_is_an_error():
    with pytest.raises(UserError, match="bash, zsh, fish"):
        manual.completion("tcsh")


@pytest.mark.parametrize("command", COMMANDS)
def test_man_pages_have_no_warnings(command, tmp_path):
    if not shutil.which("groff"):
        pytest.skip("groff is not installed (Debian: apt-get install groff)")
    page = tmp_path / "page.1"
    page.write_text(manual.man(command))
    done = subprocess.run(["groff", "-man", "-ww", "-Wbreak", "-Tutf8", page], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and f"se-{command}" in done.stdout


def test_keys_have_types_defaults_and_meanings():
    found = {key.name: key for key in keys.keys(Settings)}
    assert (
        found["model"].default == "required"
        and found["steps"].type == "int"
        and found["mixing.snr"].type == "[float, float]"
    )
    assert found["discriminator.weight"].default == "0.05" and found["metrics"].type == "list of text"
    assert len(found) > 50 and sum(bool(key.meaning) for key in found.values()) > 0.7 * len(found)


def test_a_terminal_gets_an_aligned_table_and_a_pipe_tsv():
    def shown(stdout: int) -> None:
        subprocess.run(
            [sys.executable, "-P", "-m", "setk", "enhance", "--list-models"],
            stdout=stdout,
            cwd=ROOT,
            check=True,
            timeout=PATIENCE,
        )

    ours, theirs = pty.openpty()
    shown(theirs)
    os.close(theirs)
    terminal = os.read(ours, 1 << 16).decode().splitlines()
    os.close(ours)
    piped = subprocess.run(
        [sys.executable, "-P", "-m", "setk", "enhance", "--list-models"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.splitlines()
    assert [line.split()[0] for line in terminal] == [line.split("\t")[0] for line in piped]
    assert "\t" not in "".join(terminal) and piped[1].startswith("noisy\t")
    assert "86.4k" in next(line for line in terminal if line.startswith("fspen"))
