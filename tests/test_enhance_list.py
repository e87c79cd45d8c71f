"""Iterators over lists in one process: several at once, refused outputs, and those that are left early."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from setk import audio
from setk.audio import Location
from setk.engines.files import enhance_list


@pytest.fixture
def entries(tmp_path, rng):
    """Four entries of noise, at a rate that MP3 does not have."""
    found = []
    for utt in "abcd":
        audio.write(tmp_path / f"{utt}.wav", 0.1 * rng.standard_normal((1, 96000)), 96000)
        found.append((utt, Location.parse(str(tmp_path / f"{utt}.wav"))))
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for_threads(count: int) -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and threading.active_count() > count:
            thread.join(20)
    assert threading.active_count() <= count


def test_two_lists_at_once_are_each_of_their_own_model(entries, tmp_path):
    alone = {model: list(enhance_list(model, entries[:2], tmp_path / f"{model}_alone")) for model in ("fspen", "dpsnn")}
    both = [enhance_list(model, entries[:2], tmp_path / model) for model in alone]
    for _ in range(2):
        for results in both:
            assert next(results).error is None
    for model, done in alone.items():
        for one in done:
            expected, found = (audio.read(path)[0] for path in (one.path, tmp_path / model / f"{one.utt}.wav"))
            assert np.array_equal(expected, found), (model, one.utt)


def test_refused_outputs_leave_no_thread_and_no_open_file(entries, tmp_path):
    threads, files = threading.active_count(), descriptors()
    options = {"suffix": ".mp3", "subtype": "MPEG_LAYER_III", "batch": 2}
    done = list(enhance_list("fspen", entries, tmp_path / "out", **options))
    assert [bool(one.error) for one in done] == [True] * len(entries)
    wait_for_threads(threads)
    assert descriptors() <= files and not list((tmp_path / "out").glob("*.mp3"))


@pytest.mark.parametrize("batch", [1, 2])
def test_an_output_that_becomes_too_long_costs_no_other(entries, tmp_path, rng, monkeypatch, batch):
    audio.write(tmp_path / "b.wav", 0.1 * rng.standard_normal((1, 120000)), 96000)
    threads, files = threading.active_count(), descriptors()
    monkeypatch.setattr("setk.audio.io.LARGEST", 2 * 100000)
    errors = {one.utt: one.error for one in enhance_list("fspen", entries, tmp_path / "out", batch=batch)}
    assert "4 GiB" in errors.pop("b") and errors == {"a": None, "c": None, "d": None}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == ["a.wav", "c.wav", "d.wav"]
    wait_for_threads(threads)
    assert descriptors() <= files


@pytest.mark.parametrize("batch", [1, 3])
def test_a_list_that_is_left_early_leaves_nothing_open_and_no_part_of_a_file(entries, tmp_path, batch):
    threads, files = threading.active_count(), descriptors()
    results = enhance_list("fspen", entries, tmp_path / "out", batch=batch, chunk=0.1)
    utt = next(results).utt
    results.close()
    wait_for_threads(threads)
    names = {name for name in os.listdir(tmp_path / "out") if name.endswith(".wav")}
    assert descriptors() <= files and names == {f"{utt}.wav"}


@pytest.mark.parametrize("chunk", [0.5, 2.0])
def test_a_chunk_may_be_longer_than_what_readers_hold(se, entries, tmp_path, chunk):
    lines = [f"{utt} {location}" for utt, location in entries]
    (tmp_path / "in.scp").write_text("\n".join(lines) + "\n")
    for name, options in (("alone", []), ("together", ["--batch", 3])):
        done = se(
            "enhance", "fspen", "--list", tmp_path / "in.scp", "--out", tmp_path / name, "--chunk", chunk, *options
        )
        assert done.returncode == 0, done.err
    for utt, _ in entries:
        alone, together = (audio.read(tmp_path / name / f"{utt}.wav")[0] for name in ("alone", "together"))
        np.testing.assert_allclose(together, alone, atol=2**-14)
