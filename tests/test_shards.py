"""Shards: what is read is what the wavs hold; what is torn, foreign or hostile is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import command

from setk import audio
from setk.data import features, shards
from setk.core.errors import UserError
from setk.data.datadir import DataDir
from setk.data.lists import read_list, write_list
from setk.data.shards import Shards
from setk.data.shards.format import open_shard
from setk.training.data import open_sources


def write_pairs(
    folder: Path, rng: np.random.Generator, count: int, longest: int = 6000
) -> dict[str, dict[str, np.ndarray]]:
    """A data directory of `count` pairs; stream -> utt -> int16 samples."""
    lists: dict[str, dict] = {"noisy": {}, "clean": {}}
    samples: dict[str, dict] = {"noisy": {}, "clean": {}}
    for i in rng.permutation(count):
        n = int(rng.integers(1, longest))
        for stream in lists:
            x = rng.integers(-32768, 32768, n).astype("<i2")
            path = folder / "wav" / stream / f"utt {i}.wav"
            audio.write(path, audio.from_int16(x), 16000)
            lists[stream][f"u{i}"], samples[stream][f"u{i}"] = path, x
    for stream in lists:
        write_list(folder / f"{stream}.scp", lists[stream])
    write_list(folder / "utt2snr", {f"u{i}": i / 2 for i in range(0, count, 2)})
    write_list(folder / "utt2spk", {f"u{i}": f"spk{i % 3}" for i in range(count)})
    return samples


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, rng):
    folder = tmp_path_factory.mktemp("pairs")
    return folder, write_pairs(folder, rng, 23)


@pytest.fixture
def made(pairs, tmp_path):
    """A fresh set of three shards."""
    out = tmp_path / "shards"
    assert [done.state for done in shards.write_shards(DataDir(pairs[0]), out, size=10)] == ["made"] * 3
    return out


def contents(out: Path) -> dict[str, dict[str, bytes]]:
    """All that a set holds, but how it came about."""
    found = {}
    for name, path in read_list(out / "pairs.scp").items():
        with h5py.File(path) as f:
            names = sorted(set(f) - {"changed"})
            found[name] = {k: (np.asarray(f[k]).tobytes() if f[k].dtype != object else list(f[k])) for k in names}
            found[name]["attrs"] = {k: v for k, v in f.attrs.items() if k != "provenance"}
    return found


def test_random_segments_are_the_samples_of_the_wavs(pairs, made, rng):
    _, samples = pairs
    data = Shards(made, "pairs")
    assert sorted(data.ids) == sorted(samples["noisy"]) and len(data) == 23
    assert data.rate == 16000 and data.streams == ("noisy", "clean")
    for _ in range(500):
        i = int(rng.integers(len(data)))
        start = int(rng.integers(data.lengths[i] + 1))
        count = int(rng.integers(data.lengths[i] - start + 1))
        found = data.read(i, start, count)
        for stream, x in found.items():
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, samples[stream][data.ids[i]][start : start + count] / np.float32(32768))
    np.testing.assert_array_equal(data.read(0)["clean"] * 32768, samples["clean"][data.ids[0]])


def test_tables_come_along(made):
    data = Shards(made / "pairs.scp")
    for utt, snr, spk in zip(data.ids, data.snr, data.spk):
        i = int(utt[1:])
        assert spk == f"spk{i % 3}"
        assert snr == i / 2 if i % 2 == 0 else np.isnan(snr)


@pytest.mark.parametrize("segment", [(-1, 2), (0, 10**9), (5, -1)])
def test_a_segment_beyond_the_utterance_is_an_error(made, segment):
    with pytest.raises(IndexError):
        Shards(made, "pairs").read(0, *segment)


def _sum(data: Shards, i: int) -> float:
    return float(data.read(i)["noisy"].sum())


def test_worker_processes_read_the_same(made):
    data = Shards(made, "pairs")
    here = [_sum(data, i) for i in range(len(data))]  # opens the files before the fork
    assert [_sum(pickle.loads(pickle.dumps(data)), i) for i in range(len(data))] == here
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_sum, [data] * len(data), range(len(data)))) == here


def _sums_by_threads(made, count) -> list[float]:
    data, together = Shards(made, "pairs"), threading.Barrier(count)

    def read(i):
        together.wait()
        return _sum(data, i)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(read, range(count)))


def test_threads_share_the_open_files(made):
    files, data = len(os.listdir("/proc/self/fd")), Shards(made, "pairs")
    expected = [_sum(data, i) for i in range(8)]
    del data
    for _ in range(5):
        assert _sums_by_threads(made, 8) == expected
    assert len(os.listdir("/proc/self/fd")) <= files


def test_a_read_that_the_system_cuts_short_goes_on(made, monkeypatch):
    data, whole = Shards(made, "pairs"), os.pread
    expected = [_sum(data, i) for i in range(len(data))]
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: whole(descriptor, min(size, 999), offset))
    assert [_sum(data, i) for i in range(len(data))] == expected


def test_a_copied_folder_is_read_where_it_lies(made, tmp_path, monkeypatch):
    copy = tmp_path / "fast disk"
    shutil.copytree(made, copy)
    shutil.rmtree(made)
    monkeypatch.chdir("/")
    assert Shards(copy, "pairs").read(3)


@pytest.mark.parametrize("feature, options", [("pcm", ["--jobs", 2]), ("pcm", ["--shard"]), ("stft", ["--shard"])])
def test_any_division_into_jobs_makes_the_same_files(pairs, tmp_path, se, feature, options):
    one, other = tmp_path / "one", tmp_path / "other"
    common = ["--shard-size", 4, "--feature", feature]
    assert se("prep", "shards", pairs[0], one, *common).returncode == 0
    runs = [options] if options != ["--shard"] else [["--shard", f"{k}/7"] for k in (3, 7, 1, 2, 6, 5, 4)]
    for i, run in enumerate(runs):
        assert not (other / "pairs.scp").exists()
        done = se("prep", "shards", pairs[0], other, *common, *run)
        assert done.returncode == 0 and not done.out, done.err
        if i == 0 and len(runs) > 1:
            with pytest.raises(UserError, match="not complete"):
                Shards(other, "pairs", feature)
    assert contents(one) == contents(other)


def test_a_rerun_keeps_what_is_current_and_remakes_the_rest(tmp_path, rng):
    write_pairs(tmp_path, rng, 12)
    out = tmp_path / "shards"

    def states(**options):
        return [done.state for done in shards.write_shards(DataDir(tmp_path), out, **{"size": 5, **options})]

    assert states() == ["made"] * 3
    before = contents(out)
    assert states() == ["kept"] * 3
    changed = Path(read_list(tmp_path / "clean.scp")["u10"])  # C order: u0 u1 u10 ...: in the first shard
    os.utime(changed, ns=(time.time_ns() + 10**9,) * 2)
    assert states() == ["made", "kept", "kept"]
    assert contents(out) == before
    os.utime(changed, (1e9, 1e9))  # as of a file that another, older one has replaced
    assert states() == ["made", "kept", "kept"]
    (out / "pairs.2.h5").write_bytes((out / "pairs.2.h5").read_bytes()[:-100])
    assert states()[1:] == ["made", "kept"]
    write_list(tmp_path / "utt2snr", {"u7": 3.0})
    assert "made" in states() and Shards(out, "pairs").snr[Shards(out, "pairs").ids.index("u7")] == 3.0
    assert states(size=6) == ["made"] * 2
    assert len(Shards(out, "pairs")) == 12
    shutil.rmtree(tmp_path / "wav")  # samples are in the shards now
    assert states(size=6) == ["kept"] * 2


@pytest.mark.full
def test_killed_in_the_middle_nothing_is_torn_and_a_rerun_finishes(tmp_path, rng):
    samples = write_pairs(tmp_path, rng, 60, longest=60000)
    out = tmp_path / "shards"
    argv = command("prep", "shards", tmp_path, out, "--shard-size", 3)
    for _ in range(4):
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        before = len(list(out.glob("pairs.*.h5")))
        while len(list(out.glob("pairs.*.h5"))) < min(before + 2, 20) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in out.glob("pairs.*.h5"):
            open_shard(path, "pairs")
    assert subprocess.run(argv, stderr=subprocess.DEVNULL).returncode == 0
    assert not list(out.glob(".*"))
    data = Shards(out, "pairs")
    assert len(data) == 60
    for i, utt in enumerate(data.ids):
        np.testing.assert_array_equal(data.read(i)["noisy"] * 32768, samples["noisy"][utt])


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def _cut_to_nothing(path):
    path.write_bytes(b"")


def _be_text(path):
    path.write_text("u1 a.wav\n")


def _be_foreign(path):
    with h5py.File(path, "w") as f:
        f["noisy"] = np.zeros(5)


def _link_outside(path):
    other = path.with_name("secret.h5")
    with h5py.File(path, "a") as f, h5py.File(other, "w") as g:
        f.copy("clean", g)
        del f["clean"]
        f["clean"] = h5py.ExternalLink(str(other), "/clean")


def _link_softly(path):
    with h5py.File(path, "a") as f:
        del f["clean"]
        f["clean"] = h5py.SoftLink("/noisy")


def _be_virtual(path):
    with h5py.File(path, "a") as f:
        n = len(f["clean"])
        del f["clean"]
        layout = h5py.VirtualLayout((n,), "<i2")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (n,))
        f.create_virtual_dataset("clean", layout)


def _store_outside(path):
    with h5py.File(path, "a") as f:
        n = len(f["clean"])
        del f["clean"]
        f.create_dataset("clean", (n,), "<i2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _compress(path):
    with h5py.File(path, "a") as f:
        x = f["clean"][:]
        del f["clean"]
        f.create_dataset("clean", data=x, compression="gzip")


def _be_float(path):
    with h5py.File(path, "a") as f:
        x = f["clean"][:]
        del f["clean"]
        f["clean"] = x.astype(np.float32)


def _misfit_offsets(path):
    with h5py.File(path, "a") as f:
        f["offset"][-1] += 1


def _reverse_offsets(path):
    with h5py.File(path, "a") as f:
        f["offset"][1] = f["offset"][-1] + 5


def _lose_ids(path):
    with h5py.File(path, "a") as f:
        ids = f["utt"][:-1]
        del f["utt"]
        f["utt"] = ids


def _be_newer(path):
    with h5py.File(path, "a") as f:
        f.attrs["version"] = 99


def _lose_an_attribute(path):
    with h5py.File(path, "a") as f:
        del f.attrs["sample_rate"]


def _be_a_folder(path):
    path.unlink()
    path.mkdir()


def _be_missing(path):
    path.unlink()


def _repeat_another(path):
    path.write_bytes(path.with_name("pairs.1.h5").read_bytes())


@pytest.mark.parametrize(
    "harm",
    [
        _truncate,
        _cut_to_nothing,
        _be_text,
        _be_foreign,
        _link_outside,
        _link_softly,
        _be_virtual,
        _store_outside,
        _compress,
        _be_float,
        _misfit_offsets,
        _reverse_offsets,
        _lose_ids,
        _be_newer,
        _lose_an_attribute,
        _be_a_folder,
        _be_missing,
        _repeat_another,
    ],
)
def test_a_harmed_shard_is_one_clear_error(made, harm):
    harm(made / "pairs.2.h5")
    with pytest.raises(UserError, match="pairs") as e:
        Shards(made, "pairs")
    assert "\n" not in str(e.value) and ("again" in str(e.value) or "version" in str(e.value))


@pytest.mark.full
def test_any_flipped_byte_of_the_header_raises_nothing_but_user_error(made, rng):
    path = made / "pairs.2.h5"
    whole = path.read_bytes()
    for at in rng.integers(0, 4096, 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :])
        try:
            Shards(made, "pairs").read(12)
        except UserError:
            pass


def test_a_list_with_a_line_missing_is_no_short_epoch(made):
    rows = read_list(made / "pairs.scp")
    del rows["pairs.3"]
    write_list(made / "pairs.scp", rows)
    with pytest.raises(UserError, match="shard 3 of 3 is missing"):
        Shards(made, "pairs")


def test_a_file_that_shrinks_while_it_is_read(made):
    data = Shards(made, "pairs")
    data.read(0)
    os.truncate(made / "pairs.1.h5", 3000)
    with pytest.raises(UserError, match="truncated"):
        for i in range(10):
            data.read(i)


def test_all_bad_utterances_are_named_and_only_their_shard_is_missing(tmp_path, rng, se):
    write_pairs(tmp_path, rng, 12)
    noisy = {utt: Path(p) for utt, p in read_list(tmp_path / "noisy.scp").items()}
    bad = sorted(noisy)[:4]
    noisy[bad[0]].write_bytes(noisy[bad[0]].read_bytes()[:-1])
    audio.write(noisy[bad[1]], np.zeros((2, 100)), 16000)
    audio.write(noisy[bad[2]], np.zeros(100), 48000)
    audio.write(noisy[bad[3]], np.zeros(7000), 16000)
    done = se("prep", "shards", tmp_path, tmp_path / "out", "--shard-size", 6)
    assert done.returncode == 1
    for utt, word in zip(bad, ["truncated", "2 channels", "48000 Hz", "7000"]):
        assert any(line.startswith(f"se-prep: {utt}: ") and word in line for line in done.err.splitlines()), done.err
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["pairs.2.h5"]
    with pytest.raises(UserError, match="not complete"):
        Shards(tmp_path / "out", "pairs")


def test_a_shard_whose_wavs_went_bad_since_is_not_taken_for_the_new_one(tmp_path, rng):
    write_pairs(tmp_path, rng, 4)
    assert [done.state for done in shards.write_shards(DataDir(tmp_path), tmp_path / "out")] == ["made"]
    path = Path(read_list(tmp_path / "noisy.scp")["u2"])
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(time.time_ns() + 10**9,) * 2)
    assert [done.state for done in shards.write_shards(DataDir(tmp_path), tmp_path / "out")] == ["failed"]
    with pytest.raises(UserError, match="not complete"):
        Shards(tmp_path / "out", "pairs")


def test_a_part_does_not_declare_a_set_complete_whose_other_shards_are_out_of_date(tmp_path, rng):
    write_pairs(tmp_path, rng, 4)
    out = tmp_path / "out"
    assert len(list(shards.write_shards(DataDir(tmp_path), out, size=2))) == 2
    for utt in ("u0", "u2"):  # of the first shard and of the second
        os.utime(read_list(tmp_path / "noisy.scp")[utt], ns=(time.time_ns() + 10**9,) * 2)
    for part, complete in (("1/2", False), ("2/2", True)):
        assert [done.state for done in shards.write_shards(DataDir(tmp_path), out, size=2, part=part)] == ["made"]
        assert (out / "pairs.scp").exists() == complete


def test_utterances_are_in_c_order_however_many_shards_there_are(tmp_path, rng):
    write_pairs(tmp_path, rng, 12, longest=100)
    list(shards.write_shards(DataDir(tmp_path), tmp_path / "out", size=1))
    data = Shards(tmp_path / "out", "pairs")
    assert data.ids == sorted(read_list(tmp_path / "noisy.scp"), key=str.encode)
    by_name = [
        Shards(tmp_path / "out", "pairs").ids[int(name.split(".")[1]) - 1]
        for name in sorted(read_list(tmp_path / "out/pairs.scp"))
    ]
    assert [data.ids[i] for i in data.as_listed] == by_name != data.ids
    for i in (1, 9, 11):
        path = read_list(tmp_path / "noisy.scp")[data.ids[i]]
        np.testing.assert_array_equal(data.read(i)["noisy"], audio.read(path)[0][0])


def test_a_mistyped_option_costs_no_shard(tmp_path, rng, se):
    write_pairs(tmp_path, rng, 4)
    command = ("prep", "shards", tmp_path, tmp_path / "out", "--shard-size", 2)
    assert se(*command).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.h5")}
    assert se(*command, "--rate", 48000).returncode == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(UserError, match="not complete"):
        Shards(tmp_path / "out", "pairs")
    assert "2 kept" in (done := se(*command)).err and done.returncode == 0
    assert len(Shards(tmp_path / "out", "pairs").ids) == 4


def test_nan_found_while_copying_leaves_no_file(tmp_path, rng, se):
    write_pairs(tmp_path, rng, 3)
    path = Path(read_list(tmp_path / "clean.scp")["u1"])
    frames = audio.probe(str(path)).frames
    audio.write(path, np.full(frames, np.nan, np.float32), 16000, "FLOAT")
    done = se("prep", "shards", tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "u1" in done.err and "NaN" in done.err
    assert not list((tmp_path / "out").iterdir())


def test_samples_beyond_16_bits_are_clipped_and_counted(tmp_path, rng, se):
    write_pairs(tmp_path, rng, 2)
    for stream in ("noisy", "clean"):
        audio.write(Path(read_list(tmp_path / f"{stream}.scp")["u0"]), np.full(50, 1.5), 16000, "FLOAT")
    done = se("prep", "shards", tmp_path, tmp_path / "out")
    assert done.returncode == 0 and "100 samples" in done.err


def test_speech_noise_and_rooms_are_sets_of_their_own(tmp_path, rng, se):
    table = {}
    for i in range(5):
        audio.write(tmp_path / f"{i}.wav", rng.uniform(-1, 1, 100 + i), 16000)
        table[f"x{i}"] = tmp_path / f"{i}.wav"
    for stream in ("speech", "noise", "rir"):
        write_list(tmp_path / f"{stream}.scp", table)
    assert se("prep", "shards", tmp_path, tmp_path / "out", "--shard-size", 2).returncode == 0
    assert shards.names(tmp_path / "out") == ("speech", "noise", "rir") and shards.names(tmp_path) == ()
    for name in ("speech", "noise", "rir"):
        data = Shards(tmp_path / "out", name)
        assert data.streams == (name,) and data.lengths.tolist() == [100, 101, 102, 103, 104]
    (tmp_path / "rir.scp").unlink()
    assert se("prep", "shards", tmp_path, tmp_path / "out", "--shard-size", 2, "--rate", 8000).returncode == 1
    assert len(list((tmp_path / "out").glob("rir.*"))) == 4  # no room goes before the others are complete
    assert se("prep", "shards", tmp_path, tmp_path / "out", "--shard-size", 2).returncode == 0
    assert shards.names(tmp_path / "out") == ("speech", "noise") and not list((tmp_path / "out").glob("rir*"))


def test_an_utterance_without_samples_is_named(tmp_path, se):
    audio.write(tmp_path / "a.wav", np.zeros(0), 16000)
    for stream in ("speech", "noise"):
        write_list(tmp_path / f"{stream}.scp", {"a": tmp_path / "a.wav"})
    done = se("prep", "shards", tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "has no samples" in done.err and not list((tmp_path / "out").glob("*.h5"))


# --- other features --------------------------------------------------------------------------------------------------


def torch_stft(x: np.ndarray, window: int, hop: int) -> np.ndarray:
    """[frames, bins, 2] by the definition that models use."""
    torch = pytest.importorskip("torch")
    from setk.audio.stft import STFT

    return STFT(window, hop).analysis(torch.from_numpy(x)[None])[0].numpy()


@pytest.mark.parametrize("window, hop", [(512, 256), (400, 100)])
def test_stft_shards_hold_the_compressed_spectrum_of_the_models(pairs, tmp_path, rng, monkeypatch, window, hop):
    monkeypatch.setattr(features, "_BLOCK", int(rng.integers(500, 3000)))  # the block is a matter of memory only
    out = tmp_path / "out"
    made = list(
        shards.write_shards(
            DataDir(pairs[0]), out, size=10, feature=features.make("stft", 16000, window=window, hop=hop)
        )
    )
    assert [done.state for done in made] == ["made"] * 3
    data = Shards(out, "pairs", "stft")
    assert data.settings == {"window": window, "hop": hop, "power": 0.3}
    assert sum(done.seconds for done in made) == pytest.approx(data.samples.sum() / 16000)
    for i in rng.integers(len(data), size=5):
        x = audio.from_int16(pairs[1]["clean"][data.ids[i]])
        wanted = torch_stft(x, window, hop)
        wanted = wanted * np.hypot(wanted[..., :1], wanted[..., 1:]) ** -0.7
        found = data.read(i)["clean"]
        assert found.shape == wanted.shape and len(found) == data.lengths[i] and data.samples[i] == len(x)
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
        start, count = (int(v) for v in np.sort(rng.integers(len(found) + 1, size=2)) * [1, 1])
        np.testing.assert_array_equal(data.read(i, start, count - start)["clean"], found[start:count])


def test_logmel_shards_hold_the_energy_in_bands(tmp_path, se):
    t = np.arange(16000) / 16000
    tones = {"low": 300.0, "high": 5000.0}
    for utt, hertz in tones.items():
        audio.write(tmp_path / f"{utt}.wav", 0.5 * np.sin(2 * np.pi * hertz * t), 16000)
    audio.write(tmp_path / "none.wav", np.zeros(1000), 16000)
    for stream in ("noisy", "clean"):
        write_list(tmp_path / f"{stream}.scp", {utt: tmp_path / f"{utt}.wav" for utt in (*tones, "none")})
    assert se("prep", "shards", tmp_path, tmp_path / "out", "--feature", "logmel", "--bands", 40).returncode == 0
    data = Shards(tmp_path / "out", "pairs", "logmel")
    centres = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42) / 2595) - 1)[1:-1]
    for utt, hertz in tones.items():
        bands = data.read(data.ids.index(utt))["noisy"]
        assert bands.shape == (63 + 1, 40)
        assert abs(int(bands[30].argmax()) - int(np.abs(centres - hertz).argmin())) <= 1
        # Most of a sine's power, (A / 2 sum of the window)^2 at the bin, is in the loudest band.
        window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
        assert np.log((0.25 * window.sum()) ** 2) - 1.5 < bands[30].max() < np.log((0.25 * window.sum()) ** 2) + 1.5
    np.testing.assert_allclose(data.read(data.ids.index("none"))["clean"], np.log(1e-10), rtol=1e-3)


def test_plain_h5py_gives_the_signal_back_from_stft(pairs, tmp_path):
    list(shards.write_shards(DataDir(pairs[0]), tmp_path, feature=features.make("stft", 16000)))
    with h5py.File(tmp_path / "pairs.1.h5") as f:
        offset, utt, window, hop = f["offset"], f["utt"].asstr(), f.attrs["window"], f.attrs["hop"]
        x = f["noisy"][offset[4] : offset[5]].astype(np.float32).view(np.complex64)[..., 0]
        x = x * np.maximum(np.abs(x), 1e-9) ** (1 / f.attrs["power"] - 1)
        frames = np.fft.irfft(x, window) * np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))
        wave = np.zeros((len(frames) + 1) * hop)
        for t, frame in enumerate(frames):
            wave[t * hop : t * hop + window] += frame
        wave = wave[window - hop :][: f["samples"][4]]
        wanted = pairs[1]["noisy"][utt[4]] / 32768
    np.testing.assert_allclose(wave, wanted, atol=5e-3 * np.abs(wanted).max())


def test_shards_of_another_feature_are_refused_in_one_line(pairs, made, tmp_path, se):
    list(shards.write_shards(DataDir(pairs[0]), tmp_path / "stft", feature=features.make("stft", 16000)))
    with pytest.raises(UserError, match="has stft; expected pcm; make it again with se-prep shards --feature pcm"):
        Shards(tmp_path / "stft", "pairs")
    with pytest.raises(UserError, match="has pcm; expected logmel"):
        Shards(made, "pairs", "logmel")
    done = se("train", "fspen", "--train", tmp_path / "stft", "--valid", pairs[0], "--out", tmp_path / "exp")
    assert done.returncode == 2 and len(done.err.splitlines()) == 1 and "has stft; expected pcm" in done.err


def test_a_change_of_feature_makes_the_shards_anew(pairs, tmp_path):
    def states(feature, **options):
        return [
            d.state
            for d in shards.write_shards(
                DataDir(pairs[0]), tmp_path, 20, feature=features.make(feature, 16000, **options)
            )
        ]

    assert states("pcm") == states("stft") == states("stft", hop=128) == states("logmel", hop=128) == ["made"] * 2
    assert states("logmel", hop=128) == ["kept"] * 2


@pytest.mark.parametrize(
    "options, words",
    [
        (["--feature", "mfcc"], "pcm, stft, logmel"),
        (["--hop", 128], "does not apply to --feature pcm"),
        (["--feature", "stft", "--bands", 40], "--bands 40"),
        (["--feature", "stft", "--hop", 200], "does not divide window 512"),
        (["--feature", "stft", "--hop", 512], "as long as the window"),
        (["--feature", "logmel", "--bands", 400], "without a bin"),
        (["--feature", "logmel", "--bands", 0], "more than 0"),
        (["--shard-size", 0], "--shard-size 0"),
        (["--resampler", "sinc"], "soxr or resampy"),
    ],
)
def test_options_of_shards_that_cannot_be(pairs, tmp_path, se, options, words):
    done = se("prep", "shards", pairs[0], tmp_path / "out", *options)
    assert done.returncode == 2 and words in done.err and len(done.err.splitlines()) == 1


# --- rates, speed, memory --------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("resampler", ["soxr", "resampy"])
def test_other_rates_are_converted_on_the_way_if_a_resampler_is_named(tmp_path, rng, se, resampler):
    for i, (rate, n) in enumerate([(48000, 4801), (16000, 1000), (44100, 2000)]):
        for stream in ("noisy", "clean"):
            audio.write(tmp_path / f"{stream}{i}.wav", rng.standard_normal(n) * 0.1, rate)
    for stream in ("noisy", "clean"):
        write_list(tmp_path / f"{stream}.scp", {f"u{i}": tmp_path / f"{stream}{i}.wav" for i in range(3)})
    done = se("prep", "shards", tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "48000 Hz" in done.err
    assert se("prep", "shards", tmp_path, tmp_path / "out", "--resampler", resampler).returncode == 0
    data = Shards(tmp_path / "out", "pairs")
    assert data.lengths.tolist() == [1601, 1000, 726]
    for i in range(3):
        x, rate = audio.read_mono(str(tmp_path / f"noisy{i}.wav"))
        np.testing.assert_allclose(data.read(i)["noisy"], audio.resample(x, rate, 16000, resampler), atol=1e-4)
    with h5py.File(tmp_path / "out/pairs.1.h5") as f:
        made = json.loads(f.attrs["provenance"])
    assert made["resampler"] == resampler and resampler in made["versions"]
    audio.write(tmp_path / "clean0.wav", rng.standard_normal(4801) * 0.1, 16000)
    done = se("prep", "shards", tmp_path, tmp_path / "out", "--resampler", resampler)
    assert done.returncode == 1 and "a pair must have equal lengths" in done.err


def peak_memory(*args) -> int:
    """Highest resident set of a finished se-prep in KiB. Its own word: rusage counts the process it was forked from."""
    code = (
        "import atexit, re, sys\nfrom setk.cli import prep\n"
        "atexit.register(lambda: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr))\nprep.main()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak memory")
def test_peak_memory_does_not_grow_with_the_corpus(tmp_path, rng):
    x = rng.standard_normal(10 * 16000) * 0.1
    for i in range(40):  # 13 MB a stream, 52 MB as float32 of both
        for stream in ("noisy", "clean"):
            audio.write(tmp_path / f"{stream}{i}.wav", np.roll(x, i), 16000)
    peaks: dict[str, list[int]] = {}
    for count in (4, 40):
        data = tmp_path / f"data{count}"
        data.mkdir()
        for stream in ("noisy", "clean"):
            write_list(data / f"{stream}.scp", {f"u{i}": tmp_path / f"{stream}{i}.wav" for i in range(count)})
        for kind, args in {
            "pcm": ["shards", data],
            "stft": ["shards", data, "--feature", "stft"],
            "mix": ["mix", "--speech", data / "clean.scp", "--noise", data / "noisy.scp", "--snr", 5],
        }.items():
            peaks.setdefault(kind, []).append(peak_memory(*args, tmp_path / f"{kind}{count}"))
        peaks.setdefault("check", []).append(peak_memory("check", data))
    assert all(large < small + 6000 for small, large in peaks.values()), peaks


def reads_so_far() -> tuple[int, int]:
    """Bytes that this process has read from files, and calls of the system that it took."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["rchar"]), int(told["syscr"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="/proc tells what is read")
