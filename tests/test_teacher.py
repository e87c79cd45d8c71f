"""Training with a teacher: errors are from the signal between the clean one and what the teacher makes of the noisy one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from conftest import COMMANDS, MINI, ROOT, SMALL

from setk import checkpoint, models
from setk.audio.stft import magnitude
from setk.core.errors import UserError
from setk.data.datadir import DataDir
from setk.data.lists import write_list
from setk.training import settings
from setk.training.losses import LOSSES, WITHOUT_REFERENCE, Example, weighted
from setk.training.metric_gan import MetricGAN
from setk.training.objective import Enhancer, Objective
from setk.training.ranks import Ranks

torch.set_num_threads(1)
HEARD = ("perceptual", "residual")  # what a listener hears is compared with the clean signal
CONF = (
    SMALL
    + """batch: 4
steps: 3
warmup: 0
lr: 1.0e-2
losses: {compressed_complex: 0.3, l1: 0.2, snr: 0.1, residual: 0.1, envelope: 0.3, perceptual: 0.5}
valid_every: 3
save_every: 1
metrics: [si_sdr]
best: si_sdr
"""
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A conf, pairs of data/mini, and two teachers: other weights of a model that differs from the one that learns."""
    path = tmp_path_factory.mktemp("teacher")
    (path / "conf.yaml").write_text(CONF)
    for name, count in (("train", 8), ("valid", 1)):
        (path / name).mkdir()
        pairs = list(DataDir(MINI / name).pairs().items())[:count]
        for k, kind in enumerate(("noisy", "clean")):
            write_list(path / name / f"{kind}.scp", {utt: ROOT / pair[k] for utt, pair in pairs})
    for seed in (1, 2):
        torch.manual_seed(seed)
        checkpoint.save(path / f"teacher{seed}.pt", models.build("fspen", {"groups": 4, "dpe_blocks": 1}), {})
    return path


def settings_of(work, *overrides):
    return settings.resolve(str(work / "conf.yaml"), ["device=cpu", *overrides])


def taught(work, *overrides, kind=Objective, weight=0.7):
    torch.manual_seed(3)
    s = settings_of(work, f"teacher={{model: {work / 'teacher1.pt'}, weight: {weight}}}", *overrides)
    return kind(models.build(s.model, s.config), s, Ranks(torch.device("cpu")))


def signals(seed=5, size=4, seconds=0.5):
    """(noisy, clean) [size, n]"""
    clean, noise = 0.05 * torch.randn(2, size, round(seconds * 16000), generator=torch.Generator().manual_seed(seed))
    return clean + 0.5 * noise, clean


def train(work, out, *more, code=0):
    done = COMMANDS(
        "train", work / "conf.yaml", "--train", work / "train", "--valid", work / "valid", "--out", out, *more
    )
    assert done.returncode == code, done.err
    return done


@pytest.mark.parametrize("name", [n for n in LOSSES if not n.startswith(("spikes", "readout", "dormant", "pitch"))])
def test_each_loss_is_of_the_signal_between_the_clean_one_and_the_teachers_output(work, name, rng):
    weight = float(rng.uniform(0.1, 1))
    objective = taught(work, weight=weight)
    noisy, clean = signals()
    teacher, _ = checkpoint.load(work / "teacher1.pt")
    frames = objective.model.transform.analysis(noisy)
    with torch.no_grad():
        between = (1 - weight) * clean + weight * teacher.enhance(noisy)
        found = LOSSES[name](objective.example(noisy, clean, frames, {}))
        of = clean if name in HEARD else between
        torch.testing.assert_close(found, LOSSES[name](Example(objective.model.transform, noisy, of, frames, {})))
        alone = LOSSES[name](Example(objective.model.transform, noisy, clean, frames, {}))
        assert (found == alone) == (name in WITHOUT_REFERENCE)


def test_a_teacher_of_weight_0_changes_nothing(work):
    noisy, clean = signals()
    objective = taught(work, weight=0)
    frames = objective.model.transform.analysis(noisy)
    plain, _ = weighted(objective.settings.losses, Example(objective.model.transform, noisy, clean, frames, {}))
    found, _ = weighted(objective.settings.losses, objective.example(noisy, clean, frames, {}))
    torch.testing.assert_close(found, plain)


def test_the_discriminator_compares_with_the_clean_signal(work):
    gan = taught(work, "discriminator={}", kind=MetricGAN)
    noisy, clean = signals()
    gan.judge.eval()
    _, terms = gan.loss(gan.learners["model"].module.eval(), noisy, clean)
    frames, _ = gan.learners["model"].module(noisy)
    e = Example(gan.model.transform, noisy, clean, frames, {})
    expected = (1 - gan.judge(magnitude(e.target), magnitude(e.consistent))).square().mean()
    torch.testing.assert_close(terms["metric"], expected)
    torch.testing.assert_close(gan._made[0][0], e.clean)


def test_the_teacher_stays_as_it_is_and_is_not_in_the_state(work):
    objective = taught(work)
    teacher, _ = checkpoint.load(work / "teacher1.pt")
    before = [value.clone() for value in objective.model.state_dict().values()]
    terms = [objective.update([signals(seed)]) for seed in range(3)]
    assert all(np.isfinite(t["loss"]) for t in terms)
    assert not all(map(torch.equal, before, objective.model.state_dict().values()))
    kept = objective.teacher._enhance.model
    assert not kept.training
    for name, value in teacher.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value)
    learnt = objective.state()["model"]["module"]
    assert {name.removeprefix("model.") for name in learnt} == objective.model.state_dict().keys()


