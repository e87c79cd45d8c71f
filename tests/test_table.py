"""recipes/open/table.sh: one table of all models, from scores and counts that anybody can make again."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from setk.data.lists import read_list
from conftest import MINI, ROOT


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The lists of an open corpus, two pairs long."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "lists").mkdir()
    for part in ("valid", "test"):
        for kind in ("noisy", "clean"):
            some = list(read_list(str(MINI / part / f"{kind}.scp")).items())[:2]
            lines = [f"{utt} {os.path.relpath(ROOT / path, root)}\n" for utt, path in some]
            (root / "lists" / f"{part}_{kind}.scp").write_text("".join(lines))
    for kind in ("speech", "noise"):
        (root / "lists" / f"{kind}_train.scp").write_text("")
    return root


def table(*args):
    return subprocess.run(
        ["bash", "recipes/open/table.sh", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.mark.full
def test_a_model_of_mine_stands_beside_noisy_with_every_number_from_its_file(corpus, untrained, tmp_path):
    out = tmp_path / "results"
    args = [
        "--models",
        untrained,
        "--dir",
        tmp_path / "exp",
        "--data",
        tmp_path / "data",
        "--out",
        out,
        "--table",
        tmp_path / "T.md",
    ]
    done = table("--root", corpus, *args)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "T.md").read_text()
    assert text == done.stdout and (tmp_path / "T.png").stat().st_size > 5000
    scores = json.loads((out / "untrained" / "scores.json").read_text())["metrics"]
    row = next(line for line in text.splitlines() if line.startswith("| untrained |"))
    assert f"{scores['pesq_wb']['mean']:.2f} [" in row and f"{scores['covl']['mean']:.2f} [" in row
    count = json.loads((out / "untrained" / "count.json").read_text())
    assert f"| untrained | {count['params']:,} |" in text
    # The table alone, from what is there, is the same table.
    (tmp_path / "T.md").unlink()
    assert table("--stage", 4, "--out", out, "--table", tmp_path / "T.md").stdout == text
    # Fewer jobs leave nothing of the many.
    again = table("--root", corpus, *args, "--stop-stage", 2, "--nj", 1)
    assert again.returncode == 0, again.stderr


def test_the_committed_table_is_that_of_the_committed_scores(tmp_path):
    done = table("--stage", 4, "--table", tmp_path / "RESULTS.md")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "RESULTS.md").read_text()
    shipped = {p.stem for p in (ROOT / "setk" / "pretrained").glob("*.pt")}
    assert shipped == set(re.findall(r"^\| ([\w-]+) \| [\d,]+ \|", done.stdout, re.M))


def test_without_a_corpus_it_says_what_is_missing():
    done = table("--models", "fspen")
    assert done.returncode == 2 and "--root CORPUS is missing" in done.stderr
