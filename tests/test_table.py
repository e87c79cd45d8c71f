"""recipes/open/table.sh: one table of all models, from scores and counts that anybody can make again."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys

import pytest
import torch

import setk
from setk import pretrained
from setk.data.lists import read_list
from conftest import MINI, PATIENCE, ROOT


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
        ["bash", "recipes/open/table.sh", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
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
    assert (
        "## Quiet input, long input, clean input, noise alone" in text
        and "| untrained |" in text.split("## Quiet input")[1]
    )
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


@pytest.mark.parametrize("name", list(pretrained.included()))
def test_a_card_states_the_scores_of_the_table(name):
    card = " ".join((ROOT / f"setk/pretrained/{name}.md").read_text().split())
    found = json.loads((ROOT / f"results/open/{name}/scores.json").read_text())["metrics"]
    shown = {"pesq_wb": ".2f", "stoi": ".3f", "estoi": ".3f", "si_sdr": ".2f"}
    row = [f"{m['mean']:{f}} [{m['low']:{f}}, {m['high']:{f}}]" for m, f in ((found[k], f) for k, f in shown.items())]
    assert f"| {name} | {' | '.join(row)} |" in card
    assert f"{name} " + " / ".join(f"{found[f'dnsmos_{k}']['mean']:.2f}" for k in ("sig", "bak", "ovrl")) in card
    with open(ROOT / f"results/open/{name}/conditions.tsv", newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    clean_pesq, clean_snr, left = (
        sum(float(row[column]) for row in rows) / len(rows)
        for column in ("clean_pesq_wb", "clean_si_sdr", "noise_left")
    )
    assert f"Clean speech as input: PESQ-WB {clean_pesq:.2f}, SI-SDR {clean_snr:.1f} dB." in card
    assert f"Noise alone as input: {-left:.1f} dB less." in card


def test_readme_states_the_scores_of_the_table():
    metrics = {"pesq_wb": ".2f", "stoi": ".3f", "estoi": ".3f", "si_sdr": ".2f"}
    shown = dict(
        re.findall(r"^\| [`*]?([^|`*]+)[`*]? \|(?: [^|]*\|){3} (.+) \|$", (ROOT / "README.md").read_text(), re.M)
    )
    expected = {}
    for name, key in (("noisy", "noisy input"), ("fspen", "fspen"), ("dpcrn_cf", "dpcrn_cf")):
        found = json.loads((ROOT / f"results/open/{name}/scores.json").read_text())["metrics"]
        cells = [f"{found[metric]['mean']:{form}}" for metric, form in metrics.items()]
        cells[0] += " [{low:.2f}, {high:.2f}]".format(**found["pesq_wb"])
        expected[key] = " | ".join(cells)
    with open(ROOT / "results/open/peers.tsv", newline="") as f:
        peers = {row["system"]: row for row in csv.DictReader(f, delimiter="\t")}
    for name, key in (("RNNoise 0.1.1", "RNNoise 0.1.1"), ("UL-UNAS", "UL-UNAS"), ("DPCRN small", "DPCRN")):
        cells = [f"{float(peers[name][m]):{form}}" if peers[name][m] else "" for m, form in metrics.items()]
        expected[key] = " | ".join(cells).replace("|  |", "| |")
    assert {key: shown[key] for key in expected} == expected


def test_without_a_corpus_it_says_what_is_missing():
    done = table("--models", "fspen")
    assert done.returncode == 2 and "--root CORPUS is missing" in done.stderr


@pytest.mark.full
def test_conditions_are_measured_and_grouped_by_what_each_pair_is_made_of(corpus, untrained, tmp_path):
    lists = [f"{kind}.scp" for kind in ("noisy", "clean")]
    utts = list(read_list(MINI / "test/noisy.scp").items())[:2]
    for name, kind in zip(lists, ("noisy", "clean")):
        places = read_list(MINI / "test" / f"{kind}.scp")
        (tmp_path / name).write_text("".join(f"{utt} {ROOT / places[utt]}\n" for utt, _ in utts))
    (tmp_path / "pairs.tsv").write_text(
        "set\tid\tnoise\tsnr_db\n"
        + "".join(f"test\t{utt}\t{noise}\t{snr}\n" for (utt, _), noise, snr in zip(utts, ("fan", "horn"), (2.5, 12.5)))
    )
    out = tmp_path / "results"
    (out / "untrained").mkdir(parents=True)
    (out / "untrained/scores.tsv").write_text(
        "utt\tpesq_wb\tsi_sdr\n" + "".join(f"{utt}\t{2 + i}\t{10 + i}\n" for i, (utt, _) in enumerate(utts))
    )
    subprocess.run(
        [
            sys.executable,
            "-P",
            "recipes/open/conditions.py",
            *(str(tmp_path / name) for name in (*lists, "pairs.tsv")),
            str(out),
            str(untrained),
        ],
        cwd=ROOT,
        check=True,
        timeout=PATIENCE,
    )
    text = (out / "conditions.md").read_text()
    assert (
        "| model | 2.5 (1) | 12.5 (1) |" in text
        and "| untrained | 2.00 | 3.00 |" in text
        and "| model | fan (1) | horn (1) |" in text
    )
    rows = list(csv.DictReader(open(out / "untrained/conditions.tsv"), delimiter="\t"))
    assert [row["utt"] for row in rows] == [utt for utt, _ in utts]
    # By itself: the model on the clean speech of the first pair.
    from setk import audio, checkpoint
    from setk.metrics import compute

    clean, _ = audio.read_mono(str(ROOT / read_list(MINI / "test/clean.scp")[utts[0][0]]), 16000)
    with torch.inference_mode():
        estimate = checkpoint.load(untrained)[0].eval().enhance(torch.from_numpy(clean)[None])[0].numpy()
    assert float(rows[0]["clean_si_sdr"]) == pytest.approx(
        compute(clean, estimate, 16000, ["si_sdr"])[0]["si_sdr"], abs=0.01
    )
    assert -60 < float(rows[0]["noise_left"]) < 20


def test_the_bytes_of_a_row_are_those_of_the_file_that_runs():
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "RESULTS.md").read_text().splitlines()]
    header = next(row for row in rows if row[:1] == ["model"] and "bytes" in row)
    costs: dict[str, str] = {}
    for row in rows[rows.index(header) + 2 :]:
        if len(row) != len(header):
            break
        costs[row[0]] = row[header.index("bytes")]
    folder = ROOT / "setk/pretrained"
    for model in (path.stem for path in folder.glob("*.pt")):
        runs = next(path for path in (folder / f"{model}.onnx", folder / f"{model}.pt") if path.exists())
        assert int(costs[model].replace(",", "")) == runs.stat().st_size, f"{model}: run recipes/open/table.sh again"


@pytest.mark.full
@pytest.mark.parametrize("name", list(pretrained.included()))
def test_the_stored_cost_is_that_of_the_included_model(name):
    stored = json.loads((ROOT / f"results/open/{name}/count.json").read_text())
    assert stored == setk.count(name), f"{name}: run recipes/open/table.sh again"


@pytest.mark.full
def test_the_page_of_examples_plays_and_credits(tmp_path):
    ids = [line.split()[0] for line in (MINI / "test/noisy.scp").read_text().splitlines()[:2]]
    rows = "".join(f"{utt}\tspeaker of {utt}\tfan\tCC0 & free\n" for utt in ids)
    (tmp_path / "examples.tsv").write_text("id\tspeech\tnoise\tcredit\n" + rows)
    args = [
        "--pairs",
        MINI / "test",
        "--examples",
        tmp_path / "examples.tsv",
        "--page",
        tmp_path / "page.html",
        "--seconds",
        "1",
    ]
    done = subprocess.run(["bash", ROOT / "recipes/open/examples.sh", *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    for utt in ids:
        assert f"<li>{utt}: speech: speaker of {utt}; noise: fan, CC0 &amp; free</li>" in page
    assert page.count("<audio") >= 4 * len(ids)  # noisy, two models, clean
    assert (ROOT / "RESULTS.html").stat().st_size < 3e6
