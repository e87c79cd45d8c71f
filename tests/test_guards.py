"""Values and code that must not spoil what follows: NaN in the states of a stream, a crash of PESQ."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import setk
from conftest import MINI, ROOT, command
from setk import engines
from setk.metrics import compute, pesq_process
from setk.native import kernels
from setk.pretrained import included


def native_engine():
    if kernels.library() is None:
        pytest.skip("the kernels were not built; install a C compiler and run bin/setup")
    return engines.NativeEngine(included(".onnx")["fspen"])


def fill_native(engine, state, channel, value):
    state[channel][:] = value


def fill_onnx(engine, state, channel, value):
    bound, row = state[channel // engine.batch], channel % engine.batch
    for array, axis in zip(bound._states[0], bound._axes, strict=True):  # what the next call reads
        np.moveaxis(array, axis, 0)[row] = value


def fill_torch(engine, state, channel, value):
    import torch

    with torch.inference_mode():
        for tensor, axis in zip(state, engine.model.state_axes, strict=True):
            tensor.select(axis, channel).fill_(float(value))


# A kind of engine -> how to open fspen in it, and how to fill what it remembers of a channel with one value.
KINDS = {
    "native": (native_engine, fill_native),
    "onnxruntime": (lambda: engines.OnnxEngine(included(".onnx")["fspen"]), fill_onnx),
    "torch": (lambda: engines.TorchEngine(included()["fspen"]), fill_torch),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_state_that_is_not_finite_is_reset(kind, value, channel, rng, caplog):
    open_engine, fill = KINDS[kind]
    engine = open_engine()
    stream, plain = (engines.Stream(engine, 16000, 2) for _ in range(2))
    x = (0.1 * rng.standard_normal((2, 16000))).astype(np.float32)
    later = (0.1 * rng.standard_normal((2, 16000))).astype(np.float32)
    before = stream.push(x)
    with np.errstate(all="ignore"):
        fill(engine, stream._state, channel, value)
        after = np.concatenate([stream.push(later), stream.flush()], axis=1)
    assert np.isfinite(before).all() and np.isfinite(after).all() and before.shape[1] + after.shape[1] == 32000
    assert [record.getMessage() for record in caplog.records] == [
        "fspen: NaN or infinite output; the model starts again"
    ]
    plain.push(x)
    expected = np.concatenate([plain.push(later), plain.flush()], axis=1)
    assert np.allclose(after[1 - channel], expected[1 - channel], atol=1e-5)  # the other channel has not noticed
    # The channel that was reset suppresses noise again.
    assert np.abs(expected[:, -4000:]).mean() < 0.5 * np.abs(later).mean()
    assert np.abs(after[channel, -4000:]).mean() < 0.5 * np.abs(later).mean()


def test_finite_states_leave_the_output_as_it_is(rng, caplog):
    x = (0.1 * rng.standard_normal(8000)).astype(np.float32)
    assert np.isfinite(setk.load("fspen").enhance(x, 16000)).all() and not caplog.records


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])  # as Python starts, and as the commands run
@pytest.mark.parametrize("dead", [False, True])  # at any moment of the request, or before its first byte
def test_a_crash_of_pesq_is_one_missing_score(rng, handler, dead, restored_sigpipe):
    signal.signal(signal.SIGPIPE, handler)
    x = np.sin(np.arange(32000) / 9) * np.repeat(rng.uniform(0, 1, 40), 800)
    y = x + 0.01 * rng.standard_normal(32000)
    before, _ = compute(x, y, 16000, ["pesq_wb"])
    child = pesq_process._own.process._child
    child.send_signal(signal.SIGSTOP)
    os.kill(child.pid, signal.SIGABRT)  # as the C code does: stack smashing detected
    os.kill(child.pid, signal.SIGCONT)
    if dead:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    scores, reasons = compute(x, y, 16000, ["pesq_wb", "si_sdr"])
    assert np.isnan(scores["pesq_wb"]) and "crashes" in reasons["pesq_wb"] and "SIGABRT" in reasons["pesq_wb"]
    assert np.isfinite(scores["si_sdr"])
    assert compute(x, y, 16000, ["pesq_wb"])[0] == before


def _pair(rng, level):
    """A modulated tone and the same with noise, 2 s at 16 kHz."""
    x = np.sin(np.arange(32000) / 9) * np.repeat(rng.uniform(0, 1, 40), 800)
    return x, x + level * rng.standard_normal(32000)


def _pesq(pair) -> float:
    return compute(*pair, 16000, ["pesq_wb"])[0]["pesq_wb"]


class _Interrupt(Exception):
    pass


def test_pesq_after_an_interruption_is_of_its_own_signals(rng):
    pairs = [_pair(rng, level) for level in (0.001, 0.1)]
    expected = [_pesq(pair) for pair in pairs]
    child = pesq_process._own.process._child
    child.send_signal(signal.SIGSTOP)

    def interrupt(*_):
        raise _Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(_Interrupt):
            _pesq(pairs[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        child.send_signal(signal.SIGCONT)
    assert [_pesq(pair) for pair in pairs[::-1]] == expected[::-1]


def test_pesq_in_several_threads_is_that_of_one(rng):
    pairs = [_pair(rng, level) for level in (0.001, 0.01, 0.1)]
    expected = [_pesq(pair) for pair in pairs]
    with ThreadPoolExecutor(len(pairs)) as threads:
        assert list(threads.map(_pesq, pairs * 4)) == expected * 4


def test_the_process_of_pesq_ends_with_its_parent():
    code = (
        "import numpy as np; from setk.metrics import pesq_process as p; x = np.random.default_rng(0).standard_normal(16000)\n"
        "p.score(16000, x, x, 'wb'); print(p._own.process._child.pid, flush=True); import os; os._exit(0)"
    )
    pid = int(subprocess.run(command("score")[:2] + ["-c", code], cwd=ROOT, capture_output=True, text=True).stdout)
    for _ in range(200):
        if not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read().split()[2]:
            return
        signal.sigtimedwait([], 0.05)
    raise AssertionError("still running")


def test_scores_are_those_of_the_package(se):
    from pesq import pesq
    from setk import audio

    clean, noisy = (
        audio.read(MINI / "test" / kind / "mona_0001.flac")[0][0].astype(float) for kind in ("clean", "noisy")
    )
    for mode in ("wb", "nb"):
        assert compute(clean, noisy, 16000, [f"pesq_{mode}"])[0][f"pesq_{mode}"] == pesq(16000, clean, noisy, mode)
