"""Training through the shell: killed at any moment and started again, it ends with the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time

import pytest
import torch

from conftest import MINI, ROOT, command
from setk import checkpoint

TINY = """
model: fspen
config: {groups: 2, dpe_blocks: 1}
segment: 0.5
batch: 4
steps: 14
warmup: 3
losses: {compressed_magnitude: 0.3, compressed_complex: 0.2, consistency: 0.3, l1: 0.2, snr: 0.02, si_sdr: 0.01}
valid_every: 5
save_every: 2
metrics: [stoi, si_sdr]
best: si_sdr
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A conf, shards of data/mini, a validation set of two, and speech and noise to be mixed."""
    from setk.lists import DataDir, write_list
    from setk.shards import write_shards

    path = tmp_path_factory.mktemp("train")
    (path / "conf.yaml").write_text(TINY)
    for done in write_shards(DataDir(_absolute(MINI / "train", path / "train")), path / "shards", size=20):
        assert done.state == "made"
    pairs = DataDir(MINI / "valid").pairs()
    for k, name in enumerate(("noisy", "clean")):
        (path / "valid").mkdir(exist_ok=True)
        write_list(path / "valid" / f"{name}.scp", {u: ROOT / p[k] for u, p in list(pairs.items())[:2]})
    (path / "mixed").mkdir()
    train = DataDir(MINI / "train").pairs()
    write_list(path / "mixed" / "speech.scp", {u: ROOT / p[1] for u, p in train.items()})
    write_list(path / "mixed" / "noise.scp", {u: ROOT / p[0] for u, p in list(train.items())[:5]})
    return path


def _absolute(data, out):
    from setk.lists import read_list, write_list

    out.mkdir()
    for name in ("noisy", "clean"):
        write_list(out / f"{name}.scp", {u: ROOT / p for u, p in read_list(data / f"{name}.scp").items()})
    return out


def argv(work, out, *more, train="shards"):
    return command("train", work / "conf.yaml", "--train", work / train, "--valid", work / "valid", "--out", out, *more)


def finish(work, out, *more, code=0, **options):
    done = subprocess.run(argv(work, out, *more, **options), capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def weights(path):
    return checkpoint.read(path)["weights"]


def assert_same_run(a, b):
    for name in ("last.pt", "best.pt"):
        x, y = weights(a / name), weights(b / name)
        assert all(torch.equal(x[k], y[k]) for k in x), name
    drop_hours = [[[v for i, v in enumerate(line.split("\t")) if i != 1] for line in (p / "history.tsv").read_text().splitlines()]
                  for p in (a, b)]
    assert drop_hours[0] == drop_hours[1]


@pytest.fixture(scope="module")
def whole(work):
    finish(work, work / "whole")
    return work / "whole"


def test_a_run_leaves_what_it_promises(work, whole):
    assert {"best.pt", "last.pt", "resume.pt", "config.yaml", "history.tsv", "curves.png"} <= {p.name for p in whole.iterdir()}
    assert not list(whole.glob(".*"))
    rows = (whole / "history.tsv").read_text().splitlines()
    assert rows[0].split("\t")[:3] == ["step", "hours", "lr"] and [r.split("\t")[0] for r in rows[1:]] == ["5", "10", "14"]
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    model, about = checkpoint.load(whole / "best.pt")
    assert about["config"]["groups"] == 2 and about["scores"]["valid"]["si_sdr"] > -50
    assert about["provenance"]["settings"]["steps"] == 14


def test_a_finished_run_is_left_alone(work, whole):
    before = {p.name: p.stat().st_mtime_ns for p in whole.glob("*.pt")}
    finish(work, whole)
    assert before == {p.name: p.stat().st_mtime_ns for p in whole.glob("*.pt")}


def test_kill_at_random_moments_changes_nothing(work, whole, rng):
    out = work / "killed"
    for _ in range(5):
        process = subprocess.Popen(argv(work, out), cwd=ROOT, stderr=subprocess.DEVNULL)
        start = time.monotonic()
        grown = sum(p.stat().st_mtime_ns for p in out.glob("resume*")) if out.exists() else 0
        # Wait for a state newer than the last, then kill at a random moment after it.
        while process.poll() is None and time.monotonic() - start < 60:
            if out.exists() and sum(p.stat().st_mtime_ns for p in out.glob("resume*")) != grown:
                break
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(work, out)
    assert_same_run(whole, out)


def test_sigterm_saves_and_says_so(work, whole):
    out = work / "terminated"
    process = subprocess.Popen(argv(work, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (out / "resume.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    err = process.communicate()[1]
    assert process.returncode == 143 and "goes on from here" in err
    assert "resuming" in finish(work, out).stderr
    assert_same_run(whole, out)


def test_workers_do_not_change_the_numbers(work, whole):
    finish(work, work / "workers", "--set", "workers=2")
    assert_same_run(whole, work / "workers")


def test_a_corrupt_state_falls_back_to_the_one_before(work, whole):
    out = work / "corrupt"
    shutil.copytree(whole, out)
    (out / "resume.pt").write_bytes((out / "resume.pt").read_bytes()[:1000])
    done = finish(work, out)
    assert "falling back" in done.stderr and "resuming" in done.stderr
    assert_same_run(whole, out)


def test_other_settings_or_data_are_refused_not_mixed(work, whole):
    assert "'lr'" in finish(work, whole, "--set", "lr=0.1", code=2).stderr
    assert "training data" in finish(work, whole, train="mixed", code=2).stderr


def test_mixing_as_training_goes_from_lists_equals_that_from_shards(work):
    from setk.lists import DataDir
    from setk.shards import write_shards

    assert {d.state for d in write_shards(DataDir(work / "mixed"), work / "mixed_shards", size=7)} == {"made"}
    more = ("--set", "steps=6", "--set", "mixing={snr: [0, 10], second_noise: 0.5, noise_speed: [0.7, 1.5], noise_eq: 10, speech_eq: 3}")
    finish(work, work / "lists", *more, train="mixed")
    finish(work, work / "mixed_out", *more, train="mixed_shards")
    x, y = weights(work / "lists" / "last.pt"), weights(work / "mixed_out" / "last.pt")
    assert all(torch.allclose(x[k].float(), y[k].float(), atol=1e-4) for k in x)


def test_a_metric_of_which_less_is_better_picks_its_least(work):
    finish(work, work / "lsd", "--set", "metrics=[lsd]", "--set", "best=lsd", "--set", "steps=8", "--set", "valid_every=2")
    rows = [line.split("\t") for line in (work / "lsd/history.tsv").read_text().splitlines()]
    seen = [float(row[rows[0].index("valid_lsd")]) for row in rows[1:]]
    assert checkpoint.read(work / "lsd/best.pt")["scores"]["valid"]["lsd"] == min(seen)


def test_loss_falls(work):
    finish(work, work / "longer", "--set", "steps=60", "--set", "valid_every=20", "--set", "lr=3e-3")
    rows = [line.split("\t") for line in (work / "longer" / "history.tsv").read_text().splitlines()]
    loss = [float(row[rows[0].index("loss")]) for row in rows[1:]]
    assert loss[-1] < 0.97 * loss[0]


def test_init_takes_weights_of_the_same_model_only(work, whole):
    finish(work, work / "init", "--init", whole / "last.pt", "--set", "steps=1", "--set", "lr=1e-12", "--set", "valid_every=1")
    x, y = weights(whole / "last.pt"), weights(work / "init" / "last.pt")
    assert all(torch.allclose(x[k].float(), y[k].float(), atol=1e-6) for k in x if "running" not in k and "num_batches" not in k)
    assert "--init" in finish(work, work / "init2", "--init", whole / "last.pt", "--set", "config.groups=4", code=2).stderr


@pytest.mark.parametrize("setting, words", [
    ("step=3", "did you mean 'steps'"), ("model=fspn", "did you mean 'fspen'"), ("losses.l3=1", "'l3' is unknown"),
    ("best=pesq_wb", "not among the metrics"), ("device=cuda:9", "no GPU|cuda"), ("config.groups=5", "groups"),
    ("batch=1000", "fewer than one batch"), ("metrics=[pesk]", "'pesk' is unknown"),
    ("metrics=[si_sdri]", "take 'si_sdr'")])
def test_a_wrong_setting_is_one_clear_line(work, setting, words):
    import re

    done = finish(work, work / "none", "--set", setting, code=2)
    assert len(done.stderr.strip().splitlines()) == 1 and re.search(words, done.stderr), done.stderr


def test_a_hostile_checkpoint_runs_nothing(work, tmp_path):
    import os
    import pickle

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    for name, content in [("a.pt", pickle.dumps(Payload())), ("b.pt", b"junk"), ("c.pt", b"")]:
        (tmp_path / name).write_bytes(content)
    torch.save({"model": "fspen", "x": Payload()}, tmp_path / "d.pt")
    for name in "abcd":
        done = subprocess.run(command("enhance", tmp_path / f"{name}.pt", MINI / "test", tmp_path / "o.wav"),
                              capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2 and "is no checkpoint" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "ran").exists()
