"""se-prep: corpora to data directories and shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

app = shell.new_app(no_args_is_help=True, help="Prepare data: corpora and lists to data directories, data directories to shards.")

Out = Annotated[Path, typer.Argument(help="Folder to write.")]
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")]
Dirs = Annotated[list[Path], typer.Argument(metavar="DIR", help="Data directory; may be several.")]
Jobs = Annotated[int, typer.Option(help="Worker processes; the result does not depend on it.")]
Shard = Annotated[Optional[str], typer.Option(metavar="K/N", help="Do every N-th item from the K-th on, for array jobs.")]
ShardOfMaking = Annotated[Optional[str], typer.Option(metavar="K/N", help="Only make every N-th wav from the K-th on, for array "
                                                      "jobs; a run without it then writes the lists.")]
Rate = Annotated[int, typer.Option(help="Sample rate in Hz.")]
WantedRate = Annotated[int, typer.Option(help="Sample rate that every wav must have in Hz; 0 takes any.")]
MaxFail = Annotated[int, typer.Option(help="Exit 0 with up to this many failures.")]
Resampler = Annotated[str, typer.Option(help="soxr, or resampy (kaiser_best; some 80 times slower).")]
AllowCommands = Annotated[bool, typer.Option("--allow-commands", help="Run list entries that end in '|' as shell commands.")]
Lists = Annotated[list[Path], typer.Option(metavar="LIST", help="Wav list; may be given again.")]


@app.command()
def pairs(
    noisy: Annotated[Path, typer.Argument(help="Folder (matched by relative path without suffix) or wav list.")],
    clean: Annotated[Path, typer.Argument(help="The same for clean speech.")],
    out: Out,
    max_fail: MaxFail = 0,
    allow_commands: AllowCommands = False,
):
    """Two folders or two lists, noisy and clean, to a data directory."""
    from setk.data.pairs import pairs as write_pairs

    failures = shell.Failures("se-prep", max_fail)
    count, faults = write_pairs(noisy, clean, out, allow_commands)
    for utt, reason in faults:
        failures.add(utt, reason)
    failures.finish(count)


@app.command()
def get(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="vbd, librimix or ndns.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the corpus.")],
    only: Annotated[list[str], typer.Option(metavar="PATTERN", help="Archives whose name matches, such as '*test*'; may be repeated.")] = [],
):
    """Download a public corpus into DIR, verify it and unpack it.

    The same command continues a download that broke off. Without a network it verifies the archives that are in DIR/archives.
    Writes a table to standard output: archive, state. The commands that follow go to standard error. See docs/corpora.md for
    addresses, sizes and licences.
    """
    from setk.data.corpora import get as library

    found = library.find(corpus)
    shell.say(f"se-prep: {found.title}; licence: {found.licence}; {found.page}")
    failures, done = shell.Failures("se-prep"), 0
    for row in library.get(found, root, only, shell.progress):
        print(row.archive.name, row.state, sep="\t", flush=True)
        if row.error and row.archive.optional:
            shell.say(f"se-prep: optional: {row.error}")
        elif row.error:
            failures.add(row.archive.name, row.error)
        else:
            done += 1
    if not failures.count:
        shell.say("se-prep: next:")
        for command in found.then:
            shell.say(f"  {command.format(root=root)}")
    failures.finish(done)


@app.command()
def vbd(
    root: Annotated[Path, typer.Argument(help="Folder with noisy_trainset_28spk_wav and its like.")],
    out: Out,
    valid: Annotated[Optional[str], typer.Option(metavar="SPEAKERS|FILE", help="What to hold out for validation: speakers by "
                                                 "commas, or a file of utterance ids.  [default: p226,p287]")] = None,
    jobs: Jobs = 1,
    shard: ShardOfMaking = None,
    resampler: Resampler = "soxr",
    max_fail: MaxFail = 0,
):
    """VoiceBank+DEMAND to OUT/{train,valid,test} at 16 kHz; p226 and p287 are held out for validation."""
    from setk.data.corpora.vbd import vbd as write_vbd

    _tell(write_vbd(root, out, valid, jobs, shard, resampler, shell.progress), out, max_fail)


@app.command()
def librimix(
    root: Annotated[Path, typer.Argument(help="A Libri2Mix tree; with --librispeech and --wham, the folder of the generation "
                                         "CSVs libri2mix_*.csv.")],
    out: Out,
    mixture: Annotated[str, typer.Option(help="mix_single (target s1), mix_both (mix_clean) or mix_clean (s1).")] = "mix_single",
    mode: Annotated[str, typer.Option(help="min: cut to the shorter talker; max: padded to the longer.")] = "min",
    rate: Annotated[int, typer.Option(help="16000 or 8000 Hz.")] = 16000,
    train: Annotated[str, typer.Option(metavar="PARTS", help="What train is made of, by commas.")] = "train-100,train-360",
    moved: Annotated[Optional[Path], typer.Option("--root", metavar="DIR", help="Where the wav16k/... of the CSVs' paths is now, "
                                                  "if not in ROOT.")] = None,
    librispeech: Annotated[Optional[Path], typer.Option(metavar="DIR", help="LibriSpeech: holds train-clean-360 ...")] = None,
    wham: Annotated[Optional[Path], typer.Option(metavar="DIR", help="wham_noise: holds tr, cv and tt.")] = None,
    jobs: Jobs = 1,
    max_fail: MaxFail = 0,
):
    """Libri2Mix to OUT/{train,valid,test}: its wavs, or entries that are mixed as they are read, which takes no disk."""
    from setk.data.corpora import librimix as library

    wanted = library.Wanted(mixture, mode, rate, tuple(train.split(",")))
    if (librispeech is None) != (wham is None):
        raise UserError("--librispeech and --wham go together: the mixtures are made of both")
    if librispeech and moved:
        raise UserError("--root is for a tree of wavs; --librispeech and --wham say where the sources are")
    report = (library.rendered(root, librispeech, wham, out, wanted, jobs, shell.progress) if librispeech else
              library.librimix(root, out, wanted, moved, jobs, shell.progress))
    _tell(report, out, max_fail)


@app.command()
def ndns(
    root: Annotated[Path, typer.Argument(help="Holds training_set, validation_set and test_set_1, or will.")],
    out: Out,
    clean: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Make the sets in ROOT first, of this speech ...")] = None,
    noise: Annotated[Optional[Path], typer.Option(metavar="DIR", help="... and this noise, each file for one set only.")] = None,
    clips: Annotated[str, typer.Option(metavar="N,N,N", help="Clips of 30 s to make: training, validation, "
                                       "test.")] = "60000,60000,60000",
    group: Annotated[Optional[str], typer.Option(metavar="REGEX", help="Files in whose paths this matches the same text are one "
                                                 "source.  [default: reader_\\d+]")] = None,
    seed: Annotated[int, typer.Option(help="The split, and each clip, is drawn from this.")] = 0,
    jobs: Jobs = 1,
    shard: ShardOfMaking = None,
    max_fail: MaxFail = 0,
):
    """The Intel N-DNS corpus to OUT/{train,valid,test}; sources that two sets share stop it."""
    from setk.data.corpora import ndns as library

    if (clean is None) != (noise is None):
        raise UserError("--clean and --noise go together: clips are made of both")
    failures, made, named = shell.Failures("se-prep", max_fail), 0, set()
    if clean:
        counts = library.parse_counts(clips)
        faults = library.split_sources(root, clean, noise, library.GROUP if group is None else group, seed, jobs)
        for path, reason in faults:
            failures.add(path, reason)
        for clip in shell.progress(library.synthesize(root, counts, seed, shard, jobs), None, "clips"):
            made += not clip.error
            for name, reason in (*clip.faults, *([(clip.name, clip.error)] if clip.error else [])):
                if name not in named:  # a broken source is drawn for many clips
                    failures.add(name, reason)
                named.add(name)
        shell.say(f"se-prep: {root}: {made} clips made")
    if shard:
        failures.finish(made)
    else:
        _tell(library.ndns(root, out, jobs, shell.progress), out, max_fail, failures)


def _tell(report, out: Path, max_fail: int, failures: Optional[shell.Failures] = None) -> None:
    """Say what came of a corpus; exit 1 on failures."""
    failures = failures or shell.Failures("se-prep", max_fail)
    for warning in report.warnings:
        shell.say(f"se-prep: warning: {warning}")
    for utt, reason in report.faults:
        failures.add(utt, reason)
    if report.clipped:
        shell.say(f"se-prep: {report.clipped} samples clipped in resampling")
    for split, count in report.counts.items():
        shell.say(f"se-prep: {out / split}: {count} utterances")
    failures.finish(sum(report.counts.values()))


@app.command()
def mix(
    out: Out,
    speech: Lists,
    noise: Lists,
    snr: Annotated[str, typer.Option(metavar="LO:HI|A,B,...", help="SNR in dB: a range, or values to choose from.")],
    rir: Annotated[list[Path], typer.Option(metavar="LIST", help="List of room responses; the target is the early part (50 ms).")] = [],
    level: Annotated[Optional[str], typer.Option(metavar="LO:HI|A,B,...", help="RMS of the mixture, dB re full scale.")] = None,
    active_level: Annotated[bool, typer.Option("--active-level", help="Speech level by ITU-T P.56: pauses left out.")] = False,
    utt2spk: Annotated[Optional[Path], typer.Option(metavar="TABLE", help="Speakers of the speech list, to be passed on.")] = None,
    seed: Annotated[int, typer.Option(help="Each mixture is drawn from this and its utterance id.")] = 0,
    rate: Rate = 16000,
    jobs: Jobs = 1,
    shard: Shard = None,
    max_fail: MaxFail = 0,
    allow_commands: AllowCommands = False,
):
    """Mix each utterance of a speech list with a noise: OUT/{noisy,clean}/*.wav, their lists, and mix.tsv."""
    from setk.data import mixtures
    from setk.data.lists import merge_wavs, read_list
    from setk.data.mixing import Spread

    lists = (merge_wavs(paths, allow_commands) for paths in (speech, noise, rir))
    plan = mixtures.Plan(out, *lists, Spread.parse(snr, "--snr"),  # type: ignore[call-arg]
                         Spread.parse(level, "--level") if level else None, active_level, seed, rate)
    failures, done = shell.Failures("se-prep", max_fail), 0
    total = len(plan.speech) if shard is None else None
    spk = read_list(utt2spk) if utt2spk else {}
    for row in shell.progress(mixtures.write_mixtures(plan, spk, shard, jobs), total, "mix"):
        done += not row.error
        if row.error:
            failures.add(row.utt, row.error)
    if not mixtures.is_complete(plan):
        shell.say(f"se-prep: {out}: the lists will be written by the job that makes the last mixture")
    failures.finish(done)


@app.command()
def sources(
    out: Out,
    speech: Lists,
    noise: Lists,
    rir: Annotated[list[Path], typer.Option(metavar="LIST", help="List of room responses.")] = [],
    utt2spk: Annotated[Optional[Path], typer.Option(metavar="TABLE", help="Speakers of the speech list.")] = None,
):
    """Speech and noise lists to a data directory that se-train mixes as it goes."""
    from setk.data.datadir import DataDir
    from setk.data.lists import merge_wavs, read_list

    tables = {"speech.scp": merge_wavs(speech), "noise.scp": merge_wavs(noise)}
    tables |= {"rir.scp": merge_wavs(rir)} if rir else {}
    tables |= {"utt2spk": read_list(utt2spk)} if utt2spk else {}
    for name, table in tables.items():
        if not table:
            raise UserError(f"{name}: no utterances; give lists that have some")
    DataDir.write(out, tables)
    shell.say(f"se-prep: {out}: " + ", ".join(f"{len(table)} lines in {name}" for name, table in tables.items()))


@app.command()
def shards(
    directory: Dir,
    out: Out,
    feature: Annotated[str, typer.Option(help="pcm (int16), stft (compressed complex, float16), or logmel (float16).")] = "pcm",
    window: Annotated[Optional[int], typer.Option(help="Of stft and logmel, in samples; 512 if not given.")] = None,
    hop: Annotated[Optional[int], typer.Option(help="Likewise; 256.")] = None,
    bands: Annotated[Optional[int], typer.Option(help="Mel bands; 80.")] = None,
    shard_size: Annotated[int, typer.Option(help="Utterances per shard.")] = 1000,
    rate: Rate = 16000,
    resampler: Annotated[Optional[str], typer.Option(help="Convert what is at another rate: soxr, or resampy.")] = None,
    jobs: Jobs = 1,
    shard: Shard = None,
    allow_commands: AllowCommands = False,
):
    """A data directory to HDF5 shards; what is whole and up to date is kept."""
    from setk.data import features
    from setk.data import shards as library
    from setk.data.datadir import DataDir

    failures = shell.Failures("se-prep")
    utterances, seconds, states, clipped = 0, 0.0, [], 0
    made = features.make(feature, rate, window=window, hop=hop, bands=bands)
    for done in library.write_shards(DataDir(directory, allow_commands), out, shard_size, shard, jobs, rate, made, resampler):
        for utt, reason in done.faults:
            failures.add(utt, reason)
        states.append(done.state)
        shell.say(f"se-prep: {done.path}: {done.state}")
        if done.state != "failed":
            utterances, seconds, clipped = utterances + done.utterances, seconds + done.seconds, clipped + done.clipped
    if clipped:
        shell.say(f"se-prep: {clipped} samples beyond 16 bits were clipped")
    shell.say(f"se-prep: {states.count('made')} shards made, {states.count('kept')} kept, {states.count('failed')} failed; "
              f"{seconds / 3600:.2f} h; {'the set is whole' if library.names(out) else 'the set is not whole yet'}")
    failures.finish(utterances)


@app.command()
def check(
    directories: Dirs,
    rate: WantedRate = 16000,
    jobs: Jobs = 1,
    allow_commands: AllowCommands = False,
):
    """Name every fault with file, line and mend, as a table on stdout; exit 1 if there is one. The same audio in two
    of several directories is a fault."""
    _check(directories, rate, jobs, allow_commands, mend=False)


@app.command()
def fix(
    directories: Dirs,
    rate: WantedRate = 16000,
    jobs: Jobs = 1,
    allow_commands: AllowCommands = False,
):
    """Drop every utterance at fault and sort the lists; the old ones go to DIR/.backup. What is right is left alone."""
    _check(directories, rate, jobs, allow_commands, mend=True)


def _check(directories: list[Path], rate: int, jobs: int, allow_commands: bool, mend: bool) -> None:
    from setk.data import check as library
    from setk.data.datadir import DataDir

    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UserError(f"{' '.join(map(str, directories))}: a directory is given twice; give each once")
    seen = {} if len(directories) > 1 else None
    total = 0
    print(library.Fault.HEADER)
    for data in [DataDir(directory, allow_commands) for directory in directories]:
        found, faults, remarks = library.Found(), 0, 0
        for fault in library.check(data, found, rate or None, jobs, seen):
            print(fault.text(), flush=True)
            faults += fault.grade == library.FAULT
            remarks += fault.grade == library.REMARK
        for stream, good in found.good.items():
            what = "pairs" if data.is_pairs else stream
            shell.say(f"se-prep: {data.path}: {len(good)} {what} are good, {sum(good.values()) / 3600:.2f} h")
        shell.say(f"se-prep: {data.path}: {faults} faults, {remarks} remarks")
        if mend and faults:
            backup = library.fix(data, found)
            shell.say(f"se-prep: {data.path}: written anew; the old lists are in {backup}")
        total += faults
    if total and not mend:
        raise typer.Exit(shell.SOME_FAILED)


@app.command()
def split(
    directory: Dir,
    parts: Annotated[int, typer.Argument(metavar="N", help="Number of parts.")],
    by_speaker: Annotated[bool, typer.Option("--by-speaker", help="Keep a speaker's utterances (utt2spk) together.")] = False,
    allow_commands: AllowCommands = False,
):
    """Share a data directory out to DIR/splitN/1 ... N, about equally long; their paths to stdout."""
    from setk.data.split import split as write_parts
    from setk.data.datadir import DataDir

    for path, utterances, seconds in write_parts(DataDir(directory, allow_commands), parts, by_speaker):
        print(path)
        shell.say(f"se-prep: {path}: {utterances} utterances, {seconds / 3600:.2f} h")


@app.command()
def resample(
    wavs: Annotated[Path, typer.Argument(metavar="LIST", help="Wav list; - is standard input.")],
    out: Out,
    rate: Rate = 16000,
    resampler: Resampler = "soxr",
    channel: Annotated[Optional[int], typer.Option(min=1, help="Take this channel of files with several.")] = None,
    jobs: Jobs = 1,
    shard: Shard = None,
    max_fail: MaxFail = 0,
    allow_commands: AllowCommands = False,
):
    """Convert wavs to OUT/<utt>.wav, their list to stdout; what is mono at the rate stays where it is."""
    from setk.data.convert import convert_all
    from setk.data.lists import open_wavs, take_part

    failures, done, clipped = shell.Failures("se-prep", max_fail), 0, 0
    table = take_part(open_wavs(wavs, allow_commands), shard)
    for wav in shell.progress(convert_all(table, out, rate, resampler, channel, jobs), None, "resample"):
        if wav.error:
            failures.add(wav.utt, wav.error)
            continue
        print(wav.utt, wav.path, flush=True)
        done, clipped = done + 1, clipped + wav.clipped
    if clipped:
        shell.say(f"se-prep: {clipped} samples clipped in resampling")
    failures.finish(done)


def main():
    shell.run(app, "se-prep")


if __name__ == "__main__":
    main()
