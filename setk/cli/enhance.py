"""se-enhance: enhance a file, a list, or a pipe by any model."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterable, Optional

from setk.cli import shell
from setk.core.errors import AudioError, UserError

if TYPE_CHECKING:
    from setk.audio import Location
    from setk.engines.output import Output

app = shell.new_app()
LISTS = ("out", "suffix", "jobs", "batch", "part", "max_fail", "allow_commands")  # options that apply only with --list
RAW = ("raw", "rate", "channels", "live", "report", "html", "strict")  # and those only without it
PLAIN = shell.Plain(("model", "source", "target"), flags=("raw", "live", "force", "strict"))
KEEP_BAND = "--highband gain keeps the upper band of the input"
EXAMPLES = """
se-enhance fspen noisy.wav enhanced.wav                  # one file
arecord -t raw -f S16_LE -r 16000 | se-enhance fspen - - --raw --live | aplay -t raw -f S16_LE -r 16000
sox in.mp3 -t wav - | se-enhance fspen - - > out.wav     # a pipe
se-enhance fspen --list noisy.scp --out enhanced | se-score --ref clean.scp -
se-enhance exp/mine/best.pt --list noisy.scp --out enhanced --jobs 4
se-enhance --list-models
"""


# fmt: off
@shell.command(app, examples=EXAMPLES, plain=PLAIN)
def enhance(
    ctx: shell.Context,
    model: Annotated[str, shell.argument(metavar="MODEL", help="A checkpoint, a file of se-quant export, or an included model (--list-models).")] = "",
    source: Annotated[Optional[str], shell.argument(metavar="NOISY", help="Audio file; - is standard input.")] = None,
    target: Annotated[Optional[str], shell.argument(metavar="OUT", help="Audio file to write; - is standard output.")] = None,
    list_: Annotated[Optional[str], shell.option("--list", group=shell.INPUT, metavar="LIST", help="Wav list to enhance; - is standard input.")] = None,
    out: Annotated[Optional[Path], shell.option(group=shell.OUTPUT, metavar="DIR", help="With --list: directory of the enhanced files.")] = None,
    chunk: Annotated[Optional[float], shell.option(group=shell.ADVANCED, metavar="SECONDS", help="Seconds that the model processes at a time (default: one hop for -, 10 for files or what suits the model).")] = None,
    limit: Annotated[Optional[float], shell.option(group=shell.OUTPUT, metavar="DB", min=0, help="Reduce noise by at most this much: mix the input into the output, DB below its level.")] = None,
    raw: Annotated[bool, shell.option("--raw", group=shell.INPUT, help="Pipes carry headerless s16le, not wav.")] = False,
    rate: Annotated[Optional[int], shell.option(group=shell.INPUT, metavar="HZ", help="With --raw on standard input: samples per second (default: the model's).")] = None,
    channels: Annotated[int, shell.option(group=shell.INPUT, help="With --raw on standard input: channels.", min=1)] = 1,
    live: Annotated[bool, shell.option("--live", group=shell.INPUT, help="Standard input is a microphone: drop audio that waits, at start and after a stall. Show levels on a terminal.")] = False,
    highband: Annotated[str, shell.option(group=shell.OUTPUT, metavar="none|gain", help="The band above the model's in an input of a higher rate: leave it out, or scale it by the gain of the model's top bands.")] = "none",
    report: Annotated[Optional[str], shell.option(group=shell.OUTPUT, metavar="FILE.tsv", help="Write levels, estimated SNR, noise reduction and speech activity per 100 ms; - is standard output.")] = None,
    html: Annotated[Optional[Path], shell.option(group=shell.OUTPUT, metavar="FILE", help="Write a page to compare before and after: spectrograms, a player that switches, noise reduction.")] = None,
    subtype: Annotated[str, shell.option(group=shell.OUTPUT, metavar="TYPE", help="PCM_16, PCM_24, PCM_32 or FLOAT, for files.")] = "PCM_16",
    suffix: Annotated[str, shell.option(group=shell.OUTPUT, metavar=".EXT", help="With --list: format of the files.")] = ".wav",
    jobs: Annotated[int, shell.option(group=shell.PARALLEL, min=1, help="With --list: processes.")] = 1,
    batch: Annotated[int, shell.option(group=shell.PARALLEL, min=1, help="With --list: mono signals that advance in one call of the model; they may be live pipes.")] = 1,
    force: Annotated[bool, shell.option("--force", group=shell.OUTPUT, help="Overwrite the input where OUT is the same file, and with --list also files in DIR that are not of setk.")] = False,
    strict: Annotated[bool, shell.option("--strict", group=shell.INPUT, help="Fail on a pipe that ends less than a second before its stated length, or states none (default: a remark).")] = False,
    set_: shell.Set = [],
    part: shell.Part = None,
    max_fail: shell.MaxFail = 0,
    allow_commands: shell.AllowCommands = False,
    stft: shell.Stft = None,
    trust: shell.Trust = False,
    list_models: Annotated[bool, shell.option("--list-models", group=shell.GENERAL, help="List the included models and exit.")] = False,
    as_json: shell.Json = False,
) -> None:
    # fmt: on
    """Enhance NOISY to OUT, or each utterance of a list to a directory.

    Length, rate, channels and level of the output are the input's. `- -` is a live filter. With --list, the
    line `utt path` of each file goes to stdout when the file is complete; files that an earlier run with the
    same model made of the same inputs are kept.
    """
    if list_models:
        shell.only(ctx, "with --list-models", "list_models", "as_json")
        from setk import pretrained

        return shell.print_rows(pretrained.rows(), as_json)
    shell.only(ctx, "without --list-models", *(set(ctx.params) - {"as_json"}))
    if not model:
        raise UserError("MODEL is missing; se-enhance --list-models lists the included ones")
    if list_ is not None:
        shell.refuse(ctx, "with --list", "source", "target", *RAW)
        if out is None:
            raise UserError("--list needs --out DIR")
        from setk.data import lists

        entries = lists.take_part(lists.open_wavs(list_, allow_commands), part)
        if list_ == "-" or jobs > 1:
            entries = ((utt, location.shared()) for utt, location in entries)
        return _enhance_list(
            model,
            entries,
            shell.list_length(list_, part),
            out,
            max_fail,
            chunk=chunk,
            subtype=subtype,
            suffix=suffix,
            jobs=jobs,
            batch=batch,
            trust=trust,
            settings=set_,
            stft=stft,
            output=_output(limit, highband),
            force=force,
            part=part,
        )
    if source is None or target is None:
        raise UserError("write 'se-enhance MODEL noisy.wav out.wav', '- -' for a pipe, or --list LIST --out DIR")
    shell.refuse(ctx, "without --list", *LISTS)
    if source != "-" and os.path.isdir(source):
        raise UserError(f"{source}: is a folder; --list {source} --out DIR enhances the audio files in it")
    if raw and "-" not in (source, target):
        raise UserError("--raw is for pipes; neither NOISY nor OUT is -")
    if not raw or source != "-":
        shell.refuse(ctx, "without --raw on standard input", "rate", "channels")
    if live and source != "-":
        raise UserError("--live is for standard input; NOISY must be -")
    if report == target == "-":
        raise UserError("the audio and --report cannot both be standard output; write one to a file")
    from setk.engines.files import Raw

    _enhance_one(
        model,
        source,
        target,
        trust,
        set_,
        stft,
        live,
        report,
        html,
        chunk=chunk,
        subtype=subtype,
        raw=Raw(rate, channels) if raw else None,
        output=_output(limit, highband),
        force=force,
        strict=strict,
    )


def _enhance_one(
    model: str,
    source: str,
    target: str,
    trust: bool,
    settings: list[str],
    stft: str | None,
    live: bool,
    report: str | None,
    html: Path | None,
    **options: Any,
) -> None:
    from setk import engines
    from setk.cli import activity
    from setk.cli.meter import FileProgress, LevelMeter
    from setk.core.files import check_distinct, check_name
    from setk.engines import files

    check_distinct({"OUT": target, "--report": report, "--html": html}, [])
    check_distinct({"--report": report, "--html": html}, [source, model])
    for page in filter(None, (report, html)):
        check_name(page)
    engine = engines.open(model, trust=trust, settings=settings, stft=stft)
    meter: LevelMeter | FileProgress | None = None
    if source != "-":
        meter = FileProgress()
    elif live and sys.stderr.isatty() and not shell.quiet:
        meter = LevelMeter()
    observers: list[Any] = [meter] if meter else []
    if html:
        from setk.scoring.report.recording import Recorder

        recorder = Recorder()
        observers.append(recorder)
    with contextlib.ExitStack() as finish:
        if meter:
            finish.callback(meter.finish)
        if report:
            observers.append(finish.enter_context(activity.write_report(report)))
        done = files.enhance_file(
            engine, source, target, observers=observers, on_drop=_FirstDrop() if live else None, **options
        )
    if html and not done.seconds:
        raise AudioError(f"{source}: has no samples, so there is nothing to show; {html} was not written")
    if html:
        from setk.core import provenance

        recorder.write(html, {"input": source, "output": target, "model": engine.name, **provenance.stamp("numpy")})
    factor = done.cpu_seconds / done.seconds if done.seconds else 0.0
    latency = f", algorithmic latency {done.latency_ms:.1f} ms" if source == "-" else ""
    dropped = f", {done.dropped_seconds:.3f} s dropped" if live else ""
    shell.note(
        f"se-enhance: {done.seconds:.2f} s by {engine.name}, real-time factor {factor:.3f}, "
        f"{done.clipped} samples clipped{latency}{dropped}"
    )
    if done.lost_above_hz:
        shell.note(
            f"se-enhance: the output has nothing above {done.lost_above_hz} Hz, the band of {engine.name}; {KEEP_BAND}"
        )


class _FirstDrop:
    """Reports the first drop of a live source; the last line of the command has the sum of all."""

    reported = False

    def __call__(self, seconds: float) -> None:
        if not self.reported:
            shell.note(f"se-enhance: dropped {seconds:.3f} s of audio that waited")
            self.reported = True


def _output(limit: float | None, highband: str) -> Output:
    from setk.engines import output

    return output.Output(limit, highband).check()


def _enhance_list(
    model: str, entries: Iterable[tuple[str, Location]], total: int | None, out: Path, max_fail: int, **options
) -> None:
    from setk.engines import files

    failures, done, kept, clipped, lost = shell.Failures("se-enhance", max_fail), 0, 0, 0, []
    results = files.enhance_list(model, entries, out, **options)
    for result in shell.progress(results, total, "se-enhance"):
        if result.error:
            failures.add(result.utt, result.error)
            continue
        done += 1
        kept += result.kept
        clipped += result.clipped
        lost += [result.lost_above_hz] if result.lost_above_hz else []
        print(f"{result.utt} {result.path}", flush=True)
    if kept:
        shell.note(f"se-enhance: {kept} of {done} kept from an earlier run")
    if clipped:
        shell.note(f"se-enhance: {clipped} samples clipped")
    if lost:
        shell.note(f"se-enhance: {len(lost)} of {done} outputs have nothing above {lost[0]} Hz; {KEEP_BAND}")
    failures.finish(done)


def main() -> None:
    shell.run(app, "se-enhance")


if __name__ == "__main__":
    main()
