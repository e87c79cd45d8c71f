"""The Python API: the same samples, scores and counts as the commands, from NumPy arrays."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import MINI, ROOT

import setk
from setk import audio
from setk.data.lists import read_list, write_list

CLEAN, NOISY = (read_list(MINI / f"test/{name}.scp") for name in ("clean", "noisy"))

# The example of README: what it prints is not tested, what it computes is.
EXAMPLE = """
import setk
import soundfile

noisy, rate = soundfile.read("data/mini/test/noisy/mona_0001.flac")
model = setk.load("fspen")                       # a name, or the path of a checkpoint, .onnx or .ts
enhanced = model.enhance(noisy, rate)            # NumPy [n] or [channels, n], any rate

stream = model.stream(rate)                      # the same, live
blocks = [stream.push(noisy[i:i + 256]) for i in range(0, len(noisy), 256)] + [stream.flush()]

clean, _ = soundfile.read("data/mini/test/clean/mona_0001.flac")
scores = setk.score(clean, enhanced, rate, ["pesq_wb", "stoi", "si_sdr"])
print(model, scores)
"""


def sound(rate=16000, channels=1, seconds=1.3):
    return (np.random.default_rng(5).standard_normal((channels, int(seconds * rate) + 7)) * 0.1).astype(np.float32)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy_and_an_included_model_no_torch():
    run(
        "import sys, setk\nassert not [m for m in ('numpy', 'torch', 'typer', 'yaml') if m in sys.modules]\n"
        "import numpy as np\nmodel = setk.load('fspen')\nmodel.enhance(np.zeros(800), 8000)\n"
        "assert model.parameters == 86354 and model.latency_ms == 32\nassert 'torch' not in sys.modules"
    )


def test_the_example_of_the_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(EXAMPLE, names)
    live = np.concatenate(names["blocks"])
    assert (
        live.shape == names["enhanced"].shape == names["noisy"].shape and np.abs(live - names["enhanced"]).max() < 1e-5
    )
    before = setk.score(names["clean"], names["noisy"], names["rate"], ["pesq_wb", "stoi", "si_sdr"])
    assert all(names["scores"][name] > before[name] for name in before) and "fspen" in repr(names["model"])


@pytest.mark.parametrize("rate, channels", [(16000, 1), (48000, 2), (11025, 1)])
@pytest.mark.parametrize("model", ["fspen", "fqse-small"])
def test_enhance_has_the_bytes_of_se_enhance(se, tmp_path, model, rate, channels):
    audio.write(tmp_path / "noisy.wav", sound(rate, channels), rate)
    done = se("enhance", model, tmp_path / "noisy.wav", tmp_path / "out.wav")
    assert done.returncode == 0, done.err
    noisy, _ = audio.read(str(tmp_path / "noisy.wav"))
    pcm, _ = audio.to_int16(setk.load(model).enhance(noisy, rate))
    assert np.array_equal(audio.from_int16(pcm), audio.read(str(tmp_path / "out.wav"))[0])


def test_a_stream_has_the_bytes_of_a_pipe(se, rng):
    pcm = audio.to_int16(sound(channels=2))[0]
    done = se("enhance", "fspen", "-", "-", "--raw", "--rate", 16000, "--channels", 2, input=pcm.T.tobytes())
    stream = setk.load("fspen").stream(16000, channels=2)
    cuts = np.sort(rng.integers(0, pcm.shape[1], 9))
    out = np.concatenate([*(stream.push(block) for block in np.split(pcm, cuts, axis=1)), stream.flush()], axis=1)
    assert stream.latency_ms == 32 and out.dtype == np.float32
    assert np.array_equal(audio.to_int16(out)[0].T, np.frombuffer(done.stdout, "<i2").reshape(-1, 2))


@pytest.mark.parametrize("rate, stated", [(16000, 32), (48000, 46), (8000, 60), (44100, 46.007)])
def test_the_output_of_a_stream_is_as_late_as_it_states(rate, stated):
    stream, x = setk.load("fspen").stream(rate), sound(rate)[0]
    assert stream.latency_ms == pytest.approx(stated, abs=0.001)
    waited = seen = given = 0
    for block in np.split(x, range(0, len(x), rate // 1000)):
        seen += len(block)
        waited = max(waited, seen - given)
        given += len(stream.push(block))
    assert 0 <= 1000 * waited / rate - stated <= 1.5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_can_be_copied_and_sent_to_another_process(copied, rng):
    model = setk.load("fspen")
    noise = rng.standard_normal(4000)
    assert (copied(model).enhance(noise, 16000) == model.enhance(noise, 16000)).all()


def test_input_may_be_float_or_int16_with_or_without_channels():
    x = sound()
    model = setk.load("fspen")
    expected = model.enhance(x[0], 16000)
    assert expected.shape == x[0].shape and model.enhance(x[0, :0], 16000).shape == (0,)
    assert np.array_equal(model.enhance(x.astype(np.float64), 16000), expected[None])
    assert np.array_equal(setk.enhance("fspen", x[0], 16000), expected)
    pcm = audio.to_int16(x[0])[0]
    assert np.array_equal(model.enhance(pcm, 16000), model.enhance(pcm / 32768, 16000))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m: m.enhance(np.zeros((2, 3, 4)), 16000), "shape (2, 3, 4)"),
        (lambda m: m.enhance(np.zeros(9, int), 16000), "type int64"),
        (lambda m: m.enhance(np.zeros(9), 0), "rate 0"),
        (lambda m: m.enhance(np.array([0, np.nan]), 16000), "NaN"),
        (lambda m: m.stream(16000, 2).push(np.zeros(9)), "1 channels; the stream was opened for 2"),
        (lambda m: m.stream(16000, 0), "channels 0"),
        (lambda m: setk.load("fqse-small").stream(16000), "not causal"),
        (lambda m: setk.load("fspen-79k"), "has no weights"),
        (lambda m: setk.load("fspem"), "did you mean 'fspen'"),
        (lambda m: setk.score(np.zeros((2, 9)), np.zeros(9), 16000), "expected one channel"),
        (lambda m: setk.score(np.zeros(9), np.zeros(9), 16000, ["stio"]), "did you mean 'stoi'"),
        (lambda m: setk.score(np.zeros(9), np.zeros(9), 16000, ["si_sdri"]), "needs the noisy signal"),
        (lambda m: setk.count("fspen", "thop"), "no convention"),
        (lambda m: setk.export("fspen", "x.txt"), "must end in"),
        (lambda m: setk.compare([{"stoi": 1}], []), "row 1: has no 'utt'"),
        (lambda m: setk.compare([{"utt": 1, "stoi": 1}], []), "row 1: has no 'utt' that is text"),
        (lambda m: setk.compare([{"utt": "a", "stoi": "x"}], []), "row 1: stoi is 'x'"),
        (lambda m: setk.compare([{"utt": "a", "stoi": math.inf}], []), "row 1: stoi is inf"),
    ],
)
def test_mistakes_raise_a_user_error(call, words):
    with pytest.raises(setk.UserError) as e:
        call(setk.load("fspen"))
    assert words in str(e.value)


def test_a_stream_ends_once():
    stream = setk.load("fspen").stream(16000)
    assert stream.flush().shape == (0,)
    with pytest.raises(setk.UserError, match="has ended"):
        stream.push(np.zeros(9))


@pytest.fixture(scope="module")
def tables(se, tmp_path_factory):
    """Score tables of four noisy signals and of the same at half the SNR."""
    folder = tmp_path_factory.mktemp("tables")
    paths = {utt: ROOT / NOISY[utt] for utt in list(NOISY)[:4]}
    for utt, path in paths.items():
        audio.write(
            folder / f"{utt}.wav",
            0.5 * audio.read(str(path))[0] + 0.5 * audio.read(str(ROOT / CLEAN[utt]))[0],
            16000,
            "FLOAT",
        )
    write_list(folder / "clean.scp", {utt: ROOT / CLEAN[utt] for utt in paths})
    write_list(folder / "a.scp", paths)
    write_list(folder / "b.scp", {utt: folder / f"{utt}.wav" for utt in paths})
    for name in "ab":
        for kind, options in (("tsv", []), ("jsonl", ["--jsonl"])):
            done = se(
                "score",
                "--ref",
                folder / "clean.scp",
                "-",
                "--metrics",
                "stoi,si_sdr,pesq_nb,si_sdri",
                "--noisy",
                folder / "a.scp",
                *options,
                input=(folder / f"{name}.scp").read_bytes(),
            )
            assert done.returncode == 0, done.err
            (folder / f"{name}.{kind}").write_text(done.out)
    return folder


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_are_those_of_se_score(tables):
    for row in rows(tables / "b.jsonl"):
        clean, noisy, enhanced = (
            audio.read_mono(str(path))[0]
            for path in (ROOT / CLEAN[row["utt"]], ROOT / NOISY[row["utt"]], tables / f"{row['utt']}.wav")
        )
        scores = setk.score(clean, enhanced, 16000, ["stoi", "si_sdr", "pesq_nb", "si_sdri"], noisy=noisy)
        assert {"utt": row["utt"], **scores, "error": None} == row and scores.reasons == {}


def test_a_score_that_cannot_be_computed_is_nan_with_a_reason():
    scores = setk.score(np.zeros(9), np.zeros(9), 16000)
    assert list(scores) == ["pesq_wb", "stoi", "estoi", "si_sdr"] and all(map(math.isnan, scores.values()))
    assert "silent" in scores.reasons["si_sdr"]


def test_compare_is_se_score_compare_of_files_or_rows(se, tables):
    done = se("score", "--compare", tables / "a.tsv", tables / "b.tsv", "--jsonl")
    printed = [json.loads(line) for line in done.out.splitlines()]
    for a, b in ((tables / "a.tsv", str(tables / "b.tsv")), (rows(tables / "a.jsonl"), rows(tables / "b.jsonl"))):
        found = [c._asdict() for c in setk.compare(a, b)]
        assert [{**row, "left_out": 0} for row in printed] == found and found[0]["better"] == 1


@pytest.mark.full
@pytest.mark.parametrize("convention", ["setk", "ptflops"])
def test_count_is_se_count(se, convention):
    printed = json.loads(se("count", "fspen", "--json", "--layers", "--convention", convention).out)
    assert setk.count("fspen", convention, layers=True) == printed


@pytest.mark.full
def test_export_is_se_quant_export(se, tmp_path, untrained):
    import onnx

    made = setk.export(untrained, tmp_path / "api.onnx", frames=4)
    assert se("quant", "export", untrained, tmp_path / "command.onnx", "--frames", 4).returncode == 0
    graphs = [onnx.load(tmp_path / f"{name}.onnx").graph for name in ("api", "command")]
    assert graphs[0] == graphs[1] and made["snr_db"] > 80 and made["bytes"] == (tmp_path / "api.onnx").stat().st_size


def test_datadir_and_shards_are_the_library_s(tmp_path):
    from setk.data.datadir import DataDir

    assert setk.DataDir is DataDir and len(setk.DataDir(MINI / "test").pairs()) == 16
    with pytest.raises(setk.UserError):
        setk.Shards(tmp_path)
    assert {"DataDir", "Shards", "export", "load"} <= set(dir(setk)) and not hasattr(setk, "nothing")


@pytest.mark.full
def test_torchscript_runs_like_the_checkpoint_and_only_if_trusted(se, tmp_path, untrained, rng):
    setk.export(untrained, tmp_path / "m.ts", frames=4, batch=2)
    audio.write(tmp_path / "n.wav", sound(48000, 3), 48000)
    for command in (
        ["enhance", tmp_path / "m.ts", tmp_path / "n.wav", tmp_path / "o.wav"],
        ["count", tmp_path / "m.ts", "--time"],
        ["quant", "check", untrained, tmp_path / "m.ts", "--list", MINI / "test/noisy.scp"],
    ):
        done = se(*command)
        assert done.returncode == 2 and "--trust" in done.err and len(done.err.strip().splitlines()) == 1
    done = se("enhance", tmp_path / "m.ts", tmp_path / "n.wav", tmp_path / "o.wav", "--trust")
    assert done.returncode == 0, done.err
    expected = setk.load(untrained).enhance(audio.read(str(tmp_path / "n.wav"))[0], 48000)
    assert np.abs(audio.read(str(tmp_path / "o.wav"))[0] - expected).max() <= 1.01 / 32768
    assert json.loads(se("count", tmp_path / "m.ts", "--json").out)["params"] == setk.load(untrained).parameters

    write_list(tmp_path / "n.scp", {utt: ROOT / path for utt, path in list(NOISY.items())[:5]})
    outs = []
    for options in ([], ["--batch", 3]):
        done = se(
            "enhance",
            tmp_path / "m.ts",
            "--list",
            tmp_path / "n.scp",
            "--out",
            tmp_path / f"o{len(outs)}",
            "--trust",
            *options,
        )
        assert done.returncode == 0, done.err
        lines = dict(line.split(" ", 1) for line in done.out.splitlines())
        outs.append([audio.read(lines[utt])[0] for utt in sorted(lines)])
    assert len(outs[0]) == 5 and all(np.abs(a - b).max() <= 1.01 / 32768 for a, b in zip(*outs))


@pytest.mark.parametrize("command", ["enhance", "quant check", "prune", "quant export", "quant ptq"])
@pytest.mark.parametrize("file", ["m.ts", "renamed.pt", "m.onnx", "m.c", "config.yaml"])
def test_every_command_runs_what_another_writes_or_refuses_it_in_one_line(se, forms, tmp_path, command, file):
    name, path = next(iter(NOISY.items()))
    write_list(tmp_path / "n.scp", {name: ROOT / path})
    args = {
        "enhance": [ROOT / path, tmp_path / "o.wav"],
        "quant check": ["fspen", "--list", tmp_path / "n.scp", "--min-snr", -99],
        "prune": [tmp_path / "o.pt", "--method", "magnitude", "--amount", 0.5],
        "quant export": [tmp_path / "o.onnx"],
        "quant ptq": [tmp_path / "o.pt", "--list", tmp_path / "n.scp"],
    }[command]
    done = se(*command.split(), forms / file, *args)
    if file == "m.onnx" and command in ("enhance", "quant check"):
        assert done.returncode == 0, done.err
    else:
        assert done.returncode == 2 and len(done.err.strip().splitlines()) == 1 and not list(tmp_path.glob("o.*")), (
            done.err
        )


@pytest.fixture(scope="module")
def forms(tmp_path_factory, untrained):
    """What se-quant export writes of a checkpoint, and a config."""
    folder = tmp_path_factory.mktemp("forms")
    setk.export(untrained, folder / "m.ts")
    setk.export(untrained, folder / "m.onnx")
    (folder / "renamed.pt").write_bytes((folder / "m.ts").read_bytes())
    (folder / "m.c").write_text("int main(void) { return 0; }\n")
    (folder / "config.yaml").write_text("model: fspen\nsteps: 10\n")
    return folder


@pytest.mark.parametrize(
    "command, words",
    [
        (["enhance", "fspen", "a.wav", "b.wav", "--jobs", 4], "--jobs does not apply without --list"),
        (["enhance", "fspen", "a.wav", "b.wav", "--suffix", ".flac"], "--suffix does not apply"),
        (["enhance", "fspen", "a.wav", "b.wav", "--rate", 8000], "--rate does not apply without --raw"),
        (["enhance", "fspen", "-", "b.wav", "--channels", 2], "--channels does not apply without --raw"),
        (["enhance", "fspen", "--list", "a.scp", "--out", "o", "--raw"], "--raw does not apply with --list"),
        (["enhance", "fspen", "a.wav", "--list", "a.scp", "--out", "o"], "NOISY does not apply with --list"),
        (["enhance", "--list-models", "--jobs", 2], "--jobs does not apply with --list-models"),
        (["count", "fspen", "--published-rates"], "--published-rates does not apply without --list"),
        (["count", "fspen", "--layers", "--time"], "--time does not apply with --layers"),
        (["score", "a.wav", "b.wav", "--part", "1/2"], "--part does not apply without --ref"),
        (
            ["quant", "check", "fspen", "fspen", "--list", "a.scp", "--metrics", "stoi"],
            "--metrics does not apply without --ref",
        ),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(se, command, words):
    done = se(*command)
    assert done.returncode == 2 and words in done.err and len(done.err.strip().splitlines()) == 1, done.err
