"""Every command block of README.md and docs/ runs as it is written, in order, one page after another.

Blocks marked `sh` and `python` run in a folder that has the checkout's bin, recipes and data, and recordings as the pages
name them: clean.wav, noisy.wav, clean/ and noise/ with their wav lists. Blocks marked `text` show output or need a
corpus, a cluster or a device; tests of their own run those commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import MINI, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/from").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = ("sh", "python", "text", "c", "kotlin", "swift", "csharp", "yaml", "bibtex")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_says_what_it_is(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))
    assert not [kind for kind, _ in blocks(page) if kind not in KINDS]


@pytest.fixture
def desk(tmp_path) -> Path:
    """A folder with the checkout's commands and a few recordings."""
    for name in ("bin", "recipes", "data"):
        target = ROOT / name
        if name == "data":
            (tmp_path / name).mkdir()
            (tmp_path / name / "mini").symlink_to(MINI)
        else:
            (tmp_path / name).symlink_to(target)
    noise, lists = tmp_path / "noise", {"noisy": [], "clean": [], "speech": [], "noise": []}
    noise.mkdir()
    for kind in ("noisy", "clean"):
        (tmp_path / kind).mkdir()
    for source in sorted((MINI / "test" / "noisy").glob("*.flac"))[:8]:
        noisy, rate = soundfile.read(source, dtype="float32")
        clean, _ = soundfile.read(MINI / "test" / "clean" / source.name, dtype="float32")
        for kind, x in (("noisy", noisy), ("clean", clean), ("noise", noisy - clean)):
            soundfile.write(tmp_path / kind / f"{source.stem}.wav", np.asarray(x), rate)
            lists[kind].append(f"{source.stem} {kind}/{source.stem}.wav\n")
    lists["speech"] = lists["clean"]
    for kind, lines in lists.items():
        (tmp_path / f"{kind}.scp").write_text("".join(lines))
    (tmp_path / "utt2snr").write_text((MINI / "test" / "utt2snr").read_text())
    for kind in ("noisy", "clean"):
        (tmp_path / f"{kind}.wav").symlink_to(sorted((tmp_path / kind).glob("*.wav"))[0])
    return tmp_path


@pytest.mark.full
def test_readme_is_short_and_its_blocks_run(desk):
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    run(ROOT / "README.md", desk)


@pytest.mark.full
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES[1:] if p.stem != "tutorial" and {"sh", "python"} & {kind for kind, _ in blocks(p)}],
    ids=lambda p: p.name,
)
def test_the_blocks_of_a_page_run(page, desk):
    run(page, desk)


@pytest.mark.full
def test_the_tutorial_needs_nothing_but_the_checkout(tmp_path):
    for name in ("bin", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mini").symlink_to(MINI)
    run(ROOT / "docs/tutorial.md", tmp_path)


def run(page: Path, desk: Path) -> None:
    """Run a page's blocks, each in a process, in one folder."""
    bins = os.pathsep.join([str(ROOT / "bin"), str(ROOT / "recipes" / "utils"), str(Path(sys.executable).parent)])
    env = {**os.environ, "PATH": os.pathsep.join([bins, os.environ["PATH"]])}
    for kind, text in blocks(page):
        if kind not in ("sh", "python"):
            continue
        command = ["bash", "-e", "-o", "pipefail", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=desk, env=env, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stderr[-2000:]}"


def test_every_link_of_a_page_leads_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "setk.cli.manual", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"run python -m setk.cli.manual; stale:\n{done.stdout}{done.stderr[-500:]}"
