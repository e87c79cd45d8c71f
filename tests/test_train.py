"""Training through the shell: killed at any moment and started again, it ends with the same bytes."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import yaml

from conftest import COMMANDS, MINI, PATIENCE, ROOT, SMALL, command, stopping
from setk import audio, checkpoint, models
from setk.core.errors import UserError
from setk.training import loop
from setk.training.data import TrainingData

TINY = (
    SMALL
    + """batch: 4
steps: 14
warmup: 3
losses: {compressed_magnitude: 0.3, compressed_complex: 0.2, consistency: 0.3, l1: 0.2, snr: 0.02, si_sdr: 0.01}
valid_every: 5
save_every: 2
ema: 0.9
average: 2
augment: {remix: 0.5, snr: [-6, 18], band_limit: 0.5}
metrics: [stoi, si_sdr]
best: si_sdr
"""
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A conf, shards of data/mini, a validation set of two, and speech and noise to be mixed."""
    from setk.data.datadir import DataDir
    from setk.data.lists import write_list
    from setk.data.shards import write_shards

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
    from setk.data.lists import read_list, write_list

    out.mkdir()
    for name in ("noisy", "clean"):
        write_list(out / f"{name}.scp", {u: ROOT / p for u, p in read_list(data / f"{name}.scp").items()})
    return out


def arguments(work, out, *more, train="shards"):
    return [work / "conf.yaml", "--train", work / train, "--valid", work / "valid", "--out", out, *more]


def argv(*args, **options):
    return command("train", *arguments(*args, **options))


def finish(*args, code=0, run=COMMANDS, **options):
    done = run("train", *arguments(*args, **options), timeout=PATIENCE)
    assert done.returncode == code, done.err
    return done


def weights(path):
    return checkpoint.read(path)["weights"]


def assert_same_run(a, b):
    for name in ("last.pt", "best.pt", "average.pt"):
        x, y = weights(a / name), weights(b / name)
        assert all(torch.equal(x[k], y[k]) for k in x), name
    drop_hours = [
        [[v for i, v in enumerate(line.split("\t")) if i != 1] for line in (p / "history.tsv").read_text().splitlines()]
        for p in (a, b)
    ]
    assert drop_hours[0] == drop_hours[1]


@pytest.fixture(scope="module")
def whole(work):
    finish(work, work / "whole")
    return work / "whole"


def test_a_run_leaves_what_it_promises(work, whole):
    promised = "best.pt last.pt average.pt average resume.pt config.yaml history.tsv curves.png".split()
    assert set(promised) <= {p.name for p in whole.iterdir()}
    assert not list(whole.glob(".*"))
    rows = (whole / "history.tsv").read_text().splitlines()
    assert rows[0].split("\t")[:3] == ["step", "hours", "lr"] and [r.split("\t")[0] for r in rows[1:]] == [
        "5",
        "10",
        "14",
    ]
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    model, about = checkpoint.load(whole / "best.pt")
    assert about["config"]["groups"] == 2 and about["scores"]["valid"]["si_sdr"] > -50
    assert about["provenance"]["settings"]["steps"] == 14
    assert len(list((whole / "average").glob("*.pt"))) <= 3  # two, and one that the state before may want


def test_a_finished_run_is_left_alone(work, whole):
    before = {p.name: p.stat().st_mtime_ns for p in whole.glob("*.pt")}
    finish(work, whole)
    assert before == {p.name: p.stat().st_mtime_ns for p in whole.glob("*.pt")}


def test_a_finished_run_without_its_best_checkpoint_says_so(work, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "gone")
    (tmp_path / "gone/best.pt").unlink()
    assert "best.pt: is gone" in finish(work, tmp_path / "gone", code=2).err


def test_the_validation_set_may_move(work, whole, tmp_path):
    """As the training data may: on another machine both lie elsewhere. Pairs of other lengths are another set."""
    shutil.copytree(whole, tmp_path / "moved")
    (tmp_path / "valid").mkdir()
    for name in ("noisy", "clean"):
        lines = [line.split(" ", 1) for line in (work / f"valid/{name}.scp").read_text().splitlines()]
        for utt, path in lines:
            shutil.copy(path, tmp_path / f"{name}_{utt}.flac")
        (tmp_path / f"valid/{name}.scp").write_text("".join(f"{u} {tmp_path}/{name}_{u}.flac\n" for u, _ in lines))
    elsewhere = ("train", work / "conf.yaml", "--train", work / "shards", "--valid", tmp_path / "valid", "--out")
    assert COMMANDS(*elsewhere, tmp_path / "moved").returncode == 0
    for name in ("noisy", "clean"):
        path = tmp_path / f"{name}_{lines[0][0]}.flac"
        x, rate = audio.read_mono(str(path))
        audio.write(path, x[1:], rate)
    refused = COMMANDS(*elsewhere, tmp_path / "moved")
    assert refused.returncode == 2 and "the validation set" in refused.err


def test_a_fresh_start_from_the_own_best_model_survives_a_kill(work, whole, tmp_path):
    """best.pt, which --fresh removes, is in the state of step 0 from the first moment."""
    out = tmp_path / "own"
    shutil.copytree(whole, out)
    begun = weights(out / "best.pt")
    more = ("--set", "steps=15")
    code = (
        "import os, sys\nfrom setk.training import loop\nloop.Run.go = lambda run, valid: os.kill(os.getpid(), 9)\n"
        "from setk.cli.train import main\nmain()"
    )
    argv = map(str, arguments(work, out, "--init", out / "best.pt", "--fresh", *more))
    killed = subprocess.run([sys.executable, "-P", "-c", code, *argv], capture_output=True, text=True)
    assert killed.returncode == -9 and not (out / "best.pt").exists(), killed.stderr
    assert all(torch.equal(x, begun[name]) for name, x in checkpoint.read(out / "resume.pt")["smoothed"].items())
    finish(work, out, "--init", out / "best.pt", "--set", "config=init", *more)


def test_the_mean_of_a_training_is_not_overwritten_by_average(work, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "mean")
    shutil.copy(whole / "average.pt", tmp_path / "mean/best.pt")
    done = COMMANDS(
        "train",
        "average",
        tmp_path / "mean/best.pt",
        whole / "last.pt",
        whole / "average.pt",
        "--valid",
        work / "valid",
    )
    assert done.returncode == 2 and "OUT comes first" in done.err


def test_an_included_model_can_be_averaged_by_its_name(work, tmp_path):
    done = COMMANDS(
        "train", "average", tmp_path / "mean.pt", "fspen", "fspen", "--valid", work / "valid", "--metrics", "stoi"
    )
    assert done.returncode == 0, done.err
    included = weights(ROOT / "setk/pretrained/fspen.pt")
    assert all(torch.equal(x, included[name]) for name, x in weights(tmp_path / "mean.pt").items())


@pytest.mark.parametrize(
    "option, words", [("--valid", "lists no utterances"), ("--metrics", "'si_sdri' compares with the noisy signal")]
)
def test_average_checks_what_it_scores_with(work, whole, tmp_path, option, words):
    for name in ("noisy", "clean"):
        (tmp_path / f"{name}.scp").touch()
    given = {
        "--valid": work / "valid",
        "--metrics": "stoi",
        option: {"--valid": tmp_path, "--metrics": "si_sdri"}[option],
    }
    done = COMMANDS(
        "train",
        "average",
        tmp_path / "out.pt",
        whole / "last.pt",
        whole / "best.pt",
        *(x for pair in given.items() for x in pair),
    )
    assert done.returncode == 2 and words in done.err and not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("empty", ["noisy clean", "speech", "noise"])
