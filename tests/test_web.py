"""The page of a model: its size, its int8 weights, and its sound in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import open_browser
from conftest import MINI, ROOT
from live_stream import LiveStream

from setk.audio.resample import resample
from setk.core.errors import UserError
from setk.engines import OnnxEngine
from setk.export.web import page
from setk.native import int8, kernels
from setk.native.translate import translate
from setk.pretrained import included

WEB = ROOT / "setk" / "export" / "web"
FSPEN = ROOT / "setk" / "pretrained" / "fspen.onnx"
MICROPHONE = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)

# Renders samples through the worklet, or by the function for files, and hands them to `done` as base64.
RENDER = """
(async () => {
  const bytes = (array) => {
    const raw = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let text = "";
    for (let i = 0; i < raw.length; i += 8192) text += String.fromCharCode(...raw.subarray(i, i + 8192));
    return btoa(text);
  };
  const input = new Float32Array(bytesOf("%s").buffer), context = new OfflineAudioContext(1, input.length, %d);
  const node = await makeLive(context), buffer = context.createBuffer(1, input.length, %d), source = context.createBufferSource();
  let delay = null;
  node.port.onmessage = ({ data }) => { if (data.delay !== undefined) delay = data.delay; };
  buffer.copyToChannel(input, 0);
  source.buffer = buffer;
  source.connect(node).connect(context.destination);
  source.start();
  const live = (await context.startRendering()).getChannelData(0);
  const file = context.sampleRate === model.rate ? bytes(enhanceSignal(await compiled, model, input)) : null;
  done({ delay, live: bytes(live), file });
})().catch((error) => done({ error: String(error.stack || error) }))
"""


def snr(reference: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(
        np.square(reference, dtype=np.float64).sum() / np.square(reference - other, dtype=np.float64).sum()
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory, se_module) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    done = se_module("quant", "export", "fspen", path)
    assert done.returncode == 0, done.err
    assert "dB to the checkpoint, on noise alone, by int8 weights" in done.err
    return path


@pytest.fixture(scope="module")
def se_module():
    from conftest import COMMANDS

    return COMMANDS


def test_the_page_is_small_and_needs_nothing_else(demo):
    text = demo.read_text()
    assert len(text) <= 300_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"'#]+|https?://|@import|url\(""", text)


def test_the_committed_demo_is_current(demo):
    assert (ROOT / "docs" / "demo.html").read_text() == demo.read_text()


def test_a_noncausal_model_is_refused_in_one_line(se, tmp_path):
    done = se("quant", "export", "conv_tasnet-small", tmp_path / "page.html")
    assert done.returncode == 2 and done.err.count("\n") == 1 and "not causal" in done.err
    assert not (tmp_path / "page.html").exists()


def test_int8_values_are_within_half_a_step(rng):
    for width in (1, 12, 16):
        blocks, rows = (int(n) for n in rng.integers(1, 40, 2))
        values = rng.standard_normal(blocks * rows * width).astype(np.float32)
        small, steps = int8.quantize(values, rows * width, width)
        error = np.abs(values - int8.dequantize(small, steps, rows * width, width)).reshape(blocks, rows, width)
        assert (error <= 0.5001 * steps.reshape(blocks, 1, width)).all() and small.dtype == np.int8


def test_only_weights_are_rounded():
    translated = translate(FSPEN)
    program = translated.program
    changed = np.flatnonzero(int8.rounded(program).constants != program.constants)
    inside = np.zeros(len(program.constants), bool)
    for first, count, length, columns in program.blocks:
        assert not inside[first : first + count].any() and count % length == length % columns == 0
        inside[first : first + count] = True
    assert inside[changed].all() and inside.sum() > 0.9 * len(program.constants)
    assert changed.min() >= program.floats
    assert page.snr_to_model(translated, OnnxEngine(FSPEN)) > 30 if kernels.library() else True


@pytest.mark.skipif(kernels.library() is None, reason="the kernels were not built")
def test_a_program_of_another_function_is_refused():
    with pytest.raises(UserError, match="differs from the model by more than rounding"):
        page.snr_to_model(translate(FSPEN), OnnxEngine(included(".onnx")["dpsnn"]))


