"""se-prep: corpora to data directories and shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.commands import shell
from setk.files import UserError

app = shell.new_app(no_args_is_help=True, help="Prepare data: corpora and lists to data directories, data directories to shards.")

Out = Annotated[Path, typer.Argument(help="Folder to write.")]
Dir = Annotated[Path, typer.Argument(metavar="DIR", help="Data directory.")]
Jobs = Annotated[int, typer.Option(help="Worker processes; the result does not depend on it.")]
Shard = Annotated[Optional[str], typer.Option(metavar="K/N", help="Do every N-th item from the K-th on, for array jobs.")]
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
    from setk.corpora.pairs import pairs as write_pairs

    failures = shell.Failures("se-prep", max_fail)
    count, faults = write_pairs(noisy, clean, out, allow_commands)
    for utt, reason in faults:
        failures.add(utt, reason)
    failures.finish(count)


@app.command()
def vbd(
    root: Annotated[Path, typer.Argument(help="Folder with noisy_trainset_28spk_wav and its like.")],
    out: Out,
    jobs: Jobs = 1,
    resampler: Resampler = "soxr",
    max_fail: MaxFail = 0,
):
    """VoiceBank+DEMAND to OUT/{train,valid,test} at 16 kHz; p226 and p287 are held out for validation."""
    from setk.corpora.vbd import vbd as write_vbd

    failures = shell.Failures("se-prep", max_fail)
    report = write_vbd(root, out, jobs, resampler, shell.progress)
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
    from setk.corpora import mixtures
    from setk.lists import read_list
    from setk.mixing import Spread

    plan = mixtures.Plan(out, _merged(speech), _merged(noise), _merged(rir), Spread.parse(snr, "--snr"),
                         Spread.parse(level, "--level") if level else None, active_level, seed, rate, allow_commands)
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
    from setk.corpora.tables import write_data_dir
    from setk.lists import read_list

    tables = {"speech.scp": _merged(speech), "noise.scp": _merged(noise)}
    tables |= {"rir.scp": _merged(rir)} if rir else {}
    tables |= {"utt2spk": read_list(utt2spk)} if utt2spk else {}
    for name, table in tables.items():
        if not table:
            raise UserError(f"nothing is listed for {name}")
    write_data_dir(out, tables)
    shell.say(f"se-prep: {out}: " + ", ".join(f"{len(table)} lines in {name}" for name, table in tables.items()))


def _merged(paths: list[Path]) -> dict[str, str]:
    """Several lists as one. Raises UserError if an id is in two of them."""
    from setk.lists import read_list

    merged: dict[str, str] = {}
    for path in paths:
        table = read_list(path)
        again = merged.keys() & table.keys()
        if again:
            raise UserError(f"{path}: {min(again)} is in an earlier list too; rename one")
        merged |= table
    return merged


@app.command()
def shards(
    directory: Dir,
    out: Out,
    size: Annotated[int, typer.Option(help="Utterances per shard.")] = 1000,
    rate: Rate = 16000,
    jobs: Jobs = 1,
    shard: Shard = None,
    allow_commands: AllowCommands = False,
):
    """A data directory to HDF5 shards; what is whole and up to date is kept."""
    from setk import shards as library
    from setk.lists import DataDir

    failures = shell.Failures("se-prep")
    utterances, seconds, states, clipped = 0, 0.0, [], 0
    for done in library.write_shards(DataDir(directory), out, size, shard, jobs, rate, allow_commands):
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
    directory: Dir,
    rate: WantedRate = 16000,
    jobs: Jobs = 1,
    allow_commands: AllowCommands = False,
):
    """Name every fault with file, line and mend, as a table on stdout; exit 1 if there is one."""
    _check(directory, rate, jobs, allow_commands, mend=False)


@app.command()
def fix(
    directory: Dir,
    rate: WantedRate = 16000,
    jobs: Jobs = 1,
    allow_commands: AllowCommands = False,
):
    """Drop every utterance at fault and sort the lists; the old ones go to DIR/.backup."""
    _check(directory, rate, jobs, allow_commands, mend=True)


def _check(directory: Path, rate: int, jobs: int, allow_commands: bool, mend: bool) -> None:
    from setk.corpora import check as library
    from setk.lists import DataDir

    data, found = DataDir(directory), library.Found()
    faults = remarks = 0
    print(library.Fault.HEADER)
    for fault in library.check(data, found, rate or None, jobs, allow_commands):
        print(fault.text(), flush=True)
        faults += fault.grade == library.FAULT
        remarks += fault.grade == library.REMARK
    for stream, good in found.good.items():
        what = "pairs" if data.is_pairs else stream
        shell.say(f"se-prep: {directory}: {len(good)} {what} are good, {sum(good.values()) / 3600:.2f} h")
    shell.say(f"se-prep: {directory}: {faults} faults, {remarks} remarks")
    if faults and not mend:
        raise typer.Exit(shell.SOME_FAILED)
    if mend:
        backup = library.fix(data, found)
        shell.say(f"se-prep: {directory}: written anew; the old lists are in {backup}")


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
    from setk.corpora.wavs import convert_all
    from setk.lists import open_list, take_shard

    failures, done, clipped = shell.Failures("se-prep", max_fail), 0, 0
    table = take_shard(open_list(wavs), shard)
    for wav in shell.progress(convert_all(table, out, rate, resampler, channel, jobs, allow_commands), None, "resample"):
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
