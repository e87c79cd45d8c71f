"""What is done to the output of a model: the limit of the noise reduction."""

from __future__ import annotations

import json

import numpy as np
import pytest

import setk
from conftest import MINI, ROOT
from setk import audio
from setk.data.lists import read_list, write_list


def sound(seconds=1.3, rate=16000, channels=1, seed=3):
    return (np.random.default_rng(seed).standard_normal((channels, int(seconds * rate))) * 0.1).astype(np.float32)


def mixed(noisy, enhanced, limit_db):
    gain = 10 ** (-limit_db / 20)
    return (1 - gain) * enhanced.astype(float) + gain * noisy.astype(float)


@pytest.mark.parametrize("model, rate, channels", [("fspen", 16000, 1), ("fspen", 44100, 2), ("fqse-small", 16000, 1)])
def test_a_limit_mixes_the_aligned_input_in(rng, model, rate, channels):
    x, engine, limit = sound(1.7, rate, channels), setk.load(model), float(rng.uniform(3, 30))
    expected = mixed(x, engine.enhance(x, rate), limit)
    assert np.abs(engine.enhance(x, rate, limit_db=limit) - expected).max() < 1e-6
    chunk = None if engine.causal else 1.0
    plain, limited = (engine.stream(rate, channels, chunk=chunk, limit_db=db) for db in (None, limit))
    cuts = np.sort(rng.integers(0, x.shape[1], 7))
    a, b = (np.concatenate([*map(s.push, np.split(x, cuts, axis=1)), s.flush()], axis=1) for s in (plain, limited))
    assert np.abs(b - mixed(x, a, limit)).max() < 1e-6


@pytest.mark.parametrize("options", [{}, {"limit_db": 6.0}, {"highband": "gain"}])
def test_a_caller_may_use_its_buffer_again(options):
    x, blocks = sound(1, 48000), []
    fresh, reused = (setk.load("fspen").stream(48000, 1, **options) for _ in range(2))
    buffer = np.empty((1, 480), np.float32)
    for at in range(0, x.shape[1], 480):
        buffer[:] = x[:, at : at + 480]
        blocks.append(reused.push(buffer))
        buffer[:] = 0.3
    expected = np.concatenate([fresh.push(x), fresh.flush()], axis=1)
    assert np.abs(np.concatenate([*blocks, reused.flush()], axis=1) - expected).max() < 1e-6


def test_noise_is_reduced_by_the_limit_and_no_more():
    x = sound(4)
    y = {db: setk.load("fspen").enhance(x, 16000, limit_db=db)[0, 16000:] for db in (None, 6.0, 0.0)}
    power = {db: 10 * np.log10(np.mean(v**2) / np.mean(x[0, 16000:] ** 2)) for db, v in y.items()}
    assert power[None] < -8 and -6 < power[6.0] < -3  # what remains of the noise adds to the input's share
    assert np.array_equal(y[0.0], x[0, 16000:])


@pytest.mark.full
@pytest.mark.parametrize("how", [[], ["--jobs", "2"], ["--batch", "3"]])
def test_a_limit_is_the_same_in_files_pipes_lists_and_batches(se, untrained, tmp_path, how):
    table = {u: ROOT / p for u, p in list(read_list(MINI / "test/noisy.scp").items())[:3]}
    write_list(tmp_path / "n.scp", table)
    for name, extra in (("plain", []), ("limited", ["--limit", "9.5"])):
        done = se(
            "enhance",
            untrained,
            "--list",
            tmp_path / "n.scp",
            "--out",
            tmp_path / name,
            "--subtype",
            "FLOAT",
            *how,
            *extra,
        )
        assert done.returncode == 0, done.err
    for utt, path in table.items():
        noisy, plain, limited = (
            audio.read(str(p))[0] for p in (path, *(tmp_path / k / f"{utt}.wav" for k in ("plain", "limited")))
        )
        assert np.abs(limited - mixed(noisy, plain, 9.5)).max() < 1e-6
    pcm = audio.to_int16(noisy)[0]
    done = se("enhance", untrained, "-", "-", "--raw", "--limit", "9.5", input=pcm.tobytes())
    assert np.abs(np.frombuffer(done.stdout, "<i2") / 32768 - limited[0]).max() < 1e-4


def test_a_limit_is_a_setting_of_the_output_directory(se, untrained, tmp_path):
    write_list(tmp_path / "n.scp", {u: ROOT / p for u, p in list(read_list(MINI / "test/noisy.scp").items())[:1]})
    args = ["enhance", untrained, "--list", tmp_path / "n.scp", "--out", tmp_path / "out"]
    assert se(*args).returncode == 0
    assert "limit_db" not in json.loads((tmp_path / "out/provenance.json").read_text())["settings"]
    done = se(*args, "--limit", "12")
    assert done.returncode == 2 and "made with another limit_db" in done.err


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_limit_that_is_not_a_level_is_refused(se, untrained, tmp_path, value):
    audio.write(tmp_path / "n.wav", sound(0.2), 16000)
    done = se("enhance", untrained, tmp_path / "n.wav", tmp_path / "o.wav", "--limit", value)
    assert done.returncode == 2 and "limit" in done.err and not (tmp_path / "o.wav").exists()
    with pytest.raises(setk.UserError, match="limit"):
        setk.load("fspen").enhance(np.zeros(99), 16000, limit_db=float(value))