def test_empty_lists_are_refused(work, tmp_path, empty):
    from setk.training.data import open_sources

    if "clean" not in empty:
        shutil.copytree(work / "mixed", tmp_path, dirs_exist_ok=True)
    for name in empty.split():
        (tmp_path / f"{name}.scp").write_text("")
    with pytest.raises(UserError, match=f"the lists of .*{empty.split()[0]}.* name no utterances"):
        open_sources(tmp_path)


def test_a_finished_run_reports_the_score_of_best_pt_again(work, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "again")
    best = checkpoint.read(whole / "best.pt")
    best["scores"]["valid"]["si_sdr"] = 77.123  # as that of a mean, which is in no row of history.tsv
    checkpoint.write(tmp_path / "again/best.pt", best)
    assert finish(work, tmp_path / "again").err.rstrip().endswith("best si_sdr 77.123")


# A process that has imported all that training wants forks one life after another, each ended by a kernel's timer of
# its CPU time, which no handler of ours can see coming; the first lives on, and tells how long that takes. A training
# that came to its end begins anew beside.
LIVES = """
import os, signal, sys
import matplotlib.figure, matplotlib.backends.backend_agg, soundfile, torch
from setk.cli import train
from setk.training import loop
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports half of torch
out, argv, lives = sys.argv[1], sys.argv[2:-1], [0.0] + [float(part) for part in sys.argv[-1].split()]
ends, full = 0, 0.0
while lives:
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_PROF, full * lives[0])
        sys.argv = ["train.py", *argv, "--out", f"{out}.{ends}"]
        train.main()
        os._exit(0)
    _, status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGPROF), code
    ends += code == 0
    full = full or used.ru_utime + used.ru_stime
    if code or not lives[0]:
        lives.pop(0)
print(ends)
"""


@pytest.mark.full
def test_killed_at_ten_random_moments_it_ends_with_the_same_bits(work, whole, rng):
    lives = " ".join(f"{part:.3f}" for part in rng.uniform(0.1, 0.7, 10))
    args = argv(work, "")[4:-2]  # without the interpreter, the command and --out
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIVES, work / "killed", *args, lives],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    ends = int(done.stdout.split()[-1])
    assert ends >= 1 and "resuming" in done.stderr
    finish(work, work / f"killed.{ends}")
    for k in range(ends + 1):
        assert_same_run(whole, work / f"killed.{k}")


def terminate(work, out, *more):
    """Training that gets SIGTERM after its first save."""
    argv = stopping(1, *arguments(work, out, *more))
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 143 and "continues from here" in done.stderr, done.stderr


def test_sigterm_saves_and_says_so(work, whole):
    terminate(work, work / "terminated")
    assert "resuming" in finish(work, work / "terminated").err
    assert_same_run(whole, work / "terminated")


@pytest.mark.full
def test_muon_goes_on_with_the_same_bits(work):
    muon = ["--set", "optimizer=muon"]
    finish(work, work / "muon", *muon)
    terminate(work, work / "muon_again", *muon)
    assert "resuming" in finish(work, work / "muon_again", *muon).err
    assert_same_run(work / "muon", work / "muon_again")


@pytest.mark.full
def test_a_state_from_before_a_setting_goes_on_with_its_default(work, whole):
    terminate(work, work / "older")
    state = checkpoint.read(work / "older" / "resume.pt")
    for key in ("optimizer", "discriminator", "teacher", "pairs", "begun_from"):
        del state["identity"][key]
    state["identity"] |= {"valid": "of the paths", "--init": None}  # as states were made
    del state["identity"]["mixing"]["high_voice"]
    checkpoint.write(work / "older" / "resume.pt", state)
    assert "'optimizer' (adamw then, muon now)" in finish(work, work / "older", "--set", "optimizer=muon", code=2).err
    assert "resuming" in finish(work, work / "older").err
    assert_same_run(whole, work / "older")


@pytest.mark.full
def test_workers_do_not_change_the_numbers(work, whole):
    """And a process ends with the bits of the run in this interpreter."""
    finish(work, work / "workers", "--set", "workers=2", run=COMMANDS.process)
    assert_same_run(whole, work / "workers")


@pytest.mark.full
def test_a_corrupt_state_falls_back_to_the_one_before(work, whole):
    out = work / "corrupt"
    shutil.copytree(whole, out)
    (out / "resume.pt").write_bytes((out / "resume.pt").read_bytes()[:1000])
    done = finish(work, out)
    assert "falling back" in done.err and "resuming" in done.err
    assert_same_run(whole, out)


def test_states_of_which_none_is_readable_are_not_started_over(work, whole, tmp_path):
    out = tmp_path / "unreadable"
    shutil.copytree(whole, out)
    for name in ("resume.pt", "resume.old.pt"):
        (out / name).write_bytes(b"PK")
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    done = finish(work, out, code=2)
    assert "resume.pt: not a checkpoint" in done.err and "--fresh starts over" in done.err
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
    (out / "resume.old.pt").unlink()
    assert "--fresh starts over" in finish(work, out, code=2).err


def _with_mean(out):
    """Have best.pt be a mean, as it is where that is the best."""
    best = checkpoint.read(out / "best.pt")
    checkpoint.write(out / "best.pt", {**best, "provenance": {**best["provenance"], "mean_of_steps": [5, 10]}})


def test_a_last_state_that_is_lost_costs_no_mean(work, whole, tmp_path):
    out = tmp_path / "lost"
    shutil.copytree(whole, out)
    _with_mean(out)
    (out / "average.pt").write_bytes(b"of another end")
    (out / "resume.pt").write_bytes(b"PK")
    assert "mean of steps" in finish(work, out).err
    assert_same_run(whole, out)


def test_a_mean_without_any_state_is_no_error(work, whole, tmp_path):
    out = tmp_path / "stateless"
    shutil.copytree(whole, out)
    _with_mean(out)
    for name in ("resume.pt", "resume.old.pt"):
        (out / name).unlink()
    finish(work, out)
    assert_same_run(whole, out)


@pytest.mark.full
def test_a_full_disk_costs_nothing_that_was_saved(work, whole):
    out = work / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("mounting a small file system wants root")
    try:
        done = finish(work, out, code=1)
        assert "No space left" in done.err and (out / "resume.pt").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        assert "resuming" in finish(work, out).err
        assert_same_run(whole, out)
    finally:
        subprocess.run(["umount", out], check=True)


def test_other_settings_or_data_are_refused_not_mixed(work, whole):
    assert "'lr'" in finish(work, whole, "--set", "lr=0.1", code=2).err
    assert "training data" in finish(work, whole, train="mixed", code=2).err


@pytest.mark.full
def test_mixing_as_training_goes_from_lists_equals_that_from_shards(work):
    from setk.data.datadir import DataDir
    from setk.data.shards import write_shards

    assert {d.state for d in write_shards(DataDir(work / "mixed"), work / "mixed_shards", size=7)} == {"made"}
    more = (
        "--set",
        "steps=6",
        "--set",
        "mixing={snr: [0, 10], second_noise: 0.5, noise_speed: [0.7, 1.5], noise_eq: 10, speech_eq: 3, high_voice: 0.5}",
    )
    finish(work, work / "lists", *more, train="mixed")
    finish(work, work / "mixed_out", *more, train="mixed_shards")
    x, y = weights(work / "lists" / "last.pt"), weights(work / "mixed_out" / "last.pt")
    assert all(torch.allclose(x[k].float(), y[k].float(), atol=1e-4) for k in x)


