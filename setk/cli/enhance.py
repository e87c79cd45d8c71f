"""se-enhance: a file, a list, or a pipe, enhanced by any model."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Iterator, Optional

import typer

from setk.cli import shell
from setk.core.errors import AudioError, UserError

if TYPE_CHECKING:
    from setk.audio import Location

app = shell.new_app()


@app.command()
def enhance(
    model: Annotated[str, typer.Argument(help="A checkpoint, or the name of a model that ships (--list-models).")] = "",
    source: Annotated[Optional[str], typer.Argument(metavar="NOISY", help="Audio file; - is standard input.")] = None,
    target: Annotated[Optional[str], typer.Argument(metavar="OUT", help="Audio file to write; - is standard output.")] = None,
    list_: Annotated[Optional[str], typer.Option("--list", help="Wav list to enhance; - is standard input.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="With --list: directory of the enhanced files.")] = None,
    chunk: Annotated[Optional[float], typer.Option(help="Seconds that the model takes at a time: default one hop for -, 10 for files or what suits it.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Pipes carry headerless s16le, not wav.")] = False,
    rate: Annotated[Optional[int], typer.Option(help="With --raw: samples per second (default: the model's).")] = None,
    channels: Annotated[int, typer.Option(help="With --raw: channels.", min=1)] = 1,
    subtype: Annotated[str, typer.Option(help="PCM_16, PCM_24, PCM_32 or FLOAT, for files.")] = "PCM_16",
    suffix: Annotated[str, typer.Option(help="With --list: format of the files.")] = ".wav",
    jobs: Annotated[int, typer.Option(min=1, help="With --list: processes.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="With --list: mono signals that advance in one call of the model; they may be live pipes.")] = 1,
    shard: Annotated[Optional[str], typer.Option(metavar="K/N", help="With --list: every N-th utterance from the K-th.")] = None,
    max_fail: Annotated[int, typer.Option(help="With --list: failed utterances that still count as success.")] = 0,
    allow_commands: Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|'.")] = False,
    list_models: Annotated[bool, typer.Option("--list-models", help="Tell which models ship, and end.")] = False,
) -> None:
    """Enhance NOISY to OUT, or each utterance of a list to a directory.

    Length, rate, channels and level of the output are the input's. `- -` is a filter that gives audio as it
    comes. With --list, each file's line `utt path` goes to stdout when the file is whole; files that an
    earlier run with the same model made are kept.
    """
    if list_models:
        return _list_models()
    if not model:
        raise UserError("MODEL is missing; se-enhance --list-models tells what ships")
    if list_ is not None:
        if source is not None or out is None:
            raise UserError("--list wants --out DIR and no file arguments")
        if raw:
            raise UserError("--raw is for pipes; a list names files that have headers")
        return _enhance_list(model, list_, out, chunk, subtype, suffix, jobs, batch, shard, max_fail, allow_commands)
    if source is None or target is None or out is not None:
        raise UserError("write 'se-enhance MODEL noisy.wav out.wav', '- -' for a pipe, or --list LIST --out DIR")
    _enhance_one(model, source, target, chunk, subtype, raw, rate, channels)


def _list_models() -> None:
    from setk import pretrained

    index = pretrained.index()
    for name, path in pretrained.shipped().items():
        about = index[name]
        scores = " ".join(f"{k}={v:.3f}" for k, v in about["scores"].get("test", {}).items())
        typer.echo(f"{name}\t{about['model']}\t{path.stat().st_size}\t{scores}")


def _seconds(engine, seconds: float | None, live: bool) -> float:
    """Seconds that the model takes at a time."""
    if seconds is not None:
        return seconds
    if live and not engine.causal:
        raise UserError(f"{engine.name} is not causal: it wants the whole signal. For a pipe choose how long to wait with "
                        f"--chunk SECONDS (for files it is {engine.chunk_s:g}), or take a causal model")
    return 0.0 if live else engine.chunk_s


def _transfer(stream, info, blocks, target: str, subtype: str, raw: bool = False) -> tuple[int, int]:
    """Enhance blocks into `target`; samples per channel, and samples clipped.

    Audio on standard output stays valid, and is whole as far as it goes, if the input dies in the middle; then
    the AudioError of the input is raised after what was there is enhanced.
    """
    from setk import audio

    broken = None
    samples = 0
    with audio.Writer(target, info.rate, info.channels, subtype, raw) as writer:
        try:
            for block in blocks:
                samples += block.shape[1]
                writer.write(stream.push(block))
        except AudioError as e:
            if target != "-":
                raise
            broken = e
        writer.write(stream.flush())
    if broken:
        raise broken
    return samples, writer.clipped


def _enhance_one(model: str, source: str, target: str, chunk: float | None, subtype: str, raw: bool, rate: int | None,
                 channels: int) -> None:
    import sys

    from setk import audio, engines

    if raw and "-" not in (source, target):
        raise UserError("--raw is for pipes; neither NOISY nor OUT is -")
    engine = engines.open_engine(model)
    live = source == "-"
    at_a_time = _seconds(engine, chunk, live)
    if live and raw:
        info = audio.Info(rate or engine.sample_rate, channels, None)
        blocks = audio.raw_blocks(sys.stdin.buffer, channels, 1 << 14)
    else:
        info, blocks = audio.open_blocks(source, 1 << 14)
    start = time.process_time()
    stream = engines.open_stream(engine, info.rate, info.channels, at_a_time)
    samples, clipped = _transfer(stream, info, blocks, target, subtype, raw)
    seconds = samples / info.rate
    factor = (time.process_time() - start) / seconds if samples else 0.0
    shell.say(f"se-enhance: {seconds:.2f} s by {engine.name}, real-time factor {factor:.3f}, {clipped} samples clipped"
              + (f", algorithmic latency {stream.latency_ms:.1f} ms" if live else ""))


_engine = None  # of this process; workers load the model once


def _load(model: str) -> None:
    global _engine
    from setk import engines

    _engine = engines.open_engine(model)


def _enhance_utterance(item: tuple) -> tuple[str, str, str | None, int]:
    """(utt, output path, reason if it failed, clipped samples) of one list entry."""
    utt, location, path, chunk, subtype = item
    from setk import engines

    try:
        if _is_current(location, path):
            return utt, path, None, 0
        info, blocks = location.open(1 << 16)
        stream = engines.open_stream(_engine, info.rate, info.channels, _seconds(_engine, chunk, False))
        _, clipped = _transfer(stream, info, blocks, path, subtype)
    except AudioError as e:
        return utt, path, str(e), 0
    return utt, path, None, clipped


def _together(items: Iterator[tuple], batch: int, chunk: float | None, subtype: str) -> Iterator[tuple[str, str, str | None, int]]:
    """Results of list entries as they end, `batch` of them advancing at a time."""
    from setk.cli.streams import enhance_together
    from setk.engines import frames_in

    kept: list[tuple[str, str]] = []

    def to_do() -> Iterator[tuple[str, Location, str]]:
        for utt, location, path, *_ in items:
            if _is_current(location, path):
                kept.append((utt, path))
            else:
                yield utt, location, path

    yield from enhance_together(_engine, batch, frames_in(_engine, _seconds(_engine, chunk, True)), to_do(), subtype)
    for utt, path in kept:
        yield utt, path, None, 0


def _is_current(location: Location, path: str) -> bool:
    """Whether an earlier run made `path` of the file at `location` as it is now."""
    return os.path.isfile(path) and location.changed_ns() <= os.stat(path).st_mtime_ns


def _enhance_list(model: str, list_: str, out: Path, chunk: float | None, subtype: str, suffix: str, jobs: int, batch: int,
                  shard: str | None, max_fail: int, allow: bool) -> None:
    from setk.core import pool, provenance
    from setk.data import lists

    if jobs > 1 and batch > 1:
        raise UserError("--jobs and --batch do not go together; --shard divides a list among several commands")
    _load(model)
    if batch > 1 and not _engine.causal:
        raise UserError(f"{_engine.name} is not causal and takes one signal at a time; --jobs runs several")
    settings = {"model": _engine.name, "model sha256": _engine.sha256, "subtype": subtype, "chunk": chunk, "suffix": suffix}
    provenance.claim_dir(out, settings, "torch", "numpy", "soxr")
    failures = shell.Failures("se-enhance", max_fail)

    def items() -> Iterator[tuple]:
        for utt, location in lists.take_part(lists.open_wavs(list_, allow), shard):
            yield utt, location, str(out / f"{utt}{suffix}"), chunk, subtype

    done = clipped = 0
    if batch > 1:
        results = _together(items(), batch, chunk, subtype)
    else:
        results = pool.ordered_map(_enhance_utterance, items(), jobs, _load if jobs > 1 else None, (model,) if jobs > 1 else ())
    for utt, path, reason, clips in shell.progress(results, None, "se-enhance"):
        if reason:
            failures.add(utt, reason)
            continue
        done += 1
        clipped += clips
        print(f"{utt} {path}", flush=True)
    if clipped:
        shell.say(f"se-enhance: {clipped} samples clipped")
    failures.finish(done)


def main() -> None:
    shell.run(app, "se-enhance")


if __name__ == "__main__":
    main()
