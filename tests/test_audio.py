"""Audio in and out: round trips, odd headers, pipes, and every kind of broken file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from setk import audio
from setk.audio import Location
from setk.audio.arrays import as_channels
from setk.core.errors import AudioError, UserError


def tone(n=1600, channels=1, seed=0):
    return (np.random.default_rng(seed).standard_normal((channels, n)) * 0.1).astype(np.float32)


def test_sound_that_16_bits_do_not_hold_is_named(tmp_path, caplog, rng):
    faint = 1e-5 * rng.uniform(-1, 1, 1000)
    audio.write(tmp_path / "float.wav", faint, 16000, "FLOAT")
    audio.write(tmp_path / "silent.wav", 0 * faint, 16000)
    audio.write(tmp_path / "quiet.wav", 10 * faint, 16000)
    assert not caplog.records
    audio.write(tmp_path / "a.wav", faint, 16000)
    assert "a.wav: is silent" in caplog.text


@pytest.mark.parametrize(
    "suffix, subtype, error",
    [
        (".wav", "PCM_16", 2**-16),
        (".wav", "PCM_24", 2**-23),
        (".wav", "PCM_32", 2**-24),
        (".wav", "FLOAT", 0),
        (".flac", "PCM_16", 2**-16),
        (".flac", "PCM_24", 2**-23),
    ],
)
def test_what_is_written_is_read(tmp_path, suffix, subtype, error):
    x = tone(channels=2)
    path = str(tmp_path / f"a ü{suffix}")
    assert audio.write(path, x, 44100, subtype) == 0
    y, rate = audio.read(path)
    assert rate == 44100 and np.abs(x - y).max() <= error
    assert audio.probe(path) == audio.Info(44100, 2, 1600)


def test_int16_keeps_its_bytes(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, 4000).astype("<i2")
    assert (audio.to_int16(audio.from_int16(pcm))[0] == pcm).all()


def test_clipping_is_counted(tmp_path):
    assert audio.write(tmp_path / "a.wav", np.array([0.5, 1.5, -1.0, -1.01, 1.0], np.float32), 16000) == 3


@pytest.mark.parametrize("subtype, bits", [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32), ("FLOAT", 0)])
def test_what_is_counted_as_clipped_is_what_the_file_has_not(tmp_path, rng, subtype, bits):
    near = [1 - 2.0**-15, 1 - 2.0**-17, 1 - 2.0**-20, -1]
    x = np.concatenate([rng.uniform(-1.2, 1.2, 500), near]).astype(np.float32)
    clipped = audio.write(tmp_path / "a.wav", x, 16000, subtype)
    written = audio.read(tmp_path / "a.wav")[0][0]
    step = 2.0 ** (1 - bits) if bits else 0
    assert clipped == np.count_nonzero(np.abs(written.astype(np.float64) - x) > (step if bits > 16 else step / 2))


@pytest.mark.parametrize(
    "size", [0xFFFFFFFF, 0x7FFFF000, 0, 0x80000000 - 44, 0x7FFFFF00, 0x7FFFFFD3, 0x7FFFFFFF, 0x80000000]
)
def test_sizes_of_a_pipe_mean_until_the_end(size):
    pcm = audio.to_int16(tone())[0]
    head = bytearray(audio.wav_header(16000, 1, None))
    head[40:44] = struct.pack("<I", size)
    wav = audio.WavReader(io.BytesIO(bytes(head) + pcm.tobytes()), "x")
    assert wav.info.frames is None
    assert (np.concatenate(list(wav.blocks(333)), 1) == audio.from_int16(pcm)).all()


def test_other_chunks_and_extensible_headers():
    pcm = audio.to_int16(tone())[0].tobytes()
    fmt = struct.pack("<HHIIHH", 0xFFFE, 1, 8000, 16000, 2, 16) + struct.pack("<HHIH", 22, 16, 4, 1) + b"\0" * 14
    wav = (
        b"RIFF\0\0\0\0WAVE"
        + b"LIST\x03\0\0\0abc\0"
        + b"fmt "
        + struct.pack("<I", len(fmt))
        + fmt
        + b"data"
        + struct.pack("<I", len(pcm))
        + pcm
        + b"LIST\x02\0\0\0zz"
    )
    reader = audio.WavReader(io.BytesIO(wav), "x")
    assert reader.info == audio.Info(8000, 1, 1600)
    assert sum(b.shape[1] for b in reader.blocks(1000)) == 1600


def broken(tmp_path):
    x = tone()
    audio.write(tmp_path / "whole.wav", x, 16000)
    audio.write(tmp_path / "whole.flac", x, 16000)
    wav, flac = (tmp_path / "whole.wav").read_bytes(), (tmp_path / "whole.flac").read_bytes()
    nan = x.copy()
    nan[0, 5] = np.nan
    audio.write(tmp_path / "nan.wav", nan, 16000, "FLOAT")
    files = {
        "truncated.wav": wav[:-100],
        "headless.wav": wav[:30],
        "truncated.flac": flac[: len(flac) // 2],
        "empty.wav": b"",
        "text.wav": b"hello there, no audio",
        "list.scp": b"utt1 some where/a.wav\nutt2 some where/b.wav\n",
        "commands.scp": b"utt1 sox a.wav -t wav - |\n",
        "none.flac": b"fLaC",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return {
        "truncated.wav": "truncated",
        "headless.wav": "truncated",
        "truncated.flac": "truncated|not an audio file",
        "empty.wav": "empty",
        "text.wav": "not an audio file",
        "list.scp": "is a wav list",
        "commands.scp": "is a wav list",
        "none.flac": "not an audio file",
        "nan.wav": "NaN",
        "missing.wav": "no such file",
        ".": "directory",
        "exit 3 |": "shell command",
    }


ENCODED = [("ogg", "VORBIS"), ("ogg", "OPUS"), ("aiff", "PCM_16"), ("aiff", "PCM_24"), ("au", "PCM_16"), ("w64", "FLOAT"), ("flac", "PCM_16"), ("caf", "PCM_16")]  # fmt: skip


@pytest.mark.parametrize("suffix, subtype", ENCODED)
def test_a_cut_file_is_not_a_shorter_one(tmp_path, rng, caplog, suffix, subtype):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(16000 * 3), 16000, subtype)
    whole = path.read_bytes()
    assert audio.probe(path).frames == audio.read(path)[0].shape[1] == 48000 and not caplog.records
    path.write_bytes(whole[: rng.integers(len(whole) // 4, len(whole) - 100)])
    for read in (audio.read, audio.probe):
        if suffix == "flac" and read is audio.probe:  # states its length at its beginning
            continue
        with pytest.raises(AudioError, match="truncated|malformed"):
            read(path)


@pytest.mark.parametrize("magic", [b"OggS", b"FORM\0\0\0\0AIFF", b"riff", b".snd", b"dns.", b"fLaC", b"caff"])
def test_the_beginning_of_a_header_is_not_audio(tmp_path, rng, magic):
    for length in range(len(magic), 80):
        (tmp_path / "a").write_bytes(magic + rng.bytes(length - len(magic)))
        for read in (audio.read, audio.probe):
            with pytest.raises(AudioError):
                read(tmp_path / "a")


def test_recordings_that_were_joined_are_not_the_first_of_them(tmp_path, rng, caplog):
    for suffix, subtype in (("ogg", "VORBIS"), ("ogg", "OPUS"), ("flac", "PCM_16")):
        path = tmp_path / f"{subtype}.{suffix}"
        soundfile.write(path, 0.1 * rng.standard_normal(16000 * 6), 16000, subtype)
        path.write_bytes(2 * path.read_bytes())
        if suffix == "ogg":
            with pytest.raises(AudioError, match="several recordings"):
                audio.read(path)
        else:
            assert audio.read(path)[0].shape[1] == 96000 and "are not read" in caplog.text


def test_samples_after_those_that_a_wav_states_are_named(tmp_path, caplog):
    pcm = audio.to_int16(tone(n=16000))[0].tobytes()
    chunk = b"LIST" + (4000).to_bytes(4, "little") + bytes(4000)
    for n, rest in ((16000, b""), (15999, bytes(300)), (16000, chunk)):
        (tmp_path / "a.wav").write_bytes(audio.wav_header(16000, 1, n) + pcm[: 2 * n] + rest)
        assert audio.read(tmp_path / "a.wav")[0].shape[1] == n and not caplog.records, rest[:8]
    # A recorder states how much it has so far, and is killed.
    (tmp_path / "a.wav").write_bytes(audio.wav_header(16000, 1, 4000) + pcm)
    assert audio.read(tmp_path / "a.wav")[0].shape[1] == 4000 and "24000 bytes follow" in caplog.text


def test_broken_files_are_named_with_the_reason(tmp_path):
    for name, reason in broken(tmp_path).items():
        location = name if name.endswith("|") else str(tmp_path / name)
        with pytest.raises(AudioError, match=reason):
            audio.read(location)


def test_command_pipes_are_opt_in_and_their_status_counts(tmp_path):
    audio.write(tmp_path / "a b.wav", tone(), 16000)
    pipe = f"cat '{tmp_path}/a b.wav' |"
    with pytest.raises(AudioError, match="--allow-commands"):
        audio.read(pipe)
    assert Location.parse(pipe, allow_commands=True).read()[0].shape == (1, 1600)
    for command in ("false | cat |", f"cat '{tmp_path}/a b.wav'; echo no disk >&2; exit 3 |"):
        with pytest.raises(AudioError, match="ended with code"):
            Location.parse(command, allow_commands=True).read()


def test_an_unfit_output_is_refused(tmp_path):
    for name, subtype in [("a.xyz", "PCM_16"), ("a", "PCM_16"), ("a.flac", "FLOAT")]:
        with pytest.raises(UserError, match="cannot be written"):
            audio.write(tmp_path / name, tone(), 16000, subtype)


@pytest.mark.full
def test_resampling_keeps_a_tone_and_its_length(rng):
    n = int(rng.integers(1, 48000))
    for source, target in [(48000, 16000), (44100, 16000), (16000, 44100), (8000, 16000)]:
        assert audio.resample(np.zeros((2, n), np.float32), source, target).shape == (2, -(-n * target // source))
    t = np.arange(48000) / 48000
    x = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    for resampler in ("soxr", "resampy"):
        y = audio.resample(x, 48000, 16000, resampler)
        want = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
        assert np.abs(y - want)[200:-200].max() < (1e-6 if resampler == "soxr" else 1e-3)


RATES = [(48000, 16000), (16000, 48000), (44100, 16000), (16000, 11025), (16000, 8000), (15999, 16000)]


@pytest.mark.parametrize("source, target", RATES)
def test_a_stream_is_resampled_alike_in_blocks_of_any_size_and_as_late_as_it_states(rng, source, target):
    from setk.audio.resample import StreamResampler

    x = rng.standard_normal((2, int(rng.integers(1, source)))).astype(np.float32)
    whole = StreamResampler(source, target, 2).push(x, last=True)
    assert whole.shape == (2, audio.resampled_length(x.shape[1], source, target)) and whole.dtype == np.float32
    resampler, parts, seen = StreamResampler(source, target, 2), [], 0
    for block in np.array_split(x, int(rng.integers(1, 60)), axis=1):
        parts.append(resampler.push(block))
        seen += block.shape[1]
        known = np.ceil(max(0, seen - resampler.delay_s * source) * target / source)
        assert abs(sum(part.shape[1] for part in parts) - known) <= 1
    assert np.array_equal(np.concatenate([*parts, resampler.push(x[:, :0], last=True)], axis=1), whole)


@pytest.mark.parametrize("source, target", RATES)
def test_a_resampled_stream_keeps_what_both_rates_hold_and_nothing_else(source, target):
    from setk.audio.resample import StreamResampler

    lower, edge = min(source, target) / 2, slice(target // 10, -target // 10)
    for frequency, kept in ((1000, 1.0), (0.9 * lower, 1.0), (1.02 * lower, 0.0)):
        if frequency < source / 2:
            tone = np.sin(2 * np.pi * frequency * np.arange(source) / source).astype(np.float32)
            expected = kept * np.sin(2 * np.pi * frequency * np.arange(target) / target)
            found = StreamResampler(source, target, 1).push(tone[None], last=True)[0]
            assert np.abs(found - expected)[edge].max() < 2e-5


def test_standard_output_is_valid_wav_for_others():
    code = (
        "import numpy as np; from setk import audio\n"
        "with audio.Writer('-', 16000, 2) as w:\n  [w.write(np.full((2, 100), 0.25, 'f4')) for _ in range(3)]"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    x, rate = soundfile.read(io.BytesIO(out))
    assert rate == 16000 and x.shape == (300, 2) and (x == 0.25).all()


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW"])
def test_telephone_codes_are_read_as_libsndfile_reads_them(tmp_path, rng, subtype):
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, np.concatenate([np.linspace(-1, 1, 9999), rng.uniform(-1, 1, 999)]), 8000, subtype)
    with open(path, "r+b") as f:  # every code
        f.seek(-256, 2)
        f.write(bytes(range(256)))
    x, rate = audio.read_mono(path)
    assert rate == 8000 and np.array_equal(x, soundfile.read(path, dtype="float32")[0])


def test_an_empty_data_chunk_before_another_is_empty(tmp_path):
    header = bytearray(audio.wav_header(16000, 1, 0))
    header[4:8] = (36 + 408).to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(bytes(header) + b"LIST" + (400).to_bytes(4, "little") + bytes(range(200)) * 2)
    assert audio.read(tmp_path / "a.wav")[0].shape == (1, 0) and audio.probe(tmp_path / "a.wav").frames == 0
    # As a pipe writes it, the size is not known.
    (tmp_path / "b.wav").write_bytes(audio.wav_header(16000, 1, 0) + bytes(400))
    assert audio.read(tmp_path / "b.wav")[0].shape == (1, 200)


def test_a_wav_of_4_gib_is_refused_before_it_is_made(tmp_path):
    frames = (1 << 32) // 4
    with pytest.raises(AudioError, match="4 GiB"), audio.Writer(str(tmp_path / "a.wav"), 48000, 2, frames=frames):
        raise AssertionError
    with audio.Writer(str(tmp_path / "a.w64"), 48000, 2, frames=frames) as writer:
        writer.write(np.zeros((2, 10)))
    # In a pipe no length is stated.
    assert audio.wav_header(48000, 2, frames)[40:44] == audio.wav_header(48000, 2, None)[40:44]


def test_channels_last_as_soundfile_has_them_is_refused():
    with pytest.raises(UserError, match="x.T"):
        as_channels(np.zeros((72000, 2)))
    assert as_channels(np.zeros((2, 1))).shape == (2, 1)