@pytest.mark.full
def test_a_metric_of_which_less_is_better_picks_its_least(work):
    finish(
        work,
        work / "lsd",
        "--set",
        "metrics=[lsd]",
        "--set",
        "best=lsd",
        "--set",
        "steps=8",
        "--set",
        "valid_every=2",
        "--set",
        "average=0",
    )
    rows = [line.split("\t") for line in (work / "lsd/history.tsv").read_text().splitlines()]
    seen = [float(row[rows[0].index("valid_lsd")]) for row in rows[1:]]
    assert checkpoint.read(work / "lsd/best.pt")["scores"]["valid"]["lsd"] == min(seen)


@pytest.mark.full
def test_a_checkpoint_is_chosen_by_weights_over_metrics(work):
    more = "steps=10 valid_every=2 average=0 metrics=[stoi,si_sdr,lsd] best.stoi=30 best.si_sdr=0.5 best.lsd=2".split()
    finish(work, work / "weighed", *(f"--set={setting}" for setting in ("best={}", *more)))
    lines = [line.split("\t") for line in (work / "weighed/history.tsv").read_text().splitlines()]
    rows = [dict(zip(lines[0], map(float, line))) for line in lines[1:]]
    merits = [30 * r["valid_stoi"] + 0.5 * r["valid_si_sdr"] - 2 * r["valid_lsd"] for r in rows]
    assert checkpoint.read(work / "weighed/best.pt")["provenance"]["step"] == rows[merits.index(max(merits))]["step"]


def test_the_default_choice_is_balanced_over_the_metrics_that_are_validated(work):
    from setk.training.settings import BALANCED

    conf = (work / "conf.yaml").read_text().replace("best: si_sdr", "")
    (work / "unnamed.yaml").write_text(conf)
    from setk.training.settings import resolve

    assert resolve(str(work / "unnamed.yaml")).weights == {name: BALANCED[name] for name in ("stoi", "si_sdr")}
    assert resolve(str(work / "unnamed.yaml"), ["metrics=[lsd, ssnr]"]).weights == {"lsd": 1.0}


@pytest.mark.parametrize(
    "changes, modelled",
    [
        (["losses={snr: 1.0}", "best=si_sdr"], ("si_sdr", "snr")),
        (["losses={perceptual: 0.5}", "metrics=[pesq_wb]", "best={pesq_wb: 1.0}"], ("pesq_wb", "perceptual")),
        (["losses={snr: 1.0}", "best=stoi"], None),
        (["losses={snr: 1.0}", "best={stoi: 16, si_sdr: 0.15}"], None),
    ],
)
def test_a_choice_by_one_metric_that_a_loss_models_is_found(changes, modelled):
    from setk.training.settings import resolve

    assert resolve("fspen", ["metrics=[stoi, si_sdr]", *changes]).modelled_choice() == modelled


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "setk/configs").glob("*.yaml"))])
def test_no_included_config_chooses_by_what_its_loss_models(name):
    from setk.training.settings import resolve

    assert resolve(name).modelled_choice() is None


def test_a_training_is_as_long_as_steps_or_epochs_say_and_the_last_setting_wins(work):
    from setk.training.settings import in_steps, resolve

    conf = str(work / "conf.yaml")
    assert (resolve(conf, ["steps=7"]).steps, resolve(conf, ["steps=7"]).epochs) == (7, 0)
    by_epochs = resolve(conf, ["steps=7", "epochs=2.5"])
    assert (by_epochs.steps, by_epochs.epochs) == (0, 2.5)
    assert resolve(conf, ["epochs=2.5", "steps=7"]).steps == 7
    counted = in_steps(by_epochs, 12, conf)
    assert (counted.steps, counted.epochs) == (30, 0) and in_steps(counted, 99, conf) == counted
    (work / "both.yaml").write_text(TINY + "epochs: 3\n")
    for path, settings in ((work / "both.yaml", []), (conf, ["steps=0"]), (conf, ["epochs=0"])):
        with pytest.raises(UserError, match="exactly one of them"):
            resolve(str(path), settings)
    done = finish(work, work / "epochs", "--dry-run", "--set=epochs=2")
    printed = yaml.safe_load(done.out)
    assert printed["estimate"]["epochs"] == 2 and printed["config"]["epochs"] == 0 and printed["config"]["steps"] > 0


@pytest.mark.full
def test_dnsmos_can_choose_where_its_model_is_installed(work):
    pytest.importorskip("onnxruntime")
    if not importlib.util.find_spec("speechmos"):
        pytest.skip("needs the model of speechmos")
    finish(
        work,
        work / "dnsmos",
        "--set",
        "metrics=[si_sdr, dnsmos_ovrl, dnsmos_bak]",
        "--set",
        "best={dnsmos_ovrl: 1, dnsmos_bak: 0.5}",
        "--set",
        "steps=2",
        "--set",
        "valid_every=1",
        "--set",
        "average=0",
    )
    scores = checkpoint.read(work / "dnsmos/best.pt")["scores"]["valid"]
    assert 1 <= scores["dnsmos_ovrl"] <= 5 and 1 <= scores["dnsmos_bak"] <= 5


@pytest.mark.full
def test_patience_ends_a_run_that_gets_no_better(work):
    out = work / "patience"
    settings = "steps=40 valid_every=1 lr=1e-12 average=0 ema=0 patience=3 metrics=[stoi] best=stoi".split()
    done = finish(work, out, *(f"--set={setting}" for setting in settings))
    assert "no better stoi in 3 validations" in done.err
    rows = (out / "history.tsv").read_text().splitlines()
    scores = [float(row.split("\t")[-1]) for row in rows[1:]]
    assert len(scores) < 40 and max(scores[-3:]) <= max(scores[:-3])


@pytest.mark.full
def test_a_run_that_goes_on_after_all_forgets_the_mean_of_its_early_end(work):
    """Continued without patience it ends as one that had none from the start."""
    settings = "steps=6 valid_every=1 lr=1e-12 average=2 ema=0 metrics=[stoi] best=stoi".split()
    settings = [f"--set={setting}" for setting in settings]
    whole, early = work / "without patience", work / "early end"
    finish(work, whole, *settings)
    finish(work, early, *settings, "--set=patience=1")
    ended = checkpoint.read(early / "best.pt")
    # At this rate the mean is no better; where it is, this is what the early end leaves.
    checkpoint.write(early / "best.pt", {**ended, "provenance": {**ended["provenance"], "mean_of_steps": [1, 2]}})
    finish(work, early, *settings)
    assert_same_run(whole, early)
    assert "mean_of_steps" not in checkpoint.read(early / "best.pt")["provenance"]


@pytest.mark.parametrize("name", ["meta", "mps", "gpu"])
def test_a_device_that_setk_does_not_use_is_refused(name):
    from setk.core.errors import UserError
    from setk.training.ranks import pick_device

    with pytest.raises(UserError, match=f"device '{name}' is unknown; auto, cpu or cuda"):
        pick_device(name)


def test_a_dry_run_tells_what_training_would_take_and_writes_nothing(work):
    import yaml

    done = finish(work, work / "dry", "--dry-run")
    told = yaml.safe_load(done.out)
    assert told["config"]["config"]["groups"] == 2 and told["config"]["batch"] == 4
    e = told["estimate"]
    from setk import models

    assert e["parameters"] == models.count_parameters(models.build("fspen", told["config"]["config"]))["params"]
    assert 100 < e["memory_mib"] < 10000
    assert e["audio_seconds_per_second"] == pytest.approx(e["steps_per_second"] * 2, rel=0.05) and e["hours"] < 1
    assert not (work / "dry").exists()


