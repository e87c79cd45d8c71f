"""Streaming denoisers of other projects: ONNX files of one spectrum and its states."""

from __future__ import annotations

import json
import pickle

import numpy as np
import onnx
import pytest
from conftest import MINI, ROOT
from onnx import TensorProto, helper

import setk
from setk import audio
from setk.audio.stft import STFT, StreamTransform
from setk.core.errors import UserError
from setk.data.lists import read_list, write_list
from setk.engines import foreign
from setk.metrics.sdr import snr

NOISY = {utt: str(ROOT / path) for utt, path in list(read_list(MINI / "test/noisy.scp").items())[:3]}
SHERPA = {"n_fft": 512, "hop_length": 256, "window_length": 512, "window_type": "hann_sqrt", "sample_rate": 16000}


def denoiser(path, shape=(1, 257, 1, 2), metadata=None, **changes):
    """An ONNX file whose output is the mean of this frame and the one before, which is its state, plus a count of frames."""
    f = TensorProto.FLOAT
    state, counted = changes.get("state", shape), [1]
    inputs = [("mix", list(shape)), ("cache", list(state)), ("count", counted)]
    outputs = [("enh", list(shape)), ("cache_out", list(state)), ("count_out", counted)]
    nodes = [
        helper.make_node("Add", ["mix", "cache"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["enh"]),
        helper.make_node("Identity", ["mix"], ["cache_out"]),
        helper.make_node("Add", ["count", "one"], ["count_out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "denoiser",
        [helper.make_tensor_value_info(name, f, size) for name, size in inputs],
        [helper.make_tensor_value_info(name, f, size) for name, size in outputs[: changes.get("outputs", 3)]],
        [helper.make_tensor("half", f, [1], [0.5]), helper.make_tensor("one", f, [1], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {key: str(value) for key, value in (metadata or {}).items()})
    onnx.save(model, path)
    return path


def expected_of(x, transform):
    """What `denoiser` makes of a signal [C, n]."""
    stream = StreamTransform(transform, len(x))
    frames = np.concatenate([stream.analysis(x), stream.flush()], axis=1)
    before = np.concatenate([np.zeros_like(frames[:, :1]), frames[:, :-1]], axis=1)
    return stream.synthesis((frames + before) / 2)


@pytest.mark.parametrize(
    "shape, metadata, stft, transform",
    [
        ((1, 257, 1, 2), SHERPA, None, STFT(512, 256)),
        ((1, 257, 1, 2), {}, "512,256,sqrt-hann", STFT(512, 256)),
        ((1, 1, 257, 2), {}, "512,128,hann,16000", STFT(512, 128, power=1.0)),
        # The synthesis of sherpa-onnx does not divide by the sum of the squared windows, here 1.5.
        ((1, 257, 1, 2), SHERPA | {"window_type": "hann", "hop_length": 128}, None, STFT(512, 128, power=1.0)),
        ((1, 513, 1, 2), SHERPA | {"n_fft": 1024}, None, STFT(512, 256, fft=1024)),
    ],
)
def test_a_generated_file_computes_what_it_states(se, tmp_path, rng, shape, metadata, stft, transform):
    path = denoiser(tmp_path / "mean.onnx", shape, metadata)
    x = rng.normal(0, 0.1, (2, int(rng.integers(2000, 9000)))).astype(np.float32)
    audio.write(tmp_path / "noisy.wav", x, 16000, "FLOAT")
    options = ["--stft", stft] if stft else []
    done = se("enhance", path, tmp_path / "noisy.wav", tmp_path / "out.wav", "--subtype", "FLOAT", *options)
    assert done.returncode == 0, done.err
    y, rate = audio.read(tmp_path / "out.wav")
    gain = 1.5 if metadata.get("window_type") == "hann" else 1.0
    assert rate == 16000 and y.shape == x.shape and snr(gain * expected_of(x, transform), y) > 100
    again = pickle.loads(pickle.dumps(setk.load(path, stft=stft))).enhance(x, 16000)
    assert np.allclose(y, again, atol=1e-6)
    assert np.array_equal(again, setk.enhance(path, x, 16000, stft=stft))


@pytest.mark.full
@pytest.mark.parametrize("name", ["fspen", "lite_rtse", "dpcrn_cf"])
def test_a_re_dressed_export_of_our_own_is_the_model(se, tmp_path, name):
    path = tmp_path / "other.onnx"
    assert se("quant", "export", name, path, "--for", "sherpa-onnx").returncode == 0
    x, rate = audio.read_mono(next(iter(NOISY.values())))
    assert snr(setk.load(name).enhance(x, rate), setk.load(str(path)).enhance(x, rate)) > 100


def test_a_list_is_continued_and_channels_have_states_of_their_own(se, tmp_path):
    path = denoiser(tmp_path / "mean.onnx")
    write_list(tmp_path / "noisy.scp", NOISY)
    run = ["enhance", path, "--list", tmp_path / "noisy.scp", "--out", tmp_path / "out", "--stft", "512,256,sqrt-hann"]
    done = se(*run, "--jobs", "2")
    assert done.returncode == 0 and len(done.out.splitlines()) == 3, done.err
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.wav")}
    missing = sorted(first)[0]
    (tmp_path / "out" / missing).unlink()
    assert se(*run, "--batch", "2").returncode == 0
    again = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.wav")}
    assert {name for name in first if first[name] != again[name]} == {missing}
    for utt, place in NOISY.items():
        x, _ = audio.read(place)
        y, _ = audio.read(tmp_path / "out" / f"{utt}.wav")
        assert snr(expected_of(x, STFT(512, 256)), y) > 60  # 16 bits
    done = se(*run[:-1], "512,128,sqrt-hann")
    assert done.returncode == 2 and "another stft" in done.err


def test_a_pipe_and_the_time_that_it_takes(se, tmp_path):
    path = denoiser(tmp_path / "mean.onnx", metadata=SHERPA)
    x = np.random.default_rng(0).integers(-3000, 3000, 16000).astype("<i2")
    done = se.process("enhance", path, "-", "-", "--raw", input=x.tobytes(), text=False)
    y = np.frombuffer(done.stdout, "<i2")
    assert done.returncode == 0 and snr(expected_of(x[None] / np.float32(32768), STFT(512, 256))[0], y / 32768) > 60
    done = se("count", path, "--time", "--json")
    row = json.loads(done.out)
    assert done.returncode == 0 and row["latency_ms"] == 32 and row["params"] is None and row["hop_ms_median"] > 0
    assert row["bytes"] == path.stat().st_size and row["start_s"] > 0
    done = se("count", path, "--convention", "ptflops")
    assert done.returncode == 2 and "another project" in done.err


@pytest.mark.parametrize(
    "changes, options, words",
    [
        ({}, [], "state it with --stft"),
        ({"metadata": SHERPA | {"window_type": "vorbis"}}, [], "cannot use"),
        ({"metadata": SHERPA | {"hop_length": 200}}, [], "does not divide"),
        ({"metadata": SHERPA | {"lookahead": -1}}, [], "look-ahead of -1 frames"),
        ({"metadata": SHERPA, "outputs": 2}, [], "3 inputs and 2 outputs"),
        ({"shape": (1, 257, 2)}, ["--stft", "512,256,sqrt-hann"], "expected [1, 257, 1, 2]"),
        ({"shape": (1, 129, 1, 2)}, ["--stft", "512,256,sqrt-hann"], "expected [1, 257, 1, 2]"),
        ({"state": (1, 257, "T", 2)}, ["--stft", "512,256,sqrt-hann"], "not fixed"),
        ({}, ["--stft", "512,256"], "WINDOW,HOP"),
        ({}, ["--stft", "256,512,hann"], "not possible"),
        ({}, ["--stft", "512,256,sqrt-hann,0"], "not possible"),
    ],
)
def test_another_signature_is_refused_in_one_line(se, tmp_path, changes, options, words):
    path = denoiser(tmp_path / "x.onnx", **changes)
    done = se("enhance", path, next(iter(NOISY.values())), tmp_path / "out.wav", *options)
    assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1, done.err
    assert not (tmp_path / "out.wav").exists()


def test_a_state_that_changes_its_shape_is_refused(tmp_path):
    path = denoiser(tmp_path / "x.onnx", metadata=SHERPA, state=(1, 1, 1, 1))
    with pytest.raises(UserError, match="is computed with shape"):
        setk.engines.open(path)


def test_a_transform_is_only_for_files_without_one(se, tmp_path):
    for command in (["enhance", "fspen", "a.wav", "b.wav"], ["count", "fspen"]):
        done = se(*command, "--stft", "512,256,sqrt-hann")
        assert done.returncode == 2 and "fspen has a transform" in done.err, done.err
    assert foreign.parse_stft("320,160,hann,8000") == (STFT(320, 160, 320, 1.0), 8000)
