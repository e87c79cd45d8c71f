"""What docs/desktop.md shows, as it is written there, in the programs that it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import COMMANDS, MINI, PATIENCE, ROOT

import setk
from setk import audio
from setk.audio.resample import resample
from setk.engines.compiled import compiler

TEXT = (ROOT / "docs" / "desktop.md").read_text()


def block(heading: str) -> str:
    """The first block of a section."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.search(r"```text\n(.*?)```", section, re.DOTALL)[1]


def needs(**packages: str) -> None:
    for program, package in packages.items():
        if not shutil.which(program.replace("_", "-")):
            pytest.skip(f"{program.replace('_', '-')} is not installed (Debian: apt-get install {package})")


def waited(look):
    """What `look` returns as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
    return found


@pytest.fixture
def session(tmp_path):
    """A folder with the commands and a recording at 48 kHz, and the environment of a desktop that has just begun; what is started by
    `session.start` ends with the test."""

    class Session:
        folder, running = tmp_path, []

        def __init__(self):
            (tmp_path / "run").mkdir(mode=0o700)
            x, rate = audio.read_mono(str(MINI / "test/noisy/mona_0001.flac"))
            self.noisy = resample(x, rate, 48000)
            audio.write(tmp_path / "noisy48k.wav", self.noisy, 48000)
            self.environment = {
                **os.environ,
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path / ".config"),
                "XDG_RUNTIME_DIR": str(tmp_path / "run"),
                "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
                "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            }

        def start(self, *command) -> subprocess.Popen:
            log = open(tmp_path / f"{len(self.running)}.log", "wb")
            self.running.append(
                subprocess.Popen(
                    command, env=self.environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
                )
            )
            return self.running[-1]

        def run(self, *command) -> str:
            done = subprocess.run(command, env=self.environment, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

    made = Session()
    yield made
    for process in reversed(made.running):
        try:
            os.killpg(process.pid, 15)
        except ProcessLookupError:
            pass
        process.wait()


@pytest.mark.full
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_pipewire_has_a_microphone_without_noise(session):
    needs(pipewire="pipewire", wireplumber="wireplumber", pw_record="pipewire-bin", dbus_daemon="dbus-daemon")
    plugin = session.folder / "fspen_ladspa.so"
    assert COMMANDS("quant", "export", "fspen", plugin, "--for", "ladspa").returncode == 0
    config = session.folder / ".config/pipewire/pipewire.conf.d/fspen.conf"
    config.parent.mkdir(parents=True)
    text = block("A microphone without noise: PipeWire")
    config.write_text(text.replace("/home/me/fspen_ladspa.so", str(plugin)))
    assert str(plugin) in config.read_text()
    bus = session.folder / "run/bus"
    session.environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    session.start("dbus-daemon", "--session", "--nofork", f"--address=unix:path={bus}")
    waited(bus.exists)
    session.start("pipewire")
    waited((session.folder / "run/pipewire-0").exists)
    session.start("wireplumber")

    def nodes() -> dict[str, dict]:
        infos = [item["info"] for item in json.loads(session.run("pw-dump", "-N")) if item["type"].endswith(":Node")]
        return {info["props"].get("node.name"): info for info in infos}

    waited(lambda: {"fspen", "capture.fspen"} <= nodes().keys())
    found = nodes()
    assert found["fspen"]["props"]["media.class"] == "Audio/Source"
    assert found["fspen"]["props"]["node.description"] == "Microphone without noise"
    assert '"fspen:Limit (dB)", 24.0' in json.dumps(found["capture.fspen"]["params"]["Props"])
    heard = session.folder / "heard.wav"
    session.start("pw-record", "--target", "fspen", "--format", "f32", "--channels", "1", str(heard))
    waited(heard.exists)

    def sound() -> bool:
        session.run("pw-play", "--target", "capture.fspen", "noisy48k.wav")
        data = np.frombuffer(heard.read_bytes()[44:][: (heard.stat().st_size - 44) // 4 * 4], "<f4")
        return len(data) > 0 and np.nanmax(np.abs(data)) > 0.05

    waited(sound)


@pytest.mark.full
def test_pulseaudio_has_a_microphone_in_three_lines(session):
    needs(pulseaudio="pulseaudio", pactl="pulseaudio-utils", parec="pulseaudio-utils")
    session.start(
        *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-target=stderr"),
        *("-L", "module-native-protocol-unix", "-L", "module-null-sink sink_name=room", "-L", "module-always-sink"),
    )
    session.environment["PULSE_SERVER"] = f"unix:{session.folder}/run/pulse/native"
    waited((session.folder / "run/pulse/native").exists)
    session.run("pactl", "set-default-source", "room.monitor")
    first, second, live = block("A microphone without noise: PulseAudio").strip().splitlines()
    for line in (first, second):
        session.run("bash", "-c", line)
    assert "clean_microphone" in session.run("pactl", "list", "short", "sources")
    session.start("bash", "-c", live)
    session.start(
        "bash", "-c", "parec --raw --format=float32le --rate=48000 --channels=1 -d clean_microphone > heard.raw"
    )

    def sound() -> bool:
        session.run("paplay", "-d", "room", "noisy48k.wav")
        raw = (session.folder / "heard.raw").read_bytes()
        return len(raw) >= 4 and np.abs(np.frombuffer(raw[: len(raw) // 4 * 4], "<f4")).max() > 0.05

    waited(sound)


def test_the_sound_of_a_video_is_enhanced(session):
    needs(ffmpeg="ffmpeg", ffprobe="ffmpeg")
    session.run(
        *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=duration=2:size=64x48:rate=10", "-i", "noisy48k.wav"),
        *("-c:v", "mpeg4", "-c:a", "aac", "in.mp4"),
    )
    session.run("bash", "-ec", block("Video"))
    streams = session.run(
        "ffprobe", "-v", "error", "-show_entries", "stream=codec_type,codec_name", "-of", "csv=p=0", "out.mp4"
    )
    assert sorted(streams.split()) == ["aac,audio", "mpeg4,video"]
    session.run("ffmpeg", "-v", "error", "-i", "out.mp4", "-vn", "back.wav")
    noisy, clean, back = (
        audio.read_mono(str(session.folder / f"{name}.wav"))[0] for name in ("noisy", "clean", "back")
    )
    assert np.allclose(clean, setk.load("fspen").enhance(noisy, 48000, highband="gain"), atol=2 / 32768)
    n = min(len(back), len(clean))
    assert np.mean((back[:n] - clean[:n]) ** 2) < 0.1 * np.mean(clean[:n] ** 2)


def test_an_unreadable_container_names_the_line_for_videos(se, tmp_path):
    path = tmp_path / "a film.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(1000))
    done = se("enhance", "fspen", path, tmp_path / "out.wav")
    line = f"ffmpeg -i '{path}' -vn 'a film.wav'"
    assert done.returncode == 1 and line in done.err and done.err.count("\n") == 1
    assert "ffmpeg -i in.mp4 -vn" in block("Video")


@pytest.mark.full
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_the_lines_for_ffmpeg_and_sox(session):
    needs(ffmpeg="ffmpeg", sox="sox")
    assert COMMANDS("quant", "export", "fspen", session.folder / "fspen_ladspa.so", "--for", "ladspa").returncode == 0
    expected = setk.load("fspen").enhance(session.noisy, 48000, limit_db=12.0)
    late, aligned, sox = block("ffmpeg, sox").strip().splitlines()
    n = len(expected) - 48000 // 5
    for line, limit, delay in ((late, None, 2211), (aligned, 12.0, 0), (sox, 12.0, 0)):
        session.run("bash", "-ec", line.replace("ffmpeg ", "ffmpeg -y -v error "))
        found = audio.read_mono(str(session.folder / "out.wav"))[0][delay:]
        expected = setk.load("fspen").enhance(session.noisy, 48000, limit_db=limit)[:n]
        assert 10 * np.log10(np.sum(expected**2) / np.sum((found[:n] - expected) ** 2)) > 60, line
