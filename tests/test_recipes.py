"""Recipes as a user runs them: the whole chain on the embedded corpus, and on a tree like VoiceBank+DEMAND's."""

from __future__ import annotations

import json
import os
import subprocess

import h5py
import pytest
import yaml

from conftest import MINI, PATIENCE, ROOT, command
from setk import audio
from setk.data.datadir import DataDir

TINY = "config.groups=2 config.dpe_blocks=1 batch=2 segment=0.5 steps=4 warmup=1 valid_every=4 save_every=2 workers=0"


@pytest.fixture
def recipe(tmp_path):
    """Run a recipe with tiny training into tmp_path."""
    if not (ROOT / ".venv").exists():
        pytest.skip("recipes run bin/se-*, which need the .venv of bin/setup")

    def run(name, *args, env=None):
        # The test writes outside the checkout's exp/, which a user may be using.
        argv = ["bash", ROOT / "recipes" / name, "--dir", tmp_path / "exp", "--set", TINY, *map(str, args)]
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=PATIENCE,
            env={**os.environ, "VBD_ROOT": "", **(env or {})},
        )

    return run


@pytest.mark.full
def test_without_a_root_the_chain_runs_on_the_embedded_corpus_and_says_so(recipe, tmp_path):
    done = recipe("vbd/fspen.sh")
    assert done.returncode == 0, done.stderr
    assert "NO CORPUS ROOT GIVEN" in done.stderr and "mini" in done.stdout
    results = (tmp_path / "exp/RESULTS.md").read_text()
    assert "label mini" in results and "| noisy |" in results and "FSPEN (Yang et al. 2024)" in results
    noisy, enhanced = (json.loads((tmp_path / f"exp/{k}.json").read_text()) for k in ("noisy", "enhanced"))
    assert noisy["scored"] == enhanced["scored"] == 16
    # The last two commands of RESULTS.md give its numbers again.
    command = [line.strip() for line in results.splitlines() if line.strip().startswith("se-count")][0]
    again = subprocess.run(
        ["bash", "-c", f"PATH={ROOT}/bin:$PATH; {command}"], capture_output=True, text=True, cwd=ROOT
    )
    assert json.loads(again.stdout)["params"] == json.loads((tmp_path / "exp/count.json").read_text())["params"]


@pytest.mark.full
def test_a_recipe_at_48_khz_runs_all_stages(recipe, tmp_path):
    tiny = "config.channels=8 config.blocks=1 batch=2 segment=0.5 steps=4 warmup=1 valid_every=4 save_every=2 workers=0"
    done = recipe("vbd/fastenhancer_48k.sh", "--set", tiny)
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "exp"
    rates = {audio.probe(noisy).rate for noisy, _ in DataDir(exp / "data/train").pairs().values()}
    assert rates == {48000}
    with h5py.File(exp / "shards/pairs.1.h5") as f:
        assert f.attrs["sample_rate"] == 48000
    enhanced = sorted((exp / "enhanced").glob("*.wav"))
    assert len(enhanced) == 3 and {audio.probe(str(path)).rate for path in enhanced} == {48000}
    scores = json.loads((exp / "enhanced.json").read_text())
    assert scores["scored"] == 3 and scores["metrics"]["pesq_wb"]["mean"] > 1
    assert json.loads((exp / "count.json").read_text())["latency_ms"] == pytest.approx(1000 * 1024 / 48000)


def vbd_tree(root):
    """A tree of VoiceBank+DEMAND's layout at 48 kHz: training speakers, the two held out, and test ones."""
    sources = iter(DataDir(MINI / "test").pairs().values())
    for split, names in [
        ("train", ["p226_001", "p287_001", "p228_001", "p228_002", "p230_001"]),
        ("test", ["p232_001", "p257_002"]),
    ]:
        part = "trainset_28spk" if split == "train" else "testset"
        for name in names:
            for kind, path in zip(("noisy", "clean"), next(sources)):
                x, rate = audio.read(str(ROOT / path))
                audio.write(root / f"{kind}_{part}_wav" / f"{name}.wav", audio.resample(x, rate, 48000), 48000)
    return root


