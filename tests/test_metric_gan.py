"""Training against a discriminator: its labels are PESQ's, late by a fixed number of steps, and a stopped run loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import COMMANDS, MINI, PATIENCE, ROOT, command

from setk import audio, checkpoint
from setk.data.datadir import DataDir
from setk.data.lists import write_list
from setk.training.labels import Labels
from setk.training.metric_gan import Discriminator, MetricGAN
from setk.training.ranks import Ranks

torch.set_num_threads(1)
TINY = """
model: effifusion_gan
config: {channels: 4, blocks: 1, heads: 1, kernels: [3, 5], turned: true, dropout: 0.0}
segment: 0.3
batch: 2
steps: 6
warmup: 0
lr: 1.0e-3
losses: {compressed_magnitude: 0.9, phase: 0.3, agreement: 0.2}
discriminator: {weight: 1.0e-3, delay: 2}
valid_every: 6
save_every: 1
metrics: [si_sdr]
best: si_sdr
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A conf, pairs of data/mini to train on, and one to validate."""
    path = tmp_path_factory.mktemp("gan")
    (path / "conf.yaml").write_text(TINY)
    for name, count in (("train", 20), ("valid", 1)):
        (path / name).mkdir()
        for k, kind in enumerate(("noisy", "clean")):
            pairs = DataDir(MINI / name).pairs()
            write_list(path / name / f"{kind}.scp", {utt: ROOT / p[k] for utt, p in list(pairs.items())[:count]})
    return path


def arguments(work, out):
    return [work / "conf.yaml", "--train", work / "train", "--valid", work / "valid", "--out", out]


@pytest.fixture(scope="module")
def whole(work):
    done = COMMANDS("train", *arguments(work, work / "whole"))
    assert done.returncode == 0, done.err
    return work / "whole"


def row(out):
    names, values = ((out / "history.tsv").read_text().splitlines()[k].split("\t") for k in (0, 1))
    return dict(zip(names, map(float, values)))


def state(out):
    return checkpoint.read(out / "resume.pt")["objective"]


def tensors(value):
    """All tensors and numbers in nested state, in order."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in tensors(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in tensors(item)]
    return [torch.as_tensor(value)] if isinstance(value, (torch.Tensor, int, float)) else []


def objective(work, *overrides):
    from setk import models
    from setk.training.settings import resolve

    torch.manual_seed(1)
    s = resolve(str(work / "conf.yaml"), ["device=cpu", *overrides])
    return MetricGAN(models.build(s.model, s.config), s, Ranks(torch.device("cpu")))


def batch_of(work, count):
    """(noisy, clean) [count, 4800] from the middle of mini's files."""
    pairs = list(DataDir(work / "train").pairs().values())[:count]
    waves = [[audio.read_mono(path, 16000)[0][8000:12800] for path in pair] for pair in pairs]
    return torch.from_numpy(np.stack(waves)).unbind(1)


def test_the_discriminator_has_its_published_size_and_gives_a_number_between_0_and_1_for_each_signal():
    judge = Discriminator()
    assert sum(p.numel() for p in judge.parameters()) == 181_650
    clean, candidate = torch.rand(2, 3, 50, 201, 1)
    found = judge.eval()(clean, candidate)
    assert found.shape == (3,) and ((0 < found) & (found < 1)).all()
    torch.testing.assert_close(found[1:2], judge(clean[1:2], candidate[1:2]))


def test_labels_are_the_pesq_of_each_pair_and_nan_where_there_is_none(work):
    from pesq import pesq

    noisy, clean = (x.numpy() for x in batch_of(work, 3))
    clean = np.concatenate([clean, np.zeros_like(clean[:1])])
    noisy = np.concatenate([noisy, noisy[:1]])
    labels = Labels(16000, 2)
    found = labels.wait(labels.ask(clean, noisy))
    expected = [(pesq(16000, c, n, "wb") - 1) / 3.5 for c, n in zip(clean[:3], noisy)]
    assert found[:3] == pytest.approx(expected, abs=1e-6) and np.isnan(found[3])


@pytest.mark.full
def test_the_discriminator_learns_late_by_a_fixed_delay_and_of_what_has_a_label(work):
    gan = objective(work, "discriminator.delay=3")
    noisy, clean = batch_of(work, 2)
    silent = torch.cat([clean[:1], torch.zeros_like(clean[:1])])
    terms = [gan.update([(noisy, silent if step == 0 else clean)]) for step in range(5)]
    assert ["discriminator" in t for t in terms] == [False] * 3 + [True] * 2
    assert [t["unlabelled"] for t in terms[3:]] == [0.5, 0.0] and all(
        np.isfinite(t["discriminator"]) for t in terms[3:]
    )
    assert all("metric" in t for t in terms) and len(gan.waiting) == 3


@pytest.mark.full
def test_the_discriminator_comes_to_know_its_labels_and_its_judgement_moves_the_model(work):
    gan = objective(
        work, "losses={compressed_magnitude: 0}", "discriminator.delay=1", "lr=1e-3", "discriminator.weight=1"
    )
    noisy, clean = batch_of(work, 2)
    before = [p.clone() for p in gan.model.parameters()]
    terms = [gan.update([(noisy, clean)]) for _ in range(12)]
    assert np.mean([t["discriminator"] for t in terms[-3:]]) < 0.8 * np.mean([t["discriminator"] for t in terms[1:4]])
    assert any(not torch.equal(a, b) for a, b in zip(before, gan.model.parameters()))


@pytest.mark.full
def test_history_tells_of_the_discriminator(whole):
    found = row(whole)
    assert 0 < found["metric"] < 1 and 0 < found["discriminator"] < 2 and 0 <= found["unlabelled"] < 1


class Stopped(MetricGAN):
    """Is told to stop in its fourth step."""

    def update(self, batches):
        if self.learners["discriminator"].optimizer.state and len(self.waiting) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().update(batches)


@pytest.mark.full
def test_a_stopped_run_goes_on_with_the_same_bits_of_both_networks_and_of_what_waits(work, whole):
    from setk.training import loop
    from setk.training.data import TrainingData
    from setk.training.settings import resolve

    out, said = work / "stopped", []
    s = resolve(str(work / "conf.yaml"), ["workers=2"])
    data, valid = TrainingData(work / "train", s), DataDir(work / "valid").pairs()
    codes = [
        loop.train(s, data, valid, out, fresh=False, init=None, say=said.append, objective=kind)
        for kind in (Stopped, MetricGAN)
    ]
    assert codes == [143, 0] and f"resuming {out} at step 4 of 6" in said
    one, two = tensors(state(whole)), tensors(state(out))
    assert len(one) == len(two) > 300 and all(torch.equal(a, b) for a, b in zip(one, two))
    assert [waves.shape for waves in state(out)["waiting"]] == [(2, 2, 4800)] * 2
    assert {**row(whole), "hours": 0} == {**row(out), "hours": 0}


@pytest.mark.full
def test_two_ranks_follow_the_curve_of_one(work, whole):
    out = work / "ranks"
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *command("train", *arguments(work, out))[2:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    one, two = ({k: v for k, v in row(path).items() if k != "hours"} for path in (whole, out))
    own = {"metric": 0, "discriminator": 0}  # the discriminator's dropout is each rank's
    assert {**one, **own} == pytest.approx({**two, **own}, rel=2e-3, abs=1e-3)
    for a, b in zip(state(whole)["waiting"], state(out)["waiting"], strict=True):
        torch.testing.assert_close(a, b, rtol=0.01, atol=0.01)
