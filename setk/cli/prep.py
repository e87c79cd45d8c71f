"""se-prep: corpora to data directories and shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.cli import checks, corpora, shell
from setk.cli.corpora import Jobs, Out, Resampler, add_all

app = shell.new_app(
    """
se-prep list recordings/ > recordings.scp
se-prep sources --speech speech.scp --noise noise.scp data/train
se-prep pairs noisy/ clean/ data/valid
se-prep check data/train data/valid
se-prep shards data/train shards/train
""",
    no_args_is_help=True,
    help="Prepare data: wav lists, data directories, mixtures, shards, corpora.",
)
for command, examples in {**corpora.COMMANDS, **checks.COMMANDS}.items():
    shell.command(app, examples=examples)(command)

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")]
Wavs = Annotated[
    list[Path], shell.option(group=shell.INPUT, metavar="LIST", help="Wav list or folder; may be repeated.")
]
Rirs = Annotated[
    list[Path],
    typer.Option(
        rich_help_panel=shell.INPUT,
        metavar="LIST",
        help="Wav list or folder of room impulse responses; may be repeated.",
    ),
]
Rate = Annotated[int, shell.option(group=shell.OUTPUT, metavar="HZ", help="Sample rate.")]


@shell.command(app, "list", examples="se-prep list recordings/ > recordings.scp")
def list_(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of audio files, or a wav list.")],
):
    """Print the wav list of a folder: utt-id and path of each audio file.

    The id is the path within the folder without its suffix, with '-' for '/' and '_' for white space. Files of these kinds are
    listed: wav, wave, flac, ogg, oga, opus, mp3, aiff, aif, aifc, au, caf, rf64, w64.
    """
    from setk.data.index import IndexedList
    from setk.data.lists import Faults, format_list

    failures = shell.Failures("se-prep")
    faults: Faults = []
    table = IndexedList(place, faults)
    for line in format_list(table.locations()):
        print(line, end="")
    add_all(failures, faults)
    failures.finish(len(table))


@shell.command(app, examples="se-prep pairs noisy/ clean/ data/mine")
def pairs(
    noisy: Annotated[Path, typer.Argument(help="Folder (matched by relative path without suffix) or wav list.")],
    clean: Annotated[Path, typer.Argument(help="The same for clean speech.")],
    out: Out,
    jobs: Jobs = 1,
    max_fail: shell.MaxFail = 0,
    allow_commands: shell.AllowCommands = False,
):
    """Write a data directory of two folders or two lists, noisy and clean."""
    from setk.data.pairs import pairs as write_pairs

    failures = shell.Failures("se-prep", max_fail)
    count, faults = write_pairs(noisy, clean, out, allow_commands, jobs)
    add_all(failures, faults)
    failures.finish(count)


# fmt: off
@shell.command(
    app,
    examples="""
