"""se-prune and pruning in training: what goes is what was least, and what stays computes what it did."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess

import pytest
import torch
from conftest import COMMANDS, MINI, PATIENCE, ROOT, SMALL, moved_checkpoint, stopping

from setk import audio, checkpoint, models
from setk.core import config
from setk.compress import pruning, units
from setk.cost import macs
from setk.data.datadir import DataDir
from setk.data.lists import write_list

torch.set_num_threads(1)
MODELS = {
    "fspen": {"groups": 4, "dpe_blocks": 2},
    "fspen-79k": {
        "groups": 2,
        "dpe_blocks": 1,
        "norm_inter": False,
        "norm_bands": False,
        "decoder_1x1": True,
        "subband_norm": False,
    },
    "lite_rtse": {},
    "lite_rtse-dense": {"dense_3x3": True, "shared_depthwise": True},
    "dpsnn": {"blocks": 2, "encoder": 48, "hidden": 64, "width": 32},
    "conv_tasnet": {
        "filters": 32,
        "bottleneck": 8,
        "hidden": 16,
        "skip": 12,
        "blocks": 2,
        "repeats": 2,
        "splitter": 2,
        "residual": True,
    },
    "effifusion_gan": {"channels": 16, "blocks": 1, "heads": 2},
    "gtcrn": {"blocks": 1},
    "fastenhancer": {},
    "fastenhancer-48k": {"rate": 48000, "window": 1024, "hop": 512, "learned_bands": True, "bands": 24},
}


def build(name, **more):
    return models.build(name.partition("-")[0], {**MODELS[name], **more}).double().eval()


@pytest.fixture(scope="module", params=MODELS)
def scattered(request):
    """The name of a model, the model in float64 with all its weights and statistics moved, frames, and its output."""
    torch.manual_seed(5)
    model = build(request.param)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.rand_like(tensor)
        frames = 0.5 * torch.randn(2, 8, *model.transform.shape, dtype=torch.float64)
        return request.param, model, frames, model.whole(frames)


@torch.no_grad()
def test_units_in_any_order_compute_the_same(scattered):
    """Which is so only if a group has every weight and statistic of its units."""
    name, model, frames, before = scattered
    groups = units.groups(model)
    assert [g.size for g in groups] == list(model.units.values()) and [g.name for g in groups] == list(model.units)
    # A turned order moves every unit, whatever the draw.
    orders = [[torch.arange(g.size).roll(int(torch.randint(1, g.size, ()))) for _ in g.lanes] for g in groups]
    mixed = pruning.without(model, groups, orders)
    same = [g.name for g in groups if torch.equal(*(m.state_dict()[g.lanes[0][0].name] for m in (mixed, model)))]
    assert not same and (mixed.whole(frames) - before).abs().max() < 1e-9


@pytest.mark.full
@torch.no_grad()
def test_units_that_nothing_reads_go_without_a_trace(scattered):
    name, model, frames, _ = scattered
    groups, weights, kept = units.groups(model), {k: v.clone() for k, v in model.state_dict().items()}, []
    if not any(g.exact for g in groups):
        pytest.skip("all its units share norms")
    for g in groups:
        alive = [
            torch.randperm(g.size)[: -(-g.size // 2)].sort().values if g.exact else torch.arange(g.size)
            for _ in g.lanes
        ]
        kept.append(alive)
        for lane, stays in zip(g.lanes, alive):
            for member in lane:
                if member.reads:
                    dead = torch.ones(g.size, dtype=torch.bool).index_fill(0, stays, False)
                    weights[member.name].view(-1)[member.entries[dead]] = 0
    whole = build(name)
    whole.load_state_dict(weights)
    smaller = pruning.without(whole, groups, kept)
    assert list(smaller.units.values()) == [len(lanes[0]) for lanes in kept]
    assert (smaller.whole(frames) - whole.whole(frames)).abs().max() < 1e-9
    cost = [sum(layer.macs_per_second for layer in macs.layers(m.float(), 0.05)) for m in (smaller, whole)]
    assert cost[0] < 0.8 * cost[1]


def test_what_goes_scored_least_and_every_layer_keeps_its_floor(rng):
    for _ in range(20):
        sizes, scales = rng.integers(1, 200, 5), rng.uniform(0.1, 10, 5)
        scores = [torch.from_numpy(rng.standard_exponential(int(n)) * scale) for n, scale in zip(sizes, scales)]
        floor = rng.uniform(0, 0.6)
        amount = rng.uniform(0, 0.9 * (1 - floor))
        total, most = sum(map(len, scores)), sum(len(s) - math.ceil(floor * len(s)) for s in scores)
        if round(amount * total) > most:
            continue
        stays = pruning.survivors(scores, amount, floor)
        assert sum(int((~s).sum()) for s in stays) == round(amount * total)
        assert all(s.sum() >= floor * len(s) for s in stays)
        gone = max((float(v[~s].max()) for v, s in zip(scores, stays) if not s.all()), default=0.0)
        for value, stay in zip(scores, stays):  # beyond its floor a layer keeps nothing less than what went elsewhere
            assert all(v >= gone for v in sorted(value[stay].tolist(), reverse=True)[math.ceil(floor * len(value)) :])


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Two short pairs, and their lists."""
    path = tmp_path_factory.mktemp("lists")
    pairs = dict(sorted(DataDir(MINI / "test").pairs().items())[:2])
    for k, name in enumerate(("noisy", "clean")):
        write_list(path / f"{name}.scp", {utt: ROOT / pair[k] for utt, pair in pairs.items()})
    return ["--list", path / "noisy.scp", "--ref", path / "clean.scp", "--metrics", "stoi,si_sdr"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of a small FSPEN that changes its input clearly."""
    return moved_checkpoint(tmp_path_factory.mktemp("model") / "small.pt", {"groups": 2, "dpe_blocks": 1})


@pytest.fixture(scope="module")
def half_dead(small, tmp_path_factory):
    """A model of whose units, except the trunk's, each second is read by nothing; their part of all units."""
    model, _ = checkpoint.load(small)
    weights, dead, total = model.state_dict(), 0, 0
    for g in units.groups(model):
        total += g.size * len(g.lanes)
        if g.exact:
            dead += g.size // 2 * len(g.lanes)
            for lane in g.lanes:
                for member in lane:
                    if member.reads:
                        weights[member.name].view(-1)[member.entries[1::2]] = 0
    path = tmp_path_factory.mktemp("dead") / "dead.pt"
    checkpoint.save(path, model, {})
    return path, dead / total


def table(text):
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@pytest.mark.full
@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_dead_units_are_found_and_leave_no_trace(se, half_dead, lists, tmp_path, importance):
    source, amount = half_dead
    done = se(
        "prune",
        source,
        tmp_path / "out.pt",
        "--method",
        "structured",
        "--amount",
        amount,
        "--multiple",
        1,
        "--floor",
        0,
        "--importance",
        importance,
        *lists,
    )
    assert done.returncode == 0, done.err
    dense, pruned = table(done.out)
    assert [row["model"] for row in (dense, pruned)] == ["dense", "pruned"] and float(pruned["snr_db"]) > 90
    assert float(pruned["stoi"]) == pytest.approx(float(dense["stoi"]), abs=1e-4)
    for key, most in (("params", 0.5), ("params_nonzero", 1), ("macs_per_second", 0.5), ("bytes", 0.7)):
        assert float(pruned[key]) < most * float(dense[key]), key
    assert all(float(row["rtf"]) > 0 for row in (dense, pruned))


@pytest.mark.full
def test_a_target_is_met_closely_and_the_file_is_an_ordinary_checkpoint(se, small, tmp_path):
    out = tmp_path / "out.pt"
    done = se(
        "prune", small, out, "--method", "structured", "--target-macs", 22e6, "--multiple", 1, "--importance", "l2"
    )
    assert done.returncode == 0, done.err
    row = table(done.out)[1]
    assert 20e6 < float(row["macs_per_second"]) <= 22e6 and "snr_db" not in row
    model, about = checkpoint.load(out)
    assert about["config"]["widths"] == list(model.units.values())
    assert (
        about["provenance"]["method"] == "structured"
        and about["provenance"]["sha256"] == checkpoint.load(small)[1]["sha256"]
    )
    counted = json.loads(se("count", out, "--json").out)
    assert counted["macs_per_second"] == float(row["macs_per_second"]) and counted["bytes"] == out.stat().st_size
    assert se("quant", "export", out, tmp_path / "out.onnx").returncode == 0
    noisy = ROOT / next(iter(DataDir(MINI / "test").pairs().values()))[0]
    assert se("enhance", out, noisy, tmp_path / "out.wav").returncode == 0
    again = se("prune", out, tmp_path / "again.pt", "--method", "structured", "--target-params", 0.8)
    assert float(table(again.out)[1]["params"]) <= 0.8 * float(row["params"]), again.err


@pytest.mark.full
def test_magnitude_makes_zeros_and_says_that_they_are_no_speed(se, small, tmp_path):
    done = se("prune", small, tmp_path / "out.pt", "--method", "magnitude", "--amount", 0.6, "--floor", 0.2)
    dense, pruned = table(done.out)
    assert (
        done.returncode == 0
        and "do not make a model faster" in done.err
        and dense["macs_per_second"] == pruned["macs_per_second"]
    )
    before, after = (pruning.prunable_weights(checkpoint.load(path)[0]) for path in (small, tmp_path / "out.pt"))
    total, zeros = sum(w.numel() for w in after.values()), sum(int((w == 0).sum()) for w in after.values())
    assert zeros == round(0.6 * total) == int(dense["params_nonzero"]) - int(pruned["params_nonzero"])
    for name, w in after.items():
        assert (w != 0).sum() >= 0.2 * w.numel() and torch.equal(w[w != 0], before[name][w != 0])


@pytest.mark.parametrize(
    "argv",
    [
        ["prune", "m.pt", "link.pt", "--method", "magnitude", "--amount", 0.3],
        ["quant", "ptq", "m.pt", "./m.pt", "--list", "n.scp"],
        ["quant", "import", "m.pt", "m.pt"],
    ],
)
def test_the_input_is_not_overwritten(se, small, lists, tmp_path, argv):
    shutil.copyfile(small, tmp_path / "m.pt")
    (tmp_path / "link.pt").symlink_to("m.pt")
    shutil.copyfile(lists[1], tmp_path / "n.scp")
    names = {name: tmp_path / name for name in ("m.pt", "link.pt", "./m.pt", "n.scp")}
    done = se(*(names.get(arg, arg) for arg in argv))
    assert done.returncode == 2 and "is the input" in done.err, done.err
    assert (tmp_path / "m.pt").read_bytes() == small.read_bytes()


TAYLOR = ["--method", "structured", "--amount", 0.1, "--importance", "taylor", "--ref"]


@pytest.mark.parametrize(
    "argv, list_, out, words",
    [
        (["quant", "ptq"], "l.scp", "l.scp", "has the suffix .pt"),
        (["quant", "ptq"], "l.pt", "l.pt", "is the input"),
        (["quant", "ptq"], "l.scp", "own.pt", "is the input"),
        (["prune"], "l.pt", "l.pt", "is the input"),
        (["prune"], "l.scp", "own.pt", "is the input"),
    ],
)
def test_signals_and_their_list_are_not_overwritten(se, small, tmp_path, argv, list_, out, words):
    """own.pt is a wav under a misleading name."""
    audio.write(tmp_path / "own.wav", 0.1 * torch.randn(8000).numpy(), 16000)
    (tmp_path / "own.wav").rename(tmp_path / "own.pt")
    (tmp_path / list_).write_text(f"a {tmp_path}/own.pt\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    more = [*TAYLOR, tmp_path / list_] if argv == ["prune"] else []
    done = se(*argv, small, tmp_path / out, "--list", tmp_path / list_, *more)
    assert done.returncode == 2 and words in done.err, done.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_silence_gives_no_importance(se, small, tmp_path):
    audio.write(tmp_path / "s.wav", torch.zeros(8000).numpy(), 16000)
    (tmp_path / "l.scp").write_text(f"a {tmp_path}/s.wav\n")
    done = se("prune", small, tmp_path / "o.pt", "--list", tmp_path / "l.scp", *TAYLOR, tmp_path / "l.scp")
    assert done.returncode == 2 and "give no gradient" in done.err and not (tmp_path / "o.pt").exists(), done.err


@pytest.mark.full
@pytest.mark.parametrize(
    "args, said",
    [
        ([], "--method"),
        (["--method", "structured"], "one of --amount"),
        (["--method", "structured", "--amount", 0.5, "--target-macs", 0.5], "one of"),
        (["--method", "magnitude", "--target-macs", 0.5], "--target-macs does not apply with --method magnitude"),
        (["--method", "structured", "--amount", 0.95], "floor 0.1"),
        (["--method", "structured", "--target-macs", 1000], "cannot be met"),
        (["--method", "structured", "--amount", 0.5, "--importance", "taylor"], "needs --list"),
        (
            ["--method", "magnitude", "--amount", 0.5, "--multiple", 4],
            "--multiple does not apply with --method magnitude",
        ),
        (["--method", "structured", "--amount", 0.5, "--metrics", "stoi"], "--metrics does not apply without --list"),
    ],
)
def test_mistakes_exit_2_and_write_nothing(se, small, tmp_path, args, said):
    done = se("prune", small, tmp_path / "out.pt", *args)
    assert done.returncode == 2 and said in done.err and done.out == "" and not (tmp_path / "out.pt").exists()


def test_a_model_without_groups_is_told(se, tmp_path):
    checkpoint.save(tmp_path / "m.pt", models.build_preset("dpcrn_cf"), {})
    done = se("prune", tmp_path / "m.pt", tmp_path / "out.pt", "--method", "structured", "--amount", 0.5)
    assert done.returncode == 2 and "--method magnitude works for any model" in done.err


def test_a_wrong_number_of_widths_is_told():
    with pytest.raises(Exception, match="expected 14 numbers, for encoder.0"):
        models.build("fspen", {"widths": [4, 16]})


CONF = (
    SMALL
    + """batch: 2
steps: 12
warmup: 1
losses: {l1: 1.0}
valid_every: 4
save_every: 3
metrics: [stoi]
best: stoi
"""
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    (path / "conf.yaml").write_text(CONF)
    (path / "valid").mkdir()
    utt, pair = next(iter(DataDir(MINI / "valid").pairs().items()))
    for k, name in enumerate(("noisy", "clean")):
        write_list(path / "valid" / f"{name}.scp", {utt: ROOT / pair[k]})
    return path


def arguments(work, out, *settings, init=None):
    return [
        work / "conf.yaml",
        "--train",
        MINI / "train",
        "--valid",
        work / "valid",
        "--out",
        out,
        *(["--init", init] if init else []),
        *(f"--set={s}" for s in settings),
    ]


def train(*args, code=0, **options):
    done = COMMANDS("train", *arguments(*args, **options))
    assert done.returncode == code, done.err
    return done


def part_zero(path):
    found = pruning.prunable_weights(checkpoint.load(path)[0]).values()
    return sum(int((w == 0).sum()) for w in found) / sum(w.numel() for w in found)


@pytest.mark.full
def test_pruning_in_training_ends_at_its_amount_and_a_stopped_run_with_the_same_bits(work):
    settings = ["pruning={amount: 0.5, start: 0.2, end: 0.7, every: 2}", "ema=0.5", "average=2"]
    train(work, work / "whole", *settings)
    # 0.7 x 12 steps: the validation after step 8 comes before the last choice, that after step 12 is the only candidate.
    for name in ("last.pt", "best.pt", "average.pt"):
        assert part_zero(work / "whole" / name) == pytest.approx(0.5, abs=1e-3), name
    stopped = stopping(2, *arguments(work, work / "cut", *settings))
    assert subprocess.run(stopped, cwd=ROOT, stderr=subprocess.DEVNULL, timeout=PATIENCE).returncode == 143
    state = checkpoint.read(work / "cut/resume.pt")
    dense = state["objective"]["model"]["module"]
    kept = state["objective"]["masks"]
    assert kept and all((dense[f"model.{name}"][~mask] != 0).any() for name, mask in kept.items() if not mask.all())
    assert "resuming" in train(work, work / "cut", *settings).err
    for name in ("last.pt", "best.pt"):
        a, b = (checkpoint.read(work / run / name)["weights"] for run in ("whole", "cut"))
        assert all(torch.equal(a[k], b[k]) for k in a), name


def test_masked_weights_learn_and_may_come_back():
    from setk.training.pruning import Masks
    from setk.training.settings import Pruning

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Conv1d(8, 8, 1))
    masks = Masks(model, Pruning(amount=0.5, start=0.0, end=0.5, every=4, floor=0.0), steps=16)
    parts = []
    for step in range(16):
        before = dict(masks.kept)
        masks.refresh(step)
        if masks.kept and (step > 8 or step % 4):
            assert masks.kept == before
        parts.append(1 - sum(m.sum().item() for m in masks.kept.values()) / 128)
    assert parts[0] == 0 and parts[8] == parts[15] == 0.5 and parts == sorted(parts)
    assert parts[4] == pytest.approx(0.5 * 7 / 8, abs=0.01)
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    with masks.on(model):
        assert (model[0].weight == 0).sum() + (model[1].weight == 0).sum() == 64
        model[1](model[0](torch.randn(4, 8)).t()[None]).square().sum().backward()
    assert all(torch.equal(p, dense[name]) for name, p in model.named_parameters())
    gone = ~masks.kept["0.weight"]
    assert (model[0].weight.grad[gone] != 0).any()
    with torch.no_grad():
        model[0].weight[gone] += 10
    masks.refresh(8)
    assert masks.kept["0.weight"][gone].all()
    assert [*Masks(model, Pruning(amount=0.5, layers="conv"), 16).weights] == ["1.weight"]


@pytest.mark.full
def test_a_pruned_checkpoint_is_trained_on_and_keeps_its_widths_and_zeros(se, small, work):
    pruned, sparse = work / "pruned.pt", work / "sparse.pt"
    assert se("prune", small, pruned, "--method", "structured", "--amount", 0.5).returncode == 0
    assert se("prune", pruned, sparse, "--method", "magnitude", "--amount", 0.5).returncode == 0
    settings = ["config=init", "pruning.keep=true", "steps=4"]
    assert "config" in train(work, work / "none", "config=init", code=2).err
    train(work, work / "tuned", *settings, init=sparse)
    tuned, about = checkpoint.load(work / "tuned/best.pt")
    assert about["config"]["widths"] == config.plain(checkpoint.load(pruned)[0].config)["widths"]
    before, after = (pruning.prunable_weights(m) for m in (checkpoint.load(sparse)[0], tuned))
    assert all((after[name][w == 0] == 0).all() for name, w in before.items())
    assert any((after[name] != w).any() for name, w in before.items())


@pytest.mark.parametrize(
    "setting, said",
    [
        ("pruning={amount: 0.95}", "leave floor"),
        ("pruning={amount: 0.5, start: 0.7}", "in this order"),
        ("pruning.keep=true", "--init"),
        ("pruning={amount: 0.5, layers: lstm}", "all or conv"),
        ("pruning={amont: 0.5}", "did you mean 'amount'"),
    ],
)
def test_a_bad_pruning_block_is_one_clear_line(work, setting, said):
    from setk.core.errors import UserError
    from setk.training.settings import resolve

    with pytest.raises(UserError, match=said):
        resolve(str(work / "conf.yaml"), [setting])


@pytest.mark.full
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize(
    "arguments",
    [["--method", "magnitude", "--amount", 0.95, "--floor", 0], ["--method", "part", "--without", "sub-band"]],
)
def test_a_model_with_channels_of_zeros_becomes_c(se, tmp_path, arguments):
    assert se("prune", "fspen", tmp_path / "z.pt", *arguments).returncode == 0
    done = se("quant", "export", tmp_path / "z.pt", tmp_path / "zämlich.c")
    snr = re.search(r"SNR ([\d.]+) dB to the checkpoint", done.err)
    assert done.returncode == 0 and snr and float(snr[1]) > 80, done.err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--method", "magnitude", "--amount", "nan"], "must be parts"),
        (["--method", "magnitude", "--amount", "-0.1"], "must be parts"),
        (["--method", "magnitude", "--amount", "0.3", "--floor", "2"], "must be parts"),
        (["--method", "structured", "--target-macs", "nan"], "--target-macs nan: must be above 0"),
        (["--method", "structured", "--target-params", "-3"], "--target-params -3: must be above 0"),
    ],
)
def test_amounts_that_are_none_are_refused(se, tmp_path, arguments, words):
    done = se("prune", "fspen", tmp_path / "p.pt", *arguments)
    assert done.returncode == 2 and words in done.err and not list(tmp_path.iterdir())


