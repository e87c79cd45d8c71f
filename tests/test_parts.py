"""The part-out gate: each mechanism that a card names costs quality when it is taken out of the included weights, nothing that
learns is dead, and STOI is not below that of the noisy signal. What fails now is listed, here and on the card, and may not grow."""

from __future__ import annotations

import copy
import importlib.util
import re
import subprocess
import sys

import pytest
import torch
from conftest import PATIENCE, ROOT

from setk import checkpoint, models, pretrained
from setk.compress.parts import contributes, mean_scores, part_out, worse
from setk.core.errors import UserError
from setk.cost.synops import firing_rates

torch.set_num_threads(1)

# Known findings: parts whose loss does not cost two of three metrics.
IDLE_PARTS: dict[str, set[str]] = {
    "dpsnn": {"adaptation"},
    "effifusion_gan-small": {"phase"},
    "fqse-small": {"residual"},
    "lite_rtse": {"magnitude-residual", "multi-order", "phase"},
}


def script():
    """recipes/open/parts.py as a module."""
    spec = importlib.util.spec_from_file_location("parts", ROOT / "recipes/open/parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name, more", [("parts", []), ("conditions", ["recipes/open/pairs.tsv", "{out}"])])
def test_a_wrong_model_is_one_line(tmp_path, name, more):
    lists = [f"data/pairs/{kind}.scp" for kind in ("noisy", "clean")]
    more = [word.format(out=tmp_path) for word in more]
    done = subprocess.run(
        [sys.executable, "-P", f"recipes/open/{name}.py", *lists, *more, "fspem"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"{name}.py: no model is called 'fspem'") and not done.stdout


@pytest.fixture(scope="module")
def pairs():
    return script().read_pairs(str(ROOT / "data/pairs/noisy.scp"), str(ROOT / "data/pairs/clean.scp"))


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def parts_of_card(name):
    """Part -> yes or no, from the table of a card."""
    rows = re.findall(rf"^\| {re.escape(name)} \| ([a-z-]+) \|.*\| (yes|no) \|$", card(name), re.MULTILINE)
    return dict(rows)


def card(name):
    return (ROOT / "setk/pretrained" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", list(pretrained.included()))
def test_a_card_lists_the_parts_of_its_model_and_what_does_nothing(name):
    model = checkpoint.load(pretrained.included()[name])[0]
    listed = parts_of_card(name)
    assert list(listed) == list(model.parts), "run bash recipes/open/parts.sh, and put the rows on the card"
    assert {part for part, verdict in listed.items() if verdict == "no"} == IDLE_PARTS.get(name, set())


@pytest.mark.full
@pytest.mark.parametrize("name", list(pretrained.included()))
def test_every_part_of_the_included_weights_contributes(name, pairs):
    model = checkpoint.load(pretrained.included()[name])[0]
    complete, *rows = part_out(model, pairs)
    idle = {row["without"] for row in rows if not contributes(row["lost"])}
    assert idle <= IDLE_PARTS.get(name, set()), rows
    noisy = mean_scores(None, pairs)
    assert complete["stoi"] >= noisy["stoi"]
    assert complete["pesq_wb"] > noisy["pesq_wb"] or complete["si_sdr"] > noisy["si_sdr"]


@pytest.mark.parametrize("name", [name for name in pretrained.included() if name.startswith("dpsnn")])
def test_every_neuron_fires(name, pairs):
    model = checkpoint.load(pretrained.included()[name])[0]
    for layer, rates in firing_rates(model, [torch.from_numpy(noisy) for noisy, _ in pairs]).items():
        assert (rates > 0).all(), layer


@pytest.mark.parametrize(
    "preset", ["fspen", "fspen-79k", "dpcrn_cf", "lite_rtse", "dpsnn", "conv_tasnet-small", "fqse-small"]
)
def test_a_part_that_is_out_changes_the_output_and_only_that_copy(preset, rng):
    torch.manual_seed(3)
    model = models.build_preset(preset).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    wave = torch.from_numpy(rng.standard_normal((1, 8000)).astype("float32")) * 0.1
    with torch.no_grad():
        before = model.enhance(wave)
        for part in model.parts:
            out = copy.deepcopy(model).without(part).enhance(wave)
            assert torch.isfinite(out).all() and not torch.equal(out, before), part
        assert torch.equal(model.enhance(wave), before)


def test_without_its_comb_dpcrn_cf_has_the_frame_as_it_is(rng):
    model = models.build_preset("dpcrn_cf").eval()
    model.without("comb")
    samples = torch.from_numpy(rng.standard_normal((1, 4, 1024)).astype("float32"))
    logits = torch.from_numpy(rng.standard_normal((1, 4, 226)).astype("float32")) * 9
    comb = model.comb
    with torch.no_grad():
        frame = comb.fourier(samples[..., comb.first : comb.first + 512] * comb.window)
        torch.testing.assert_close(comb(samples, logits), frame, atol=1e-4, rtol=1e-4)


def test_lite_rtse_without_its_phase_keeps_the_noisy_phase(rng):
    model = models.build_preset("lite_rtse").eval()
    model.without("phase")
    x = torch.from_numpy(rng.standard_normal((1, 5, 257, 2)).astype("float32"))
    with torch.no_grad():
        y, _ = model(x, model.init_state(1))
    cross = x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
    assert cross.abs().max() < 1e-4 * (x.norm() * y.norm())


def test_worse_is_by_metric_and_a_part_needs_most_of_them():
    complete = {"pesq_wb": 2.0, "stoi": 0.9, "si_sdr": 10.0}
    assert worse({"pesq_wb": 1.9, "stoi": 0.91, "si_sdr": 9.0}, complete) == ["pesq_wb", "si_sdr"]
    assert not worse(complete, complete) and not worse({**complete, "stoi": 0.8999}, complete)
    assert contributes(["pesq_wb", "stoi"]) and not contributes(["pesq_wb"])


@pytest.mark.full
def test_se_prune_writes_the_model_without_a_part(se, tmp_path):
    out = tmp_path / "plain.pt"
    done = se("prune", "dpcrn_cf", out, "--method", "part", "--without", "comb")
    assert done.returncode == 0 and [line.split("\t")[0] for line in done.out.splitlines()][1:] == [
        "dense",
        "without comb",
    ]
    model, about = checkpoint.load(out)
    assert (model.comb.sides == 0).all() and about["provenance"]["without"] == "comb"
    wrong = se("prune", "dpcrn_cf", tmp_path / "x.pt", "--method", "part", "--without", "combs")
    assert wrong.returncode == 2 and "its parts are gains, comb" in wrong.err
    assert "needs --without" in se("prune", "dpcrn_cf", out, "--method", "part").err
    assert "--without is for" in se("prune", "dpcrn_cf", out, "--method", "magnitude", "--without", "comb").err
    assert (
        "--amount does not apply"
        in se("prune", "dpcrn_cf", out, "--method", "part", "--without", "comb", "--amount", "0.1").err
    )
    with pytest.raises(UserError, match="it names none"):
        models.build_preset("gtcrn").without("anything")


def test_the_figures_of_pitch_are_of_frames():
    parts = script()
    periods = torch.tensor([0.0, 100.0, 100.0, 50.0, 0.0, 80.0])
    classes = torch.tensor([225, 156, 150, 225, 10, 256 - 160])
    s = parts.pitch_summary(periods, classes)
    assert s["frames"] == 6 and s["classes"] == 5
    assert s["voicing_accuracy"] == pytest.approx(4 / 6) and s["voiced_found"] == pytest.approx(3 / 4)
    assert s["false_voiced"] == pytest.approx(1 / 2)
    assert s["median_error"] == pytest.approx(0.06) and s["near"] == pytest.approx(1 / 3)
    assert s["gross"] == pytest.approx(1 / 3)


@pytest.mark.full
def test_the_recipe_prints_the_table(tmp_path):
    import subprocess

    done = subprocess.run(
        ["bash", "recipes/open/parts.sh", "--models", "fspen", "--dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| fspen | sub-band |" in done.stdout and (tmp_path / "parts.md").read_text() in done.stdout