se-prep mix --speech speech.scp --noise noise.scp --snr 0:20 data/mixed
se-prep mix --speech speech.scp --noise noise.scp --snr 0,5,10 --rir rooms.scp --level -35:-15 data/mixed --jobs 4
""",
)
def mix(
    out: Out,
    speech: Wavs,
    noise: Wavs,
    snr: Annotated[str, shell.option(group=shell.OUTPUT, metavar="LO:HI|A,B,...", help="SNR in dB: a range, or values to choose from.")],
    rir: Annotated[list[Path], shell.option(group=shell.INPUT, metavar="LIST", help="Room impulse responses; the target is their early part (50 ms).")] = [],
    level: Annotated[Optional[str], shell.option(group=shell.OUTPUT, metavar="LO:HI|A,B,...", help="RMS level of the mixture, dB re full scale.")] = None,
    active_level: Annotated[bool, shell.option("--active-level", group=shell.OUTPUT, help="Speech level by ITU-T P.56: without pauses.")] = False,
    utt2spk: Annotated[Optional[Path], shell.option(group=shell.INPUT, metavar="TABLE", help="Speakers of the speech list, to be copied to OUT.")] = None,
    seed: Annotated[int, shell.option(group=shell.ADVANCED, help="Seed; each mixture depends on it and on its utterance id.")] = 0,
    rate: Rate = 16000,
    jobs: Jobs = 1,
    part: shell.Part = None,
    max_fail: shell.MaxFail = 0,
    allow_commands: shell.AllowCommands = False,
):
    # fmt: on
    """Mix each utterance of a speech list with a noise: OUT/{noisy,clean}/*.wav, their lists, and mix.tsv."""
    from setk.data import mixtures
    from setk.data.index import IndexedList
    from setk.data.mixing import Spread

    lists = map(IndexedList.merged, (speech, noise, rir))
    plan = mixtures.Plan(
        out,
        *lists,
        Spread.parse(snr, "--snr"),  # type: ignore[call-arg]
        Spread.parse(level, "--level", highest=0.0) if level else None,
        active_level,
        seed,
        rate,
        allow_commands,
    )
    failures, done, faint = shell.Failures("se-prep", max_fail), 0, 0
    total = len(plan.speech) if part is None else None
    speakers = IndexedList(utt2spk) if utt2spk else None
    for row in shell.progress(mixtures.write_mixtures(plan, speakers, part, jobs), total, "mix"):
        done += not row.error
        faint += row.is_faint
        if row.error:
            failures.add(row.utt, row.error)
    if faint:
        shell.note(
            f"se-prep: {out}: {faint} mixtures have speech or noise below {mixtures.FAINT_DB:g} dBFS, whose SNR 16 bits change by more "
            "than 0.1 dB; raise --level"
        )
    if not mixtures.is_complete(plan):
        shell.note(f"se-prep: {out}: the lists will be written by the job that makes the last mixture")
    failures.finish(done)


# fmt: off
@shell.command(app, examples="se-prep sources --speech speech.scp --noise noise.scp data/train")
def sources(
    out: Out,
    speech: Wavs,
    noise: Wavs,
    rir: Rirs = [],
    utt2spk: Annotated[Optional[Path], shell.option(group=shell.INPUT, metavar="TABLE", help="Speakers of the speech list.")] = None,
    noise2kind: Annotated[Optional[Path], shell.option(group=shell.INPUT, metavar="TABLE", help="Kinds of the noise list; se-train then draws a kind before a noise.")] = None,
):
    # fmt: on
    """Write a data directory of speech and noise lists, which se-train mixes during training."""
    from setk.data.datadir import write_sources

    counts = write_sources(out, speech, noise, rir, utt2spk, noise2kind)
    shell.note(f"se-prep: {out}: " + ", ".join(f"{count} lines in {name}" for name, count in counts.items()))


# fmt: off
@shell.command(
    app,
    examples="""
se-prep shards data/mine shards/mine
se-prep shards data/mine shards/stft --feature stft --window 512 --hop 256
""",
)
def shards(
    directory: Dir,
    out: Out,
    feature: Annotated[str, shell.option(group=shell.OUTPUT, help="pcm (int16), stft (compressed complex, float16), or logmel (float16).")] = "pcm",
    window: Annotated[Optional[int], shell.option(group=shell.OUTPUT, metavar="SAMPLES", help="Window of stft and logmel, in samples.  [default: 512]")] = None,
    hop: Annotated[Optional[int], shell.option(group=shell.OUTPUT, metavar="SAMPLES", help="Hop of stft and logmel, in samples.  [default: 256]")] = None,
    bands: Annotated[Optional[int], shell.option(group=shell.OUTPUT, help="Mel bands of logmel.  [default: 80]")] = None,
    shard_size: Annotated[int, shell.option(group=shell.OUTPUT, help="Utterances per shard.")] = 1000,
    rate: Rate = 16000,
    resampler: Annotated[Optional[str], shell.option(group=shell.ADVANCED, help="Convert wavs at other rates: soxr, or resampy.")] = None,
    jobs: Jobs = 1,
    part: shell.Part = None,
    allow_commands: shell.AllowCommands = False,
):
    # fmt: on
    """Write a data directory as HDF5 shards. Complete and current shards are kept."""
    from setk.data import features
    from setk.data import shards as library
    from setk.data.datadir import DataDir

    failures = shell.Failures("se-prep")
    utterances, seconds, states, clipped = 0, 0.0, [], 0
    made = features.make(feature, rate, window=window, hop=hop, bands=bands)
    data = DataDir(directory, allow_commands)
    for done in library.write_shards(data, out, shard_size, part, jobs, rate, made, resampler):
        add_all(failures, done.faults)
        states.append(done.state)
        shell.note(f"se-prep: {done.path}: {done.state}")
        if done.state != "failed":
            utterances, seconds, clipped = utterances + done.utterances, seconds + done.seconds, clipped + done.clipped
    if clipped:
        shell.note(f"se-prep: {clipped} samples clipped to 16 bits")
    complete = library.names(out)
    missing = [name for name in library.sets_of(data) if name not in complete]
    state = f"not complete yet: {', '.join(missing)}" if missing else "the set is complete"
    shell.note(
        f"se-prep: {states.count('made')} shards made, {states.count('kept')} kept, {states.count('failed')} failed; "
        f"{seconds / 3600:.2f} h; {state}"
    )
    failures.finish(utterances)


# fmt: off
@shell.command(app, examples="se-prep split data/mine 8")
def split(
    directory: Dir,
    parts: Annotated[int, typer.Argument(metavar="N", help="Number of parts.")],
    by_speaker: Annotated[bool, typer.Option("--by-speaker", help="Keep a speaker's utterances (utt2spk) together.")] = False,
    allow_commands: shell.AllowCommands = False,
):
    # fmt: on
    """Split a data directory into DIR/splitN/1 ... N of about equal duration; their paths go to stdout."""
    from setk.data.datadir import DataDir
    from setk.data.split import split as write_parts

    for path, utterances, seconds in write_parts(DataDir(directory, allow_commands), parts, by_speaker):
        print(path)
        shell.note(f"se-prep: {path}: {utterances} utterances, {seconds / 3600:.2f} h")


# fmt: off
@shell.command(app, examples="se-prep resample originals/ wav16k --rate 16000 > wav16k.scp")
def resample(
    wavs: Annotated[Path, typer.Argument(metavar="LIST", help="Wav list or folder; - is standard input.")],
    out: Out,
    rate: Rate = 16000,
    resampler: Resampler = "soxr",
    channel: Annotated[Optional[int], shell.option(group=shell.INPUT, min=1, help="Keep this channel of files with several.")] = None,
    jobs: Jobs = 1,
    part: shell.Part = None,
    max_fail: shell.MaxFail = 0,
    allow_commands: shell.AllowCommands = False,
):
    # fmt: on
    """Convert wavs to OUT/<utt>.wav, and print their list. Files that are mono at the rate are not copied."""
    from setk.data.convert import convert_all
    from setk.data.lists import open_wavs, take_part

    failures, done, clipped = shell.Failures("se-prep", max_fail), 0, 0
    table = take_part(open_wavs(wavs, allow_commands), part)
    for wav in shell.progress(convert_all(table, out, rate, resampler, channel, jobs, part), None, "resample"):
        if wav.error:
            failures.add(wav.utt, wav.error)
            continue
        print(wav.utt, wav.path, flush=True)
        done, clipped = done + 1, clipped + wav.clipped
    if clipped:
        shell.note(f"se-prep: {clipped} samples clipped in resampling")
    failures.finish(done)


def main():
    shell.run(app, "se-prep")


if __name__ == "__main__":
    main()