def test_what_is_pruned_is_a_checkpoint_by_its_name(se, tmp_path):
    (tmp_path / "fspen.c").write_text("int main(void);")
    done = se("prune", "fspen", tmp_path / "fspen.c", "--method", "magnitude", "--amount", 0.3)
    assert done.returncode == 2 and ".pt" in done.err and (tmp_path / "fspen.c").read_text() == "int main(void);"


def test_an_unreadable_file_costs_no_other_and_not_the_table(se, lists, tmp_path):
    noisy = lists[1].read_text().splitlines()
    (tmp_path / "noisy.scp").write_text("\n".join([*noisy[:-1], f"{noisy[-1].split()[0]} /nowhere.wav"]) + "\n")
    options = ["--method", "magnitude", "--amount", 0.1, "--list", tmp_path / "noisy.scp", *lists[2:]]
    done = se("prune", "fspen", tmp_path / "p.pt", *options)
    assert done.returncode == 1 and done.out.count("\n") == 3 and "/nowhere.wav" in done.err
    assert f"{len(noisy) - 1} done, 1 failed" in done.err
    assert se("prune", "fspen", tmp_path / "p.pt", *options, "--max-fail", 1).returncode == 0


def test_gains_are_scored_against_the_noisy_signals(se, lists, tmp_path):
    options = ["--method", "magnitude", "--amount", 0.1, *lists[:-1], "si_sdri", "--json"]
    done = se("prune", "fspen", tmp_path / "p.pt", *options)
    dense, pruned = map(json.loads, done.out.splitlines())
    assert done.returncode == 0 and dense["snr_db"] is None and pruned["snr_db"] > 0, done.err
    assert dense["si_sdri"] > 0 and dense["si_sdri"] != pruned["si_sdri"] and "Warning" not in done.err