def test_a_random_two_second_segment_costs_one_read_of_its_own_bytes(tmp_path, rng):
    n, wanted, count = 60 * 16000, 32000, 400
    for stream in ("speech", "noise"):
        audio.write(tmp_path / f"{stream}.wav", rng.uniform(-1, 1, n), 16000)
        write_list(tmp_path / f"{stream}.scp", {"a": tmp_path / f"{stream}.wav"})
    list(shards.write_shards(DataDir(tmp_path), tmp_path / "out"))
    data, starts = Shards(tmp_path / "out", "speech"), rng.integers(0, n - wanted, count).tolist()
    data.read(0, 0, 1)  # opens the file
    before = reads_so_far()
    for start in starts:
        data.read(0, start, wanted)
    size, calls = (after - earlier for after, earlier in zip(reads_so_far(), before))
    # Asking /proc is a few reads of its own.
    assert calls <= count + 10 and size <= 2 * wanted * count + 10000


def test_a_folder_without_one_of_its_sets_is_not_complete_and_cannot_be_trained_on(tmp_path, rng, se):
    for name in ("speech", "noise"):
        audio.write(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal((1, 16000)).astype(np.float32), 16000)
        write_list(tmp_path / f"{name}.scp", {name: tmp_path / f"{name}.wav"})
    (tmp_path / "speech.wav").write_bytes(b"RIFF")
    done = se("prep", "shards", tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "1 failed" in done.err and "not complete yet: speech" in done.err, done.err
    with pytest.raises(UserError, match="its shards are not complete"):
        open_sources(tmp_path / "out")
