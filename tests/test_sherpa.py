"""se-quant export --for sherpa-onnx: the graph against the engine, and the file in sherpa-onnx where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import MINI

import setk
from setk import audio
from setk.audio.stft import StreamTransform
from setk.engines import resolve
from setk.export import sherpa

pytestmark = pytest.mark.full

# Samples by which sherpa-onnx is later than the input: it drops the first hop of output, however long the overlap is; and look-ahead.
LATE = {"fspen": 0, "lite_rtse": 0, "dpcrn_cf": 512}
NOISY = sorted((MINI / "test/noisy").glob("*.flac"))[:10]


@pytest.fixture(scope="module", params=LATE)
def exported(se, request, tmp_path_factory):
    path = tmp_path_factory.mktemp("sherpa") / f"{request.param}.onnx"
    done = se("quant", "export", request.param, path, "--for", "sherpa-onnx")
    assert done.returncode == 0 and "SNR 1" in done.err, done.err
    return request.param, path


def snr(reference, x):
    return 10 * np.log10(np.sum(reference**2, dtype=float) / np.sum((x - reference) ** 2, dtype=float))


def test_the_graph_has_the_signature_and_computes_the_model(exported):
    """What sherpa-onnx does by its sources: window, DFT, graph, inverse DFT, the same window, overlap-add."""
    import onnxruntime

    name, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert [i.name for i in session.get_inputs()] == ["mix", *sherpa.STATES] and len(session.get_outputs()) == 4
    shapes = [tuple(map(int, about[f"{state}_shape"].split(","))) for state in sherpa.STATES]
    assert [tuple(i.shape) for i in session.get_inputs()][1:] == shapes
    assert about["model_type"] == "gtcrn" and about["version"] == "1" and about["sample_rate"] == "16000"
    window, hop = int(about["window_length"]), int(about["hop_length"])
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)) ** {"hann": 1, "hann_sqrt": 0.5}[
        about["window_type"]
    ]
    x, rate = audio.read_mono(str(NOISY[0]))
    # The frames are the model's, not those of the engine: the compiled kernels run on hops of samples.
    model = resolve.model(name).model
    frames = StreamTransform(model.transform).analysis(x[None])
    states, wave = [np.zeros(shape, np.float32) for shape in shapes], np.zeros(len(x) + 2 * window)
    for t, frame in enumerate(frames[0]):
        enh, *states = session.run(None, {"mix": frame[None, :, None], **dict(zip(sherpa.STATES, states))})
        assert enh.shape == (1, frame.shape[0], 1, 2)
        wave[t * hop : t * hop + window] += np.fft.irfft(enh[0, :, 0, 0] + 1j * enh[0, :, 0, 1]) * hann
    late = window - hop + model.lookahead * hop
    y, expected = wave[late : t * hop], setk.load(name).enhance(x, rate)[: t * hop - late]
    assert snr(expected, y) > 100


def compare(name: str, noisy: np.ndarray, rate: int, found: np.ndarray) -> None:
    """The output of sherpa-onnx against se-enhance's."""
    y = found[LATE[name] :]
    # The end differs: setk pads with silence until the last sample is complete.
    n = len(y) - 1024
    assert n > len(noisy) - 2048 - LATE[name]
    assert snr(setk.load(name).enhance(noisy, rate)[:n], y[:n]) > 100


def test_sherpa_onnx_runs_it(exported):
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs the package sherpa-onnx: pip install sherpa-onnx")
    name, path = exported
    gtcrn = sherpa_onnx.OfflineSpeechDenoiserGtcrnModelConfig(model=str(path))
    config = sherpa_onnx.OnlineSpeechDenoiserConfig(model=sherpa_onnx.OfflineSpeechDenoiserModelConfig(gtcrn=gtcrn))
    denoiser = sherpa_onnx.OnlineSpeechDenoiser(config)
    for noisy in NOISY:
        x, rate = audio.read_mono(str(noisy))
        denoiser.reset()
        parts = [denoiser.run(x[at : at + 777], rate).samples for at in range(0, len(x), 777)]
        compare(name, x, rate, np.concatenate([*parts, denoiser.flush().samples]))


def test_sherpa_onnx_runs_it_in_node(exported, tmp_path):
    if not shutil.which("node"):
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    if subprocess.run(["node", "-e", "require('sherpa-onnx')"], capture_output=True, cwd=tmp_path).returncode:
        pytest.skip("needs the package sherpa-onnx: npm install sherpa-onnx, and its folder node_modules in NODE_PATH")
    name, path = exported
    files = []
    for noisy in NOISY:
        x, rate = audio.read_mono(str(noisy))
        files += [tmp_path / f"{noisy.stem}.f32", tmp_path / f"{noisy.stem}.out"]
        files[-2].write_bytes(x.tobytes())
    subprocess.run(["node", Path(__file__).with_name("sherpa.js"), path, *files], check=True, capture_output=True)
    for source, target in zip(files[::2], files[1::2]):
        compare(name, np.fromfile(source, np.float32), rate, np.fromfile(target, np.float32))


@pytest.mark.parametrize(
    "args, words",
    [
        (["conv_tasnet-small", "x.onnx"], "does not run in sherpa-onnx: it is not causal"),
        (["dpsnn", "x.onnx"], "its transform is not an STFT"),
        (["fspen", "x.ts"], "must end in .onnx for sherpa-onnx"),
        (["fspen", "x.onnx", "--batch", "2"], "remove --frames and --batch"),
    ],
)
def test_what_sherpa_onnx_cannot_run_is_refused(se, tmp_path, args, words):
    done = se("quant", "export", args[0], tmp_path / args[1], "--for", "sherpa-onnx", *args[2:])
    assert done.returncode == 2 and words in done.err and not list(tmp_path.iterdir())
    done = se("quant", "export", "fspen", tmp_path / "x.onnx", "--for", "tflite")
    assert done.returncode == 2 and "choose sherpa-onnx" in done.err
