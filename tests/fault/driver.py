"""Run cases of one kind in one process: python driver.py KIND FIRST COUNT FOLDER prints a JSON line before and after each case.

A case is a damaged input for a command or for the library. It ends well if it is accepted, or refused in one line: exit code
0, 1 or 2, no traceback, not more than LIMIT_S seconds of CPU time. The parent process notices when this one dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from commands import ROOT, Commands  # noqa: E402
import mutate  # noqa: E402

LIMIT_S = 10
UNHARMED = -1  # the number of the case whose input is not damaged, and must be accepted
MEMORY = 6 << 30
MINI = ROOT / "data" / "mini"
se = Commands()


harmed = True


def damaged(data: bytes, rng: random.Random) -> bytes:
    return mutate.damaged(data, rng) if harmed else data


def damaged_text(text: str, rng: random.Random) -> bytes:
    return mutate.damaged_text(text, rng) if harmed else text.encode()


class Slow(BaseException):
    """A case took more CPU time than it may."""


def expire(*_) -> None:
    raise Slow


def short_audio(folder: Path) -> dict[str, bytes]:
    """The same half second in several formats."""
    import numpy as np
    import soundfile

    x, rate = soundfile.read(MINI / "test" / "noisy" / "mona_0001.flac", dtype="float32", frames=8000)
    stereo = np.stack([x, x[::-1]], 1)
    for name, data, options in (
        ("pcm16.wav", x, {}),
        ("float.wav", x, {"subtype": "FLOAT"}),
        ("pcm24.wav", stereo, {"subtype": "PCM_24"}),
        ("a.flac", x, {}),
        ("a.ogg", x, {}),
        ("a.aiff", stereo, {}),
        ("rf64.wav", x, {"format": "RF64"}),
    ):
        soundfile.write(folder / name, data, rate, **options)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check(done) -> str:
    """What became of a command: "accepted", "refused", or what is wrong with its answer."""
    if done.returncode not in (0, 1, 2):
        return f"exit code {done.returncode}"
    if done.returncode == 0:
        return "accepted"
    if not done.err.strip():
        return "refused without a word"
    return "refused"


def check_output(outcome: str, source: bytes, output: Path) -> str:
    """`outcome`; if that is "accepted", whether the output has the rate, the channels and every sample of what was read."""
    if outcome != "accepted":
        return outcome
    import io

    import numpy as np
    import soundfile
    from setk.audio import decode

    info, blocks = decode.decode(io.BytesIO(source), "the input", 1 << 16, pipe=True)
    expected = (info.rate, info.channels, sum(block.shape[1] for block in blocks))
    y, rate = soundfile.read(output, dtype="float32", always_2d=True)
    found = (rate, y.shape[1], len(y))
    if found != expected:
        return f"silently wrong: (rate, channels, samples) {found}, not {expected}"
    return outcome if np.isfinite(y).all() else "silently wrong: not finite"


def audio(rng: random.Random, folder: Path) -> str:
    """A damaged recording through the filter, as a file and as a pipe."""
    name, data = rng.choice(sorted(AUDIO.items()))
    broken = damaged(data, rng)
    if rng.random() < 0.3:
        done = se("enhance", "fspen", "-", "-", input=broken)
        (folder / "out.wav").write_bytes(done.stdout)
    else:
        path = folder / f"in{Path(name).suffix}"
        path.write_bytes(broken)
        done = se("enhance", "fspen", path, folder / "out.wav")
    return check_output(check(done), broken, folder / "out.wav")


def lists(rng: random.Random, folder: Path) -> str:
    """A damaged wav list through the scorer."""
    text = "".join((MINI / "test" / "noisy.scp").read_text().splitlines(keepends=True)[:3])
    (folder / "a.scp").write_bytes(damaged_text(text, rng))
    (folder / "b.scp").write_text(text)
    ref, est = rng.choice((("a.scp", "b.scp"), ("b.scp", "a.scp")))
    return check(se("score", "--ref", folder / ref, folder / est, "--metrics", "si_sdr"))


def configs(rng: random.Random, folder: Path) -> str:
    """A damaged training configuration."""
    text = rng.choice(sorted((ROOT / "setk" / "configs").glob("*.yaml"))).read_text()
    (folder / "a.yaml").write_bytes(damaged_text(text, rng))
    return load(lambda: read_config(folder / "a.yaml"))


def read_config(path: Path) -> None:
    """What se-train does with a configuration before it reads audio."""
    from setk import models
    from setk.training import settings

    resolved = settings.resolve(str(path))
    models.build(resolved.model, resolved.config)


def load(call: Callable[[], object]) -> str:
    """What became of a call of the library."""
    from setk.core.errors import UserError

    try:
        call()
    except UserError as e:
        return "refused" if str(e).strip() else "refused without a word"
    return "accepted"


def tables(rng: random.Random, folder: Path) -> str:
    """Damaged score tables through the comparison."""
    good = [["utt", "pesq_wb", "stoi", "error"], *([f"u{i}", f"{1 + i / 10}", f"0.{i}", ""] for i in range(9))]
    plain = "\n".join(map("\t".join, good)) + "\n"
    if rng.random() < 0.5:
        text = damaged_text(plain.replace("\t", " "), rng).replace(b" ", b"\t")  # words of a line are its cells
    else:
        text = mutate.table_text(mutate.damaged_table(good, rng), rng) if harmed else plain.encode()
    (folder / "a.tsv").write_bytes(text)
    (folder / "b.tsv").write_text(plain)
    return check(se("score", "--compare", folder / "a.tsv", folder / "b.tsv"))


def shards(rng: random.Random, folder: Path) -> str:
    """A damaged HDF5 file."""
    for name, data in SHARDS.items():
        (folder / name).write_bytes(damaged(data, rng) if name.endswith(".h5") else data)
    return load(lambda: read_shards(folder))


def read_shards(folder: Path) -> None:
    """Every utterance of a folder of shards."""
    from setk.data.shards import Shards

    pairs = Shards(folder, "pairs")
    for i, length in enumerate(pairs.lengths):
        pairs.read(i, 0, int(length))


def checkpoints(rng: random.Random, folder: Path) -> str:
    """A damaged checkpoint."""
    (folder / "a.pt").write_bytes(damaged(CHECKPOINT, rng))
    return check(se("count", folder / "a.pt"))


def onnx(rng: random.Random, folder: Path) -> str:
    """A damaged ONNX file."""
    (folder / "a.onnx").write_bytes(damaged(ONNX, rng))
    (folder / "in.wav").write_bytes(AUDIO["pcm16.wav"])
    done = se("enhance", folder / "a.onnx", folder / "in.wav", folder / "out.wav")
    return check_output(check(done), AUDIO["pcm16.wav"], folder / "out.wav")


KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "audio": audio,
    "lists": lists,
    "configs": configs,
    "tables": tables,
    "shards": shards,
    "checkpoints": checkpoints,
    "onnx": onnx,
}


def main(kind: str, first: int, count: int, folder: Path) -> None:
    global AUDIO, SHARDS, CHECKPOINT, ONNX, harmed
    (folder / "audio").mkdir(exist_ok=True)
    AUDIO = short_audio(folder / "audio")
    if kind == "shards":
        se("prep", "shards", MINI / "valid", folder / "shards")
        SHARDS = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    CHECKPOINT = (ROOT / "setk" / "pretrained" / "fspen.pt").read_bytes()
    ONNX = (ROOT / "setk" / "pretrained" / "fspen.onnx").read_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, expire)
    report = os.fdopen(os.dup(1), "w", buffering=1)
    for number in range(first, first + count):
        print(json.dumps({"case": number}), file=report)
        harmed = number != UNHARMED
        rng = random.Random(f"{kind} {number}")
        place = folder / str(number)
        place.mkdir()
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            outcome = KINDS[kind](rng, place)
        except AssertionError as e:
            outcome = f"traceback: {str(e).strip().splitlines()[-1][:300] if str(e).strip() else 'assertion'}"
        except Slow:
            outcome = f"more than {LIMIT_S} s"
        except Exception as e:  # noqa: BLE001  what a command lets through is what this looks for
            outcome = f"{type(e).__name__}: {e}"[:300]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"case": number, "outcome": outcome}), file=report)
        if outcome in ("accepted", "refused"):
            with contextlib.suppress(OSError):
                for path in sorted(place.rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