@pytest.mark.full
def test_a_tree_of_vbd_stops_at_the_noisy_gate_unless_told(recipe, tmp_path):
    root = vbd_tree(tmp_path / "a tree p226")
    # From another directory, with a path relative to it.
    done = recipe("vbd/fspen.sh", "--root", root.name, "--data", tmp_path / "data", "--shards", tmp_path / "shards")
    assert done.returncode == 1 and "noisy_gate" in done.stderr and "expected 1.965 to 1.975" in done.stderr, (
        done.stderr
    )
    assert not (tmp_path / "exp/enhanced.tsv").exists()
    done = recipe(
        "vbd/fspen.sh",
        "--root",
        root,
        "--data",
        tmp_path / "data",
        "--shards",
        tmp_path / "shards",
        "--noisy-gate",
        "false",
        "--stage",
        5,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[0] for line in open(tmp_path / "data/valid/noisy.scp")) == ["p226_001", "p287_001"]
    assert (
        not list((root / "noisy_testset_wav").glob("*16*"))
        and "# fspen on vbd" in (tmp_path / "exp/RESULTS.md").read_text()
    )


@pytest.mark.parametrize(
    "args, words",
    [
        (["--stagee", "1"], "did you mean --stage"),
        (["--root", "/nope"], "no such directory"),
        (["--noisy-gate", "yes"], "true or false"),
        (["--stage", "x"], "--stage x: must be a whole number"),
        (["--stage", "5", "--stop-stage", "2"], "comes after --stop-stage 2"),
        (["--nj", "0"], "at least 1"),
        (["corpora/VBD"], "did you mean --root corpora/VBD"),
    ],
)
def test_wrong_options_are_told(recipe, args, words):
    done = recipe("vbd/fspen.sh", *args)
    assert done.returncode == 2 and words in done.stderr


def test_help_prints_the_usage_and_every_option_with_its_meaning(recipe):
    done = recipe("vbd/fspen.sh", "--help")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert (
        lines[0].startswith("FSPEN on VoiceBank+DEMAND")
        and "  bash recipes/vbd/fspen.sh --root /data/VBD" in done.stdout
    )
    options = {line.split()[0]: line for line in lines if line.startswith("  --")}
    assert set(options) == {
        f"--{name}"
        for name in (
            "root",
            "dir",
            "data",
            "shards",
            "conf",
            "init",
            "noisy-gate",
            "set",
            "stage",
            "stop-stage",
            "nj",
            "cmd",
            "train-cmd",
            "cpu-cmd",
        )
    }
    assert (
        "'fspen'" in options["--conf"]
        and "parallel jobs" in options["--nj"]
        and lines[-1].startswith("Stages: 0 prepare, 1 shards")
    )


def test_a_path_is_relative_to_where_the_user_is(tmp_path):
    (tmp_path / "my.yaml").write_text("")
    (tmp_path / "corpus").mkdir()
    script = (
        f'conf=fspen models=fspen; . "{ROOT}/recipes/utils/recipe.sh" vbd x "$@"\n'
        'printf "%s\\n" "$root" "$dir" "$data" "$conf" "$init" "$train" "$shards" "$models"'
    )
    (tmp_path / "recipe.sh").write_text(script)
    args = ["--root", "corpus", "--dir", "exp", "--conf", "my.yaml", "--init", "fspen", "--models", "my.yaml dpsnn"]
    done = subprocess.run(["bash", "recipe.sh", *args], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/corpus",
        f"{tmp_path}/exp",
        "exp/vbd/data",
        f"{tmp_path}/my.yaml",
        "fspen",
        "exp/vbd/data/train",
        "exp/vbd/shards",
        f"{tmp_path}/my.yaml dpsnn",
    ]