@pytest.fixture
def poisoned(work):
    """poisoned(n): a data directory of n pairs, the clean signal of one far beyond any level that a loss survives."""
    import numpy as np
    import soundfile

    from setk.data.lists import read_list, write_list

    for name, level in ("noisy", 0.1), ("clean", 1e25):
        soundfile.write(work / f"{name}.wav", np.full(16000, level, np.float32), 16000, subtype="FLOAT")

    def make(n):
        path = work / f"poisoned{n}"
        path.mkdir()
        for name in ("noisy", "clean"):
            kept = dict(list(read_list(work / "train" / f"{name}.scp").items())[: n - 1])
            write_list(path / f"{name}.scp", {**kept, "zz": work / f"{name}.wav"})
        return path.name

    return make


def test_a_batch_without_a_finite_loss_is_named_and_skipped(work, poisoned):
    done = finish(work, work / "skip", "--set", "steps=6", "--set", "augment={}", train=poisoned(8))
    skipped = [line for line in done.err.splitlines() if "batch skipped" in line]
    assert len(skipped) == 3 and all("zz" in line for line in skipped)
    assert all(torch.isfinite(w).all() for w in weights(work / "skip/last.pt").values())
    done = finish(work, work / "give_up", "--set", "steps=30", "--set", "augment={}", train=poisoned(4), code=2)
    assert "20 batches in a row" in done.err


@pytest.mark.full
def test_two_ranks_stopped_on_the_way_follow_the_curve_of_one(work, whole):
    out = work / "ranks"
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    stopped = [*torchrun, *stopping(1, *arguments(work, out))[2:]]
    err = subprocess.run(stopped, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE).stderr
    assert err.count("the same command continues from here") == 1, err
    again = [*torchrun, "-m", "setk", "train", *map(str, arguments(work, out))]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "resuming" in done.stderr, done.stderr
    one, two = (
        [[float(v) for v in line.split("\t")] for line in (path / "history.tsv").read_text().splitlines()[1:]]
        for path in (whole, out)
    )
    assert [row[0] for row in one] == [row[0] for row in two]
    for a, b in zip(one, two):
        assert a[2:] == pytest.approx(b[2:], rel=2e-3, abs=1e-4)


def alone():
    from setk.training.ranks import Ranks

    return Ranks(torch.device("cpu"))


def settings_of(work, *overrides):
    from setk.training.settings import resolve

    return resolve(str(work / "conf.yaml"), ["device=cpu", *overrides])


def test_micro_batches_give_the_gradient_of_their_batch(work):
    from setk.training.objective import Learner

    x, y = torch.randn(2, 8, 5)
    found = []
    for parts in (1, 4):
        torch.manual_seed(1)
        module = torch.nn.Linear(5, 5)
        learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1), settings_of(work, "clip=0"), alone())
        terms = learner.descend(
            list(zip(x.chunk(parts), y.chunk(parts))), lambda m, a, b: ((m(a) - b).square().mean(), {})
        )
        found.append((terms["loss"], module.weight.detach()))
    assert found[0][0] == pytest.approx(found[1][0]) and torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_a_step_without_a_finite_gradient_leaves_weights_and_statistics_as_they_were(work):
    from setk.training.objective import Learner, NotFinite

    module = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.BatchNorm1d(5))
    learner = Learner(module, torch.optim.SGD(module.parameters(), lr=0.1), settings_of(work), alone())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(8, 5)
    with pytest.raises(NotFinite, match="loss nan"):
        learner.descend([(x, x), (x * torch.nan, x)], lambda m, a, b: ((m(a) - b).square().mean(), {}))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    learner.descend([(x, x)], lambda m, a, b: ((m(a) - b).square().mean(), {}))
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_a_step_without_a_finite_loss_moves_no_range_that_is_observed(work):
    from setk.nn.quantization import Scheme
    from setk.training.objective import NotFinite, Objective

    s = settings_of(work, "quantization={method: fqse, observe: 3}")
    objective = Objective(models.build(s.model, s.config, {"method": "fqse", "observe": 3}), s, alone())
    assert objective.model.quantization == Scheme("fqse", 3)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    noisy = 0.1 * torch.randn(2, 8000)
    with pytest.raises(NotFinite):
        objective.update([(noisy, noisy * torch.nan)])
    assert all(torch.equal(before[name], value) for name, value in objective.model.state_dict().items())
    objective.update([(noisy, noisy)])
    assert any(not torch.equal(before[k], v) for k, v in objective.model.state_dict().items() if k.endswith(".hi"))


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["precision=fp16"], "float32, tf32, bf16"),
        (["ema=1"], "ema=1: 1 is outside 0 ... below 1"),
        (["losses={}"], "losses: {compressed_magnitude"),
        (["metrics=[stoi]", "best={stoi: 0}"], "all weights are 0"),
        (["accumulate=0"], "accumulate=0: 0 is outside"),
        (["accumulate=3"], "cannot be divided evenly"),
    ],
)
def test_settings_that_cannot_be_are_told(work, overrides, words):
    from setk.core.errors import UserError
    from setk.training.data import TrainingData

    with pytest.raises(UserError, match=words):
        s = settings_of(work, *overrides)
        loop.Run(s, TrainingData(work / "shards", s), work / "never", print, alone())


@pytest.mark.parametrize(
    "setting, words",
    [
        ("losses={l1: 1, perceptual: 1}", "'perceptual' is defined at 16000 Hz, the model works at 48000 Hz"),
        ("losses={l1: 1, envelope: 1}", "'envelope' is defined at 16000 Hz"),
        ("discriminator={}", "discriminator: .* 16000 Hz, not at 48000 Hz"),
        ("metrics=[pesq_wb,stoi]", "best: 'pesq_wb' is not defined at 48000 Hz"),
        ("metrics=[stoi,pesq_wb]", None),
    ],
)
def test_what_has_no_meaning_at_the_rate_of_the_model_is_refused(setting, words):
    from setk.core.errors import UserError
    from setk.training.settings import check_defined, resolve

    more = ["best=stoi"] if words is None else []
    settings = resolve("fastenhancer_48k", [setting, *more])
    if words is None:
        return check_defined(settings, 48000)
    with pytest.raises(UserError, match=words):
        check_defined(settings, 48000)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_shared_statistics_of_one_rank_are_those_of_torch(options):
    import torch.distributed as dist

    from setk.training.ranks import share_statistics

    ours, theirs = torch.nn.BatchNorm1d(5, **options), torch.nn.BatchNorm1d(5, **options)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        share_statistics(ours, 1)
        for _ in range(3):
            x = 3 * torch.randn(8, 5, 7) + 1
            assert torch.allclose(ours(x), theirs(x), atol=1e-5)
        for name, value in theirs.state_dict().items():
            assert torch.allclose(ours.state_dict()[name].float(), value.float(), atol=1e-5), name
    finally:
        dist.destroy_process_group()


def test_bf16_autocast_stays_near_float32(work):
    from setk import models
    from setk.training.objective import Objective

    batch = (torch.randn(2, 8000) * 0.1, torch.randn(2, 8000) * 0.1)
    losses = {}
    for precision in ("float32", "bf16"):
        torch.manual_seed(1)
        s = settings_of(work, f"precision={precision}")
        objective = Objective(models.build(s.model, s.config), s, alone())
        losses[precision] = objective.update([batch])["loss"]
    assert 0 < abs(losses["bf16"] - losses["float32"]) < 0.02 * losses["float32"]