@pytest.mark.full
def test_the_kernels_are_those_of_the_sources(tmp_path):
    digest, compiler = (WEB / "kernels.sha256").read_text().strip().split("  ")
    assert hashlib.sha256((WEB / "kernels.wasm").read_bytes()).hexdigest() == digest
    if not shutil.which("clang") or not shutil.which("wasm-ld"):
        pytest.skip("clang and lld are not installed (Debian: apt-get install clang lld)")
    if subprocess.run(["clang", "--version"], capture_output=True, text=True).stdout.splitlines()[0] != compiler:
        pytest.skip(f"kernels.wasm was built by {compiler}")
    shutil.copytree(
        ROOT / "setk" / "native", tmp_path / "native", ignore=shutil.ignore_patterns("*.so", "*.py", "__pycache__")
    )
    (tmp_path / "export" / "web").mkdir(parents=True)
    shutil.copy(WEB / "Makefile", tmp_path / "export" / "web")
    subprocess.run(["make", "-C", tmp_path / "export" / "web"], check=True, capture_output=True)
    assert (tmp_path / "export" / "web" / "kernels.wasm").read_bytes() == (WEB / "kernels.wasm").read_bytes()


def rendered(browser, samples: np.ndarray, rate: int) -> tuple[np.ndarray, int, np.ndarray | None]:
    """The open page's output of samples at a rate in Hz, live; by how many samples it is late; and as a file at the model's rate."""
    found = browser.wait(RENDER % (base64.b64encode(samples.tobytes()).decode(), rate, rate))
    assert "error" not in found, found
    live, file = (found[name] and np.frombuffer(base64.b64decode(found[name]), np.float32) for name in ("live", "file"))
    return live, round(found["delay"] * rate), file


@pytest.mark.full
def test_the_browser_computes_what_the_kernels_do(demo, browser):
    if not kernels.library():
        pytest.skip("setk's kernels were not built")
    noisy, rate = soundfile.read(MINI / "test" / "noisy" / "mona_0001.flac", dtype="float32")
    translated = translate(FSPEN)
    model = page.web_model(translated, "")
    machine = kernels.Machine(int8.rounded(translated.program), model.hop, kernels.library())
    padded = np.concatenate([noisy, np.zeros(8000, np.float32)])
    padded = padded[: len(padded) // model.hop * model.hop]
    expected = machine.run(padded, machine.start())
    browser.open(demo)
    live, late, file = rendered(browser, padded, rate)
    n = len(noisy)
    reference = expected[model.delay : model.delay + n]
    assert snr(reference, file[:n]) > 100
    assert snr(reference, live[late : late + n]) > 100
    assert browser.complaints() == []


@pytest.mark.full
@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_browser_resamples_as_the_kernels_do(demo, browser, rate):
    if not kernels.library():
        pytest.skip("setk's kernels were not built")
    noisy, _ = soundfile.read(MINI / "test" / "noisy" / "mona_0001.flac", dtype="float32")
    noisy = resample(noisy, 16000, rate)
    translated = translate(FSPEN)
    model = page.web_model(translated, "")
    program = int8.rounded(translated.program)
    stream = LiveStream(program, model.hop, model.delay, rate, model.rate)
    browser.open(demo)
    live, late, _ = rendered(browser, np.concatenate([noisy, np.zeros(stream.delay, np.float32)]), rate)
    assert late == stream.delay
    # Compilers fuse multiplications and additions here, and never in WebAssembly.
    assert snr(stream.run(noisy)[0], live[late:]) > 85
    assert browser.complaints() == []


@pytest.mark.full
def test_the_page_runs_live_at_48_khz_and_on_a_file(demo, tmp_path):
    browser = open_browser(tmp_path, *MICROPHONE)
    try:
        browser.open(demo)
        browser.click("#start")
        shown = browser.wait(
            "const end = Date.now() + 20000; (function look() { const text = document.querySelector('#text-load').textContent;"
            "if (text !== '–' || Date.now() > end) done([text, document.querySelector('#status').textContent]);"
            "else setTimeout(look, 100); })()"
        )
        assert shown[0].endswith("%") and shown[1].startswith("Running"), shown
        assert browser.run("return document.querySelector('#pictures').className") == "live"
        browser.click("#start")
        noisy = MINI / "test" / "noisy" / "mona_0001.flac"
        browser.type("#file", str(noisy))
        text = browser.wait(
            "const end = Date.now() + 20000; (function look() { const text = document.querySelector('#file-status').textContent;"
            "if (text.includes('times real time') || Date.now() > end) done(text); else setTimeout(look, 100); })()"
        )
        assert "times real time" in text, text
        assert browser.run("return document.querySelector('#text-load').textContent") == "–"
        assert browser.run("return document.querySelector('#pictures').className") == "file"
        # A click in the middle of a spectrogram moves both to the middle of the file.
        browser.click("#after")
        assert 0.45 < float(browser.run("return document.querySelector('#position').value")) < 0.55
        assert browser.run("return document.querySelector('#save').href.startsWith('blob:')")
        assert browser.complaints() == []
        browser.screenshot(tmp_path / "page.png", "dark")
    finally:
        browser.close()