@pytest.mark.full
def test_a_model_trained_in_parts_begins_each_from_the_best_of_the_one_before(recipe, tmp_path):
    done = recipe("open/fspen.sh", "--stop-stage", 2)
    assert done.returncode == 0, done.stderr
    begun = {
        part: yaml.safe_load((tmp_path / "exp" / part / "config.yaml").read_text()) for part in ("first", "second", ".")
    }
    assert begun["first"]["losses"] != begun["second"]["losses"] and {config["steps"] for config in begun.values()} == {
        4
    }
    again = recipe("open/fspen.sh", "--stop-stage", 2, "--init", tmp_path / "exp/best.pt", "--dir", tmp_path / "mine")
    assert again.returncode == 0 and not (tmp_path / "mine/first").exists() and (tmp_path / "mine/best.pt").exists()


@pytest.mark.full
def test_the_mean_of_two_checkpoints_lies_between_them(tmp_path):
    import torch

    from setk import checkpoint, models

    for seed in (1, 2):
        torch.manual_seed(seed)
        model = models.build("fspen", {"groups": 2, "dpe_blocks": 1})
        checkpoint.save(tmp_path / f"{seed}.pt", model, {}, settings={"seed": seed})
    done = subprocess.run(
        [
            *command("train"),
            "average",
            tmp_path / "mean.pt",
            tmp_path / "1.pt",
            tmp_path / "2.pt",
            "--valid",
            MINI / "valid",
            "--metrics",
            "stoi",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    a, b, mean = (checkpoint.read(tmp_path / f"{name}.pt") for name in ("1", "2", "mean"))
    assert all(
        torch.allclose(x.double(), (a["weights"][name].double() + b["weights"][name]) / 2)
        for name, x in mean["weights"].items()
    )
    assert mean["provenance"]["settings"] == [{"seed": 1}, {"seed": 2}] and mean["scores"]["valid"]["stoi"] > 0
    checkpoint.save(tmp_path / "other.pt", models.build("fspen", {"groups": 4, "dpe_blocks": 1}), {})
    done = subprocess.run(
        [
            *command("train"),
            "average",
            tmp_path / "no.pt",
            tmp_path / "1.pt",
            tmp_path / "other.pt",
            "--valid",
            MINI / "valid",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2 and "not the same config" in done.stderr and not (tmp_path / "no.pt").exists()


VARIED = TINY.replace("config.groups=2 config.dpe_blocks=1 ", "")


@pytest.mark.full
def test_variants_are_trained_alike_with_each_seed_and_compared(recipe, tmp_path):
    done = recipe("ablation.sh", "--paper", "fspen", "--only", "P1_D1 P8_D3", "--seeds", "1 2", "--set", VARIED)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "exp/ablation.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: dict(zip(rows[0], row)) for row in rows[2:]}
    assert list(table) == ["P8_D3", "P1_D1"] and (table["P1_D1"]["params"], table["P8_D3"]["params"]) == (
        "30.9 k",
        "86.4 k",
    )
    assert "(mini)" in text and "Label mini" in text and "seeds: 1 2" in text
    # Scores of every pair are kept for each seed; the difference is that of their means.
    columns = {}
    for variant in table:
        for seed in (1, 2):
            lines = (tmp_path / f"exp/{variant}/seed{seed}/enhanced.tsv").read_text().splitlines()
            at = lines[0].split("\t").index("si_sdr")
            columns[variant, seed] = [float(line.split("\t")[at]) for line in lines[1:]]
            config = yaml.safe_load((tmp_path / f"exp/{variant}/seed{seed}/config.yaml").read_text())
            assert config["seed"] == seed and config["steps"] == 4
    each = [
        sum(b - a for a, b in zip(columns["P8_D3", seed], columns["P1_D1", seed])) / len(columns["P8_D3", seed])
        for seed in (1, 2)
    ]
    cell = table["P1_D1"]["SI-SDR, dB against P8_D3"]
    assert cell.startswith(f"{sum(each) / 2:+.2f} [") and cell.endswith(f"; seeds {each[0]:+.2f}, {each[1]:+.2f}")
    # Every metric has one sentence, which names the variant once.
    sentences = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(sentences) == len([name for name in rows[0] if name.endswith("against P8_D3")])
    assert all(line.count("P1_D1") == 1 for line in sentences)
    # One variant alone, afterwards, is compared with the base that is there.
    done = recipe("ablation.sh", "--paper", "fspen", "--only", "P1_D1", "--seeds", "1 2", "--stage", "6")
    assert done.returncode == 0 and (tmp_path / "exp/ablation.md").read_text() == text, done.stderr


@pytest.mark.full
def test_one_variant_without_its_base_ends_with_a_table(recipe, tmp_path):
    done = recipe("ablation.sh", "--paper", "fspen", "--only", "P1_D1", "--set", VARIED, "--time", "true")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "exp/ablation.md").read_text()
    assert "| P1_D1 |" in text and "| hop, ONNX Runtime |" in text and "nothing to compare" in text


@pytest.mark.parametrize(
    "args, words",
    [
        (["--paper", "none"], "papers are fspen"),
        (["--paper", "dpsnn", "--only", "x"], "no such variant; whole two_blocks"),
        (["--corpus", "none"], "choose vbd, librimix"),
        (["--score-on", "train"], "choose valid or test"),
    ],
)
def test_an_ablation_that_cannot_be_is_one_line(recipe, args, words):
    done = recipe("ablation.sh", *args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("paper", ["fspen", "fspen_losses", "lite_rtse", "dpsnn", "dpcrn_cf", "effifusion_gan", "fqse"])
def test_every_variant_is_a_config_that_resolves(paper):
    import csv

    from setk.training.settings import resolve

    with open(ROOT / "recipes/ablations.tsv") as f:
        rows = [row for row in csv.DictReader(f, delimiter="\t") if row["paper"] == paper]
    assert len(rows) >= 2 and len({row["variant"] for row in rows}) == len(rows)
    seen = []
    for row in rows:
        changes = [] if row["settings"] == "-" else row["settings"].split()
        settings = resolve(row["config"], changes)
        assert settings not in seen, f"{row['variant']} equals another variant"
        seen.append(settings)


@pytest.mark.full
def test_the_ablation_counts_its_grid(recipe, tmp_path):
    done = recipe(
        "ablation.sh", "--paper", "fspen", "--only", "P1_D1 P8_D1 P8_D2", "--stop-stage", "0", "--set", VARIED
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in (tmp_path / "exp/cost.tsv").read_text().splitlines()]
    macs = {r[0].rpartition("/")[2]: float(r[rows[0].index("macs_per_second")]) for r in rows[1:]}
    assert macs["P1_D1.yaml"] == macs["P8_D1.yaml"] and macs["P8_D2.yaml"] > macs["P8_D1.yaml"]


@pytest.mark.full
def test_fqse_ends_with_the_integer_file_its_scores_and_its_bytes(recipe, tmp_path):
    tiny = "batch=2 segment=0.5 steps=6 warmup=1 valid_every=6 save_every=3 quantization.observe=3 workers=0"
    small = "config.filters=64 config.bottleneck=32 config.hidden=48 config.skip=32 config.blocks=3"
    sizes = {name.removeprefix("config."): int(value) for name, value in (one.split("=") for one in small.split())}
    from setk import checkpoint, models

    checkpoint.save(tmp_path / "float.pt", models.build("conv_tasnet", {**sizes, "repeats": 2}), {})
    done = recipe("librimix/fqse.sh", "--init", tmp_path / "float.pt", "--set", f"{tiny} {small}")
    assert done.returncode == 0, done.stderr
    exp = tmp_path / "exp"
    text = (exp / "RESULTS.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: dict(zip(rows[0], row)) for row in rows[2:]}
    for name, file in (("**fqse, here**", "fqse.onnx"), ("the same, fqse.ts", "fqse.ts")):
        assert table[name]["bytes"] == f"{(exp / file).stat().st_size:,}"
    assert (exp / "fqse.onnx").stat().st_size < (exp / "best.pt").stat().st_size / 2
    assert table["**fqse, here**"]["SI-SDR, dB"] != "-" and "FQSE, 8 bits (published)" in table
    # The scores are those of the ONNX file.
    assert "fqse.onnx" in (exp / "log/enhance.1.log").read_text() or "fqse.onnx" in text
    assert len((exp / "integers.tsv").read_text().splitlines()) == 9 and "integer arithmetic alone, on 8" in text