@pytest.mark.full
def test_an_adversary_trains_and_resumes_in_the_same_loop(work):
    from setk.data.datadir import DataDir
    from setk.training.data import TrainingData
    from setk.training.objective import Learner, Objective

    class Adversarial(Objective):
        stop_at = None

        def __init__(self, model, settings, ranks):
            super().__init__(model, settings, ranks)
            judge = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 31, 16), torch.nn.Dropout(0.3), torch.nn.Conv1d(4, 1, 1))
            self.learners["judge"] = Learner(judge, torch.optim.Adam(judge.parameters(), lr=1e-3), settings, ranks)
            self.seen = 0

        def update(self, batches):
            self.seen += 1
            if self.seen == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

            def judge_loss(judge, noisy, clean):
                with torch.no_grad():
                    enhanced = self.model.enhance(noisy)
                return (judge(clean[:, None]) - 1).square().mean() + judge(enhanced[:, None]).square().mean(), {}

            judged = self.learners["judge"].descend(batches, judge_loss)
            return {**super().update(batches), "judge": judged["loss"]}

    class Stopped(Adversarial):
        stop_at = 2

    s = settings_of(work, "steps=4", "valid_every=4", "average=0")
    data, valid, said = TrainingData(work / "shards", s), DataDir(work / "valid").pairs(), []

    def run(out, objective):
        return loop.train(s, data, valid, work / out, fresh=False, init=None, say=said.append, objective=objective)

    assert run("gan", Adversarial) == 0
    assert run("gan_stopped", Stopped) == 143 and run("gan_stopped", Adversarial) == 0
    states = [checkpoint.read(work / out / "resume.pt")["objective"]["judge"] for out in ("gan", "gan_stopped")]
    assert all(torch.equal(a, b) for a, b in zip(states[0]["module"].values(), states[1]["module"].values()))
    assert states[0]["optimizer"]["state"][0]["step"] == 4
    header = (work / "gan/history.tsv").read_text().splitlines()[0].split("\t")
    assert "judge" in header
    x, y = (weights(work / out / "last.pt") for out in ("gan", "gan_stopped"))
    assert all(torch.equal(x[k], y[k]) for k in x)


VANISHED = """
import sys
from pathlib import Path
import torch
from setk.core.errors import UserError
from setk.training import settings
from setk.training.data import TrainingData, loader
from setk.training.ranks import Ranks

data = TrainingData(Path("shards"), settings.resolve(sys.argv[1], ["device=cpu"]))
for path in Path("shards").glob("*.h5"):
    path.unlink()
try:
    next(loader(data, range(2), int(sys.argv[2]), Ranks(torch.device("cpu"), 0, 1)))
except UserError as e:
    sys.exit(str(e))
"""


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from setk.core.errors import Killed
from setk.training import settings
from setk.training.data import TrainingData, loader
from setk.training.ranks import Ranks

TrainingData.__getitem__ = lambda data, key: os.kill(os.getpid(), signal.SIGKILL)
data = TrainingData(Path("shards"), settings.resolve(sys.argv[1], ["device=cpu"]))
try:
    next(loader(data, range(2), 1, Ranks(torch.device("cpu"), 0, 1)))
except Killed as e:
    sys.exit(str(e))