def test_a_student_comes_nearer_to_its_teacher(work):
    """Not to the clean signal alone: at weight 1 the loss is the distance from the teacher."""
    objective = taught(work, "losses={compressed_complex: 1}", weight=1)
    batch = signals()
    losses = [objective.update([batch])["loss"] for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_teacher_hears_the_context_of_its_student(work):
    s = settings_of(work, "context=0.5", f"teacher={{model: {work / 'teacher1.pt'}, weight: 1}}")
    objective = Objective(models.build(s.model, s.config), s, Ranks(torch.device("cpu")))
    noisy, clean = signals()
    teacher, _ = checkpoint.load(work / "teacher1.pt")
    with torch.no_grad():
        frames, _ = Enhancer(teacher, s)(noisy)
        expected = teacher.transform.synthesis(frames, noisy.shape[1])
        found = objective.teacher.reference(noisy, clean)
        torch.testing.assert_close(found, expected)
        plain = teacher.enhance(noisy)
    torch.testing.assert_close(found[:2], plain[:2])
    assert not torch.allclose(found[2:], plain[2:])


def test_a_teacher_may_need_the_whole_signal(work):
    s = settings_of(work, "context=0.5", "teacher={model: effifusion_gan-small, weight: 1}")
    objective = Objective(models.build(s.model, s.config), s, Ranks(torch.device("cpu")))
    noisy, clean = signals()
    with torch.no_grad():
        expected = checkpoint.load(checkpoint.find("effifusion_gan-small"))[0].enhance(noisy)
    torch.testing.assert_close(objective.teacher.reference(noisy, clean), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "setting, words",
    [
        ("teacher={model: nobody}", "--set teacher={model: nobody}: model: no trained model is called 'nobody'"),
        ("teacher={model: gone.pt}", "--set teacher={model: gone.pt}: model: gone.pt: no such checkpoint"),
        ("teacher={}", "--set teacher={}: 'model' is missing"),
        ("teacher={model: dpcrn_cf, weight: 1.5}", "teacher.weight: 1.5 is outside 0 ... 1"),
        ("teacher.weight=0.5", "'model' is missing"),
        ("teacher=dpcrn_cf", "expected 'key: value' lines, not 'dpcrn_cf'"),
    ],
)
def test_a_teacher_that_cannot_be_is_one_line(work, setting, words):
    with pytest.raises(UserError) as e:
        settings_of(work, setting)
    assert words in str(e.value) and "\n" not in str(e.value)


def test_a_teacher_at_another_rate_and_one_that_is_missing_are_refused(work):
    checkpoint.save(
        work / "48k.pt",
        models.build("fastenhancer", models.config_values("fastenhancer", "fastenhancer-t-48k", {})),
        {},
    )
    assert (
        "works at 48000 Hz, the model that learns at 16000 Hz"
        in train(work, work / "rate", "--set", f"teacher={{model: {work / '48k.pt'}}}", code=2).err
    )
    assert (
        "no such checkpoint"
        in train(work, work / "gone", "--set", f"teacher={{model: {work / 'gone.pt'}}}", code=2).err
    )
    assert not (work / "rate").exists() and not (work / "gone").exists()


def test_a_teacher_that_the_training_would_overwrite_is_refused(work):
    out = work / "own"
    train(work, out)
    before = (out / "best.pt").read_bytes()
    done = train(work, out, "--fresh", "--set", f"teacher={{model: {out / 'best.pt'}}}", code=2)
    assert "whose checkpoints this training replaces" in done.err and (out / "best.pt").read_bytes() == before


def test_a_teacher_of_which_no_loss_hears_is_told(work):
    more = ("--set", f"teacher={{model: {work / 'teacher1.pt'}}}", "--set", "losses={perceptual: 1, residual: 1}")
    assert "teacher: has no effect: perceptual, residual" in train(work, work / "deaf", *more).err
    assert "no effect" not in train(work, work / "taught", *more[:2]).err


@pytest.mark.full
def test_a_training_knows_its_teacher_by_content_and_names_it_in_the_checkpoint(work):
    """The file may move; another in its place is refused."""
    teacher = work / "moving.pt"
    shutil.copy(work / "teacher1.pt", teacher)
    chosen = ("--set", f"teacher={{model: {teacher}}}")
    out = work / "resumed"
    train(work, out, *chosen)
    found = checkpoint.read(out / "best.pt")["provenance"]
    assert found["teacher"] == checkpoint.load(teacher)[1]["sha256"]
    assert found["settings"]["teacher"] == {"model": str(teacher), "weight": 0.7}
    moved = teacher.rename(work / "moved.pt")
    assert "resuming" in train(work, out, "--set", f"teacher={{model: {moved}}}").err
    shutil.copy(work / "teacher2.pt", moved)
    assert (
        "begun with another value of 'teacher'" in train(work, out, "--set", f"teacher={{model: {moved}}}", code=2).err
    )
    assert "begun with another value of 'teacher'" in train(work, out, code=2).err