"""


def test_a_loader_process_that_is_killed_is_one_clear_line(work):
    argv = [sys.executable, "-c", KILLED, str(work / "conf.yaml")]
    found = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode == 1 and re.fullmatch(
        r"a loader process was killed [^\n]*continues[^\n]*\n", found.stderr
    ), found.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_vanishes_is_one_clear_line_and_the_workers_end(work, tmp_path, workers):
    shutil.copytree(work / "shards", tmp_path / "shards")
    argv = [sys.executable, "-c", VANISHED, str(work / "conf.yaml"), str(workers)]
    found = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode == 1
    assert re.fullmatch(r"\S+\.h5: is missing; [^\n]*\n", found.stderr)


@pytest.mark.full
def test_ranks_and_micro_batches_share_a_batch_out_in_order(work):
    from setk.training.data import TrainingData, loader
    from setk.training.ranks import Ranks

    s = settings_of(work, "accumulate=2")
    data = TrainingData(work / "shards", s)
    whole = data[3, 0, 1]
    parts = [batch for rank in (0, 1) for batch in next(loader(data, [3], 0, Ranks(torch.device("cpu"), rank, 2)))]
    assert len(parts) == 4
    for k in (0, 1):
        assert torch.equal(torch.cat([p[k] for p in parts]), whole[k])


@pytest.mark.full
def test_augmented_pairs_keep_their_speech_and_have_the_noise_that_was_asked_for(work):
    from setk.training.data import TrainingData

    plain = TrainingData(work / "shards", settings_of(work, "augment={}"))[0, 0, 1]
    noisy, clean = TrainingData(work / "shards", settings_of(work, "augment={snr: [7, 7]}"))[0, 0, 1]
    assert torch.equal(clean, plain[1])
    snr = 10 * torch.log10(clean.square().mean(-1) / (noisy - clean).square().mean(-1))
    assert snr.tolist() == pytest.approx([7] * 4, abs=0.05)
    # What would clip is lowered, and the target with it.
    noisy, clean = TrainingData(work / "shards", settings_of(work, "augment={snr: [-40, -40]}"))[0, 0, 1]
    snr = 10 * torch.log10(clean.square().mean(-1) / (noisy - clean).square().mean(-1))
    assert noisy.abs().max() > 0.99 and snr.tolist() == pytest.approx([-40] * 4, abs=0.05)
    mixed, clean = TrainingData(work / "shards", settings_of(work, "augment={remix: 1.0}"))[0, 0, 1]
    noises = {TrainingData: (plain[0] - plain[1], mixed - clean)}[TrainingData]
    assert torch.equal(clean, plain[1]) and not torch.allclose(*noises, atol=1e-3)


def test_a_band_limit_cuts_above_and_keeps_below(rng):
    import numpy as np

    from setk.training.data import low_pass

    x = rng.standard_normal((2, int(rng.integers(4000, 9000))))
    cutoff = float(rng.uniform(0.25, 1))
    before, after = np.abs(np.fft.rfft(x)), np.abs(np.fft.rfft(low_pass(x, cutoff)))
    place = np.fft.rfftfreq(x.shape[1]) * 2 / cutoff
    assert np.allclose(after[:, place < 0.95], before[:, place < 0.95]) and after[:, place > 1].max(initial=0) < 1e-9


def test_speech_stands_in_rooms_where_a_list_of_them_is_given(work, rng):
    import numpy as np

    from setk import audio
    from setk.core.errors import UserError
    from setk.data.lists import write_list
    from setk.training.data import TrainingData

    with pytest.raises(UserError, match="rir.scp"):
        TrainingData(work / "mixed", settings_of(work, "mixing.room=1.0"))
    shutil.copytree(work / "mixed", work / "rooms")
    response = np.zeros(4000, np.float32)
    response[[0, 1500]] = 1, 0.8  # the echo comes after what counts as the target
    audio.write(work / "room.wav", response / 2, 16000)
    write_list(work / "rooms" / "rir.scp", {"room": work / "room.wav"})
    dry, wet = (
        TrainingData(work / "rooms", settings_of(work, "mixing.snr=[90, 90]", f"mixing.room={p}", "augment={}"))[
            0, 0, 1
        ]
        for p in (0.0, 1.0)
    )
    residue = [(noisy - clean).square().mean().item() / clean.square().mean().item() for noisy, clean in (dry, wet)]
    assert residue[0] < 1e-6 and residue[1] > 0.1
    audio.write(work / "room.wav", np.zeros(4000), 16000)
    with pytest.raises(UserError, match="the room room is silent"):
        TrainingData(work / "rooms", settings_of(work, "mixing.snr=[90, 90]", "mixing.room=1.0", "augment={}"))[0, 0, 1]


def sources_by_kind(work, name, kinds):
    """Speech and constant noises of random kinds, each noise at a value of its own by which a mixture shows it."""
    import numpy as np

    from setk import audio
    from setk.data.lists import write_list

    folder = work / name
    folder.mkdir()
    shutil.copy(work / "mixed" / "speech.scp", folder)
    noises = {}
    for i in range(len(kinds)):
        hertz = 500 + 250 * i
        noises[f"n{i:02d}"] = folder / f"{i}.wav"
        audio.write(
            noises[f"n{i:02d}"], 0.5 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32), 16000
        )
    write_list(folder / "noise.scp", noises)
    write_list(folder / "noise2kind", dict(zip(noises, kinds)))
    return folder


def heard(noise):
    """Which of the noises of `sources_by_kind` a noise [n] is."""
    import numpy as np

    peak = np.argmax(np.abs(np.fft.rfft(noise))) * 16000 / len(noise)
    return round((peak - 500) / 250)


def test_kinds_of_noise_are_drawn_evenly_from_lists_and_from_shards(work):
    from collections import Counter

    from setk.core.errors import UserError
    from setk.data.datadir import DataDir
    from setk.data.lists import read_list, write_list
    from setk.data.shards import write_shards
    from setk.training.data import TrainingData

    kinds = ["hum"] * 9 + ["horn", "bell", "bell"]
    folder = sources_by_kind(work, "kinds", kinds)
    assert {d.state for d in write_shards(DataDir(folder), work / "kinds_shards", size=7)} == {"made"}
    s = settings_of(work, "mixing.snr=[-20, -20]", "augment={}", "batch=10")
    found = []
    for place in (folder, work / "kinds_shards"):
        data = TrainingData(place, s)
        batches = [data[step, 0, 1] for step in range(12)]
        found.append([heard(x) for noisy, clean in batches for x in (noisy - clean).numpy()])
    assert found[0] == found[1]
    counts = Counter(kinds[i] for i in found[0])
    assert all(0.2 < counts[kind] / len(found[0]) < 0.47 for kind in set(kinds)), counts
    assert {i for i in found[0] if kinds[i] == "bell"} == {10, 11}
    write_list(folder / "noise2kind", dict(list(read_list(folder / "noise2kind").items())[1:]))
    with pytest.raises(UserError, match="noise2kind: n00 has no kind"):
        TrainingData(folder, s)


def test_voices_are_made_as_high_as_those_of_children(work):
    import numpy as np

    from setk import audio
    from setk.data.lists import write_list
    from setk.training.data import HIGHER, TrainingData

    folder = sources_by_kind(work, "voices", ["hum"])
    voices = {f"s{i:02d}": folder / f"s{i}.wav" for i in range(20)}
    for path in voices.values():
        audio.write(path, 0.5 * np.sin(2 * np.pi * 1000 * np.arange(64000) / 16000).astype(np.float32), 16000)
    write_list(folder / "speech.scp", voices)
    s = settings_of(work, "mixing={snr: [20, 20], high_voice: 0.5}", "augment={}", "batch=20")
    clean = TrainingData(folder, s)[0, 0, 1][1].numpy()
    faster = np.abs(np.fft.rfft(clean * np.hanning(clean.shape[1]))).argmax(1) * 16 / clean.shape[1]
    high = faster > 1.1
    assert 3 <= high.sum() <= 17 and np.allclose(faster[~high], 1, atol=0.01)
    assert (faster[high] > HIGHER[0] - 0.01).all() and (faster[high] < HIGHER[1] + 0.01).all()
    assert len(set(faster[high].round(2))) > 1


@pytest.mark.parametrize("context, size", [(0.003, 5), (0.25, 5), (1.0, 5), (1.7, 5), (1.0, 2), (1.7, 3)])
def test_the_latter_half_of_a_batch_continues_a_recording_of_other_examples(work, context, size):
    from setk.training.objective import Enhancer

    s = settings_of(work, f"context={context}", "segment=0.5")
    model = models.build(s.model, s.config).eval()  # BatchNorm in training mixes the examples
    noisy = 0.1 * torch.randn(size, 8000)
    found, _ = Enhancer(model, s)(noisy)
    frames = model.transform.analysis(noisy)
    heard = max(1, round(context / 0.5 * frames.shape[1]))
    for i in range(size):
        others = [(i - k) % size for k in range(8, 0, -1) if k % size]
        before = torch.cat([frames[other] for other in others])[-heard:][None]
        state = model.init_state(1) if i < size - size // 2 else model(before, model.init_state(1))[1]
        torch.testing.assert_close(found[i], model.whole(frames[i : i + 1], state)[0], atol=1e-5, rtol=1e-4)


def test_context_is_refused_where_nothing_can_be_heard_before(work):
    context = ("--set", "context=1")
    assert "two examples" in finish(work, work / "alone", *context, "--set", "batch=1", code=2).err
    one_chunk = ("--set", "model=conv_tasnet", "--set", "config={}", "--set", "preset=conv_tasnet-small")
    assert "not causal" in finish(work, work / "one_chunk", *context, *one_chunk, code=2).err


def test_segments_without_noise_or_without_speech_come_as_often_as_asked(work):
    from setk.training.data import TrainingData

    s = settings_of(work, "mixing={snr: [0, 0], clean_only: 0.3, noise_only: 0.3}", "augment={}", "batch=10")
    data = TrainingData(work / "mixed", s)
    batches = [data[step, 0, 1] for step in range(12)]
    noisy, clean = (torch.cat(parts) for parts in zip(*batches))
    only_noise = clean.abs().amax(1) == 0
    only_clean = (noisy - clean).abs().amax(1) == 0
    assert 0.15 < only_noise.float().mean() < 0.45 and 0.15 < only_clean.float().mean() < 0.45
    assert not (only_noise & only_clean & (noisy.abs().amax(1) > 0)).any()
    assert (noisy.abs().amax(1) > 0).all()


def test_clipped_input_keeps_its_target(work):
    from setk.training.data import TrainingData

    plain, clipped = (
        TrainingData(work / "mixed", settings_of(work, f"augment.clip={p}", "augment.band_limit=0"))[0, 0, 1]
        for p in (0.0, 1.0)
    )
    assert torch.equal(plain[1], clipped[1])
    for before, after in zip(plain[0], clipped[0]):
        limit = after.abs().max()
        assert torch.equal(after, before.clamp(-limit, limit)) and 0.0005 < (before.abs() > limit).float().mean() < 0.06


@pytest.mark.parametrize(
    "train, setting, words",
    [
        ("shards", "mixing.room=0.5", "shards: has pairs, so these settings have no effect: mixing.room\n"),
        (
            "mixed",
            "augment.remix=1",
            "mixed: has speech and noise to mix, so these settings have no effect: augment.remix\n",
        ),
    ],
)
def test_a_setting_that_the_data_do_not_use_is_told(work, tmp_path, train, setting, words):
    plain = ("--set", "augment={}", "--set", "steps=1", "--set", "batch=1", "--set", "segment=0.5")
    told = finish(work, tmp_path / "told", *plain, "--set", setting, train=train)
    assert words in told.err
    if train == "shards":
        assert "no effect" not in finish(work, tmp_path / "silent", *plain, train=train).err


def test_a_refused_training_leaves_no_directory(work, tmp_path):
    finish(work, tmp_path / "never", "--set", "accumulate=3", code=2)
    assert not (tmp_path / "never").exists()
    (tmp_path / "mine").mkdir()
    finish(work, tmp_path / "mine", "--set", "accumulate=3", code=2)
    assert (tmp_path / "mine").exists()


def test_pruning_that_no_layer_can_reach_is_refused_before_the_first_step(work, tmp_path):
    told = finish(work, tmp_path / "never", "--set", "pruning={amount: 0.9, floor: 0.1}", code=2)
    assert "pruning: amount 0.9 is too much with floor 0.1" in told.err and not (tmp_path / "never").exists()


def test_what_others_left_among_the_candidates_stops_nothing(work, tmp_path):
    more = ("--set", "steps=2", "--set", "valid_every=1")
    finish(work, tmp_path / "out", *more)
    left = tmp_path / "out/average/.2.0123abcd.99999.tmp.pt"  # of another machine
    left.write_bytes(b"half")
    (tmp_path / "out/average/copy of 2.pt").write_bytes(b"a user's own")
    finish(work, tmp_path / "out", *more)
    finish(work, tmp_path / "out", *more, "--fresh")


def test_loss_falls(work):
    finish(work, work / "longer", "--set", "steps=60", "--set", "valid_every=20", "--set", "lr=3e-3")
    rows = [line.split("\t") for line in (work / "longer" / "history.tsv").read_text().splitlines()]
    loss = [float(row[rows[0].index("loss")]) for row in rows[1:]]
    assert loss[-1] < 0.97 * loss[0]


def test_init_takes_weights_of_the_same_model_only(work, whole):
    finish(
        work,
        work / "init",
        "--init",
        whole / "last.pt",
        "--set",
        "steps=1",
        "--set",
        "lr=1e-12",
        "--set",
        "valid_every=1",
    )
    x, y = weights(whole / "last.pt"), weights(work / "init" / "last.pt")
    assert all(
        torch.allclose(x[k].float(), y[k].float(), atol=1e-6)
        for k in x
        if "running" not in k and "num_batches" not in k
    )
    assert "--init" in finish(work, work / "init2", "--init", whole / "last.pt", "--set", "config.groups=4", code=2).err
    other = finish(work, work / "init3", "--init", "dpsnn", code=2)
    assert "holds dpsnn, and the config is of fspen" in other.err and "quantized" not in other.err


@pytest.mark.parametrize(
    "setting, words",
    [
        ("step=3", "did you mean 'steps'"),
        ("model=fspn", "did you mean 'fspen'"),
        ("losses.l3=1", "'l3' is unknown"),
        ("optimizer=sgd", "adamw, muon"),
        ("best=pesq_wb", "not among the metrics"),
        ("best={stoi: 1, lsd: 1}", "'lsd' is not among the metrics"),
        ("mixing={clean_only: 0.6, noise_only: 0.6}", "clean_only and noise_only"),
        ("device=cuda:9", "no GPU|cuda"),
        ("config.groups=5", "groups"),
        ("batch=1000", "fewer than one batch"),
        ("metrics=[pesk]", "'pesk' is unknown"),
        ("metrics=[si_sdri]", "take 'si_sdr'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(work, setting, words):
    import re

    done = finish(work, work / "none", "--set", setting, code=2)
    assert len(done.err.strip().splitlines()) == 1 and re.search(words, done.err), done.err


def test_data_at_another_rate_than_the_model_is_refused_with_the_command_that_converts(work, tmp_path):
    import numpy as np

    from setk import audio

    for name in ("speech", "noise"):
        audio.write(tmp_path / f"{name}.wav", 0.1 * np.ones((1, 48000)), 48000)
        (tmp_path / f"{name}.scp").write_text("".join(f"u{i} {tmp_path}/{name}.wav\n" for i in range(8)))
    done = finish(work, tmp_path / "out", train=tmp_path, code=2)
    assert "48000 Hz" in done.err and "se-prep resample LIST OUT --rate 16000" in done.err


def test_a_hostile_checkpoint_runs_nothing(work, tmp_path):
    import os
    import pickle

    from setk.data.datadir import DataDir

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    for name, content in [("a.pt", pickle.dumps(Payload())), ("b.pt", b"junk"), ("c.pt", b"")]:
        (tmp_path / name).write_bytes(content)
    torch.save({"model": "fspen", "x": Payload()}, tmp_path / "d.pt")
    noisy, _ = next(iter(DataDir(MINI / "test").pairs().values()))
    for name in "abcd":
        done = COMMANDS("enhance", tmp_path / f"{name}.pt", ROOT / noisy, tmp_path / "o.wav")
        assert done.returncode == 2 and "not a checkpoint" in done.err, done.err
    assert not (tmp_path / "ran").exists()


def test_a_mean_of_a_term_is_over_the_steps_that_had_it():
    from setk.training.progress import Sums

    sums, resumed = Sums(), Sums()
    for terms in ({"loss": 1.0}, {}, {"loss": 2.0, "discriminator": 0.5}):
        sums.add(terms)
    assert sums.means() == {"loss": 1.5, "discriminator": 0.5}
    resumed.restore(sums.totals)
    resumed.add({"loss": 6.0})
    assert resumed.means() == {"loss": 3.0, "discriminator": 0.5}
    resumed.restore({"loss": 3.0, "": 2.0})  # a state from before each term had its count
    resumed.add({"loss": 3.0})
    assert resumed.means() == {"loss": 2.0}


def test_the_rate_follows_its_schedule():
    from setk.training.schedule import learning_rate
    from setk.training.settings import Settings

    made = {"model": "fspen", "steps": 1000, "warmup": 10, "lr": 1e-2, "lr_end": 1e-3}
    cosine, exponential = Settings(**made), Settings(**made, schedule="exponential")
    assert learning_rate(4, cosine) == learning_rate(4, exponential) == pytest.approx(5e-3)
    assert learning_rate(505, cosine) == pytest.approx((1e-2 + 1e-3) / 2)
    # Steps are 0 to 999: lr_end is not reached.
    assert learning_rate(1000, cosine) == pytest.approx(1e-3) and learning_rate(999, cosine) > 1e-3
    assert learning_rate(500, exponential) == pytest.approx(1e-2 * 0.9999**500)
    long = Settings(**{**made, "steps": 96000}, schedule="exponential")
    assert learning_rate(48000, long) == pytest.approx(1e-2 * 0.1**0.5) and learning_rate(96000, long) == pytest.approx(
        1e-3
    )


def test_fresh_does_not_delete_what_it_starts_from(work, whole):
    out = work / "again"
    shutil.copytree(whole, out)
    before = (out / "best.pt").read_bytes()
    for init in (work / "missing.pt", "conv_tasnet-small"):
        assert finish(work, out, "--fresh", "--init", init, code=2).err
        assert (out / "best.pt").read_bytes() == before and (out / "resume.pt").exists()
    assert (
        "at step"
        not in finish(work, out, "--fresh", "--init", out / "best.pt", "--set", "steps=2").err.split("done")[0]
    )
    assert (out / "best.pt").read_bytes() != before


def test_data_in_many_shards_are_known_by_their_earlier_digest(work, tmp_path):
    from setk.data.datadir import DataDir
    from setk.data.shards import write_shards

    list(write_shards(DataDir(work / "train"), tmp_path / "shards", size=2))
    assert len(list((tmp_path / "shards").glob("*.h5"))) > 10
    more = ("--set", "steps=2", "--set", "average=0")
    finish(work, tmp_path / "lists", *more, train="train")
    finish(work, tmp_path / "out", *more, train=tmp_path / "shards")
    x, y = (weights(tmp_path / name / "last.pt") for name in ("lists", "out"))
    assert all(torch.equal(x[k], y[k]) for k in x)
    data = TrainingData(tmp_path / "shards", settings_of(work))
    assert data.earlier_digest != data.digest
    state = checkpoint.read(tmp_path / "out/resume.pt")
    for digest, code in ((data.earlier_digest, 0), ("0" * 64, 2)):
        state["identity"]["data"] = digest
        checkpoint.write(tmp_path / "out/resume.pt", state)
        finish(work, tmp_path / "out", *more, train=tmp_path / "shards", code=code)


def test_a_config_of_the_user_is_not_replaced(work, tmp_path):
    (tmp_path / "config.yaml").write_text("# mine\n" + TINY)
    data = ["--train", work / "shards", "--valid", work / "valid", "--out", tmp_path]
    done = COMMANDS("train", tmp_path / "config.yaml", *data, timeout=PATIENCE)
    assert done.returncode == 2 and "not what this version of se-train wrote" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text().startswith("# mine")


def test_what_is_trained_alone_is_quantized_as_the_whole(work, whole):
    some = ["--set", "only=[blocks]", "--set", "quantization={observe: 2}"]
    finish(work, work / "some", "--init", whole / "best.pt", *some, "--set", "steps=4", "--set", "average=0")
    seen = {name: int(value) for name, value in weights(work / "some/last.pt").items() if name.endswith(".seen")}
    assert len(seen) > 10 and set(seen.values()) == {2}, seen


def test_a_run_is_not_continued_from_another_start_or_on_other_pairs(work, whole):
    assert "--init" in finish(work, whole, "--init", whole / "last.pt", code=2).err
    (work / "other").mkdir()
    for name in ("noisy.scp", "clean.scp"):
        lines = (work / "valid" / name).read_text().splitlines(keepends=True)
        (work / "other" / name).write_text(lines[0])
    elsewhere = ["train", *arguments(work, whole)]
    elsewhere[elsewhere.index(work / "valid")] = work / "other"
    done = COMMANDS(*elsewhere, timeout=PATIENCE)
    assert done.returncode == 2 and "the validation set" in done.err


def test_a_start_is_known_by_the_content_of_its_file(work, whole, tmp_path):
    first, moved = tmp_path / "first.pt", tmp_path / "moved.pt"
    shutil.copy(whole / "best.pt", first)
    more = ("--set", "steps=4", "--set", "average=0")
    finish(work, tmp_path / "out", "--init", first, *more)
    first.rename(moved)
    finish(work, tmp_path / "out", "--init", moved, *more)
    shutil.copy(whole / "last.pt", moved)
    assert "another value of --init" in finish(work, tmp_path / "out", "--init", moved, *more, code=2).err
    state = checkpoint.read(tmp_path / "out/resume.pt")
    state["identity"]["begun_from"] = str(moved)  # as setk 0.1 knew it
    checkpoint.write(tmp_path / "out/resume.pt", state)
    finish(work, tmp_path / "out", "--init", moved, *more)
    assert "another value of --init" in finish(work, tmp_path / "out", "--init", whole / "last.pt", *more, code=2).err


def test_two_trainings_do_not_write_into_one_directory(work):
    out = work / "held"
    out.mkdir()
    folder = os.open(out, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert "another se-train" in finish(work, out, code=2).err and not list(out.iterdir())
    os.close(folder)
    finish(work, out, "--set", "steps=2")


@pytest.mark.parametrize(
    "fault, words", [("missing", "no such file"), ("stereo", "2 channels"), ("rate", "8000 Hz"), ("length", "samples")]
)
def test_faults_of_the_validation_pairs_show_before_the_first_step(work, tmp_path, fault, words):
    import numpy as np

    from setk import audio
    from setk.data.lists import write_list

    pair = {name: tmp_path / f"{name}.wav" for name in ("noisy", "clean")}
    for path in pair.values():
        audio.write(path, 0.1 * np.ones((1, 8000)), 16000)
    if fault == "missing":
        pair["clean"].unlink()
    else:
        odd = {
            "stereo": (np.ones((2, 8000)), 16000),
            "rate": (np.ones((1, 8000)), 8000),
            "length": (np.ones((1, 7999)), 16000),
        }
        audio.write(pair["clean"], *odd[fault])
    for name, path in pair.items():
        write_list(tmp_path / f"{name}.scp", {"a": path})
    call = ["train", *arguments(work, tmp_path / "out")]
    call[call.index(work / "valid")] = tmp_path
    done = COMMANDS(*call, timeout=PATIENCE)
    assert done.returncode == 2 and words in done.err and "step" not in done.err.replace("se-prep", "")


def test_a_training_without_a_score_is_no_success(work, tmp_path):
    import numpy as np

    from setk import audio
    from setk.data.lists import write_list

    audio.write(tmp_path / "silence.wav", np.zeros((1, 8000)), 16000)
    for name in ("noisy", "clean"):
        write_list(tmp_path / f"{name}.scp", {"a": tmp_path / "silence.wav"})
    call = ["train", *arguments(work, tmp_path / "out", "--set", "steps=2", "--set", "average=0")]
    call[call.index(work / "valid")] = tmp_path
    done = COMMANDS(*call, timeout=PATIENCE)
    assert done.returncode == 1 and "no validation gave a score" in done.err and not (tmp_path / "out/best.pt").exists()


def test_a_mean_overwrites_nothing_but_a_mean(work, whole):
    best, last = whole / "best.pt", whole / "last.pt"
    before = best.read_bytes()

    def average(*paths):
        options = ("--valid", work / "valid", "--metrics", "si_sdr")
        return COMMANDS("train", "average", *paths, *options, timeout=PATIENCE)

    assert average(best, last, best).returncode == 2 and best.read_bytes() == before
    assert average(whole / "config.yaml", last, best).returncode == 2
    for _ in range(2):
        assert average(work / "mean.pt", last, best).returncode == 0


def test_shards_of_pairs_and_of_sources_are_not_taken_for_one_another(work, tmp_path):
    from setk.data.datadir import DataDir
    from setk.data.shards import write_shards

    for name in ("train", "mixed"):
        assert all(done.state == "made" for done in write_shards(DataDir(work / name), tmp_path / "both", size=20))
    call = ["train", *arguments(work, tmp_path / "out")]
    call[call.index(work / "shards")] = tmp_path / "both"
    done = COMMANDS(*call, timeout=PATIENCE)
    assert done.returncode == 2 and "folders of their own" in done.err


def test_shards_of_an_earlier_larger_number_do_not_stay(work, tmp_path):
    from setk.data.datadir import DataDir
    from setk.data.shards import write_shards

    for size, count in ((5, 10), (48, 1)):
        list(write_shards(DataDir(work / "train"), tmp_path, size=size))
        assert len(list(tmp_path.glob("pairs.*.h5"))) == count


def test_the_processes_of_a_killed_training_do_not_hold_its_directory(tmp_path):
    code = """
import os, sys, time
from pathlib import Path
from setk.training import loop
with loop.alone(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader process does
        print("begun", flush=True)
        time.sleep(60)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "exp"], stdout=subprocess.PIPE, process_group=0)
    try:
        assert holder.stdout.readline() == b"begun\n"
        with pytest.raises(UserError, match="another se-train trains there"), loop.alone(tmp_path / "exp"):
            pass
        holder.kill()
        holder.wait()
        with loop.alone(tmp_path / "exp"):
            assert (tmp_path / "exp").is_dir()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
