"""se-prep's commands for public corpora: get, vbd, librimix, ndns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Iterable, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

if TYPE_CHECKING:
    from setk.data.datadir import Report

Out = Annotated[Path, typer.Argument(help="Folder to write.")]
Jobs = Annotated[
    int,
    typer.Option(
        rich_help_panel=shell.PARALLEL, min=1, metavar="N", help="Worker processes. The result does not depend on it."
    ),
]
WavPart = Annotated[
    Optional[str],
    typer.Option(
        "--part",
        callback=shell.check_part,
        rich_help_panel=shell.PARALLEL,
        metavar="K/N",
        help="Make every N-th wav from the K-th, as one array "
        "job, and no lists. A run without it then writes the lists.",
    ),
]
Resampler = Annotated[
    str,
    typer.Option(
        rich_help_panel=shell.ADVANCED, metavar="NAME", help="soxr, or resampy (kaiser_best, about 80 times slower)."
    ),
]


# fmt: off
def get(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="vbd, librimix or ndns.")],
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the corpus.")],
    only: Annotated[list[str], typer.Option(metavar="PATTERN", help="Archives whose name matches, such as '*test*'; may be repeated.")] = [],
):
    # fmt: on
    """Download a public corpus into DIR, verify it and unpack it.

    The same command continues a download that broke off. Without a network it verifies the archives that are in DIR/archives.
    Writes a table to standard output: archive, state. The commands that follow go to standard error. See docs/corpora.md for
    addresses, sizes and licences.
    """
    from setk.data.corpora import get as library

    found = library.find(corpus)
    shell.note(f"se-prep: {found.title}; licence: {found.licence}; {found.page}")
    failures, done = shell.Failures("se-prep"), 0
    for row in library.get(found, root, only, shell.progress):
        print(row.archive.name, row.state, sep="\t", flush=True)
        if row.error and row.archive.optional:
            shell.note(f"se-prep: optional: {row.error}")
        elif row.error:
            failures.add(row.archive.name, row.error)
        else:
            done += 1
    if not failures.count:
        shell.note("se-prep: next:")
        for command in found.then:
            shell.note(f"  {command.format(root=root)}")
    failures.finish(done)


# fmt: off
def vbd(
    root: Annotated[Path, typer.Argument(help="Folder with noisy_trainset_28spk_wav and the other folders of the corpus.")],
    out: Out,
    valid: Annotated[Optional[str], typer.Option(metavar="SPEAKERS|FILE", help="Held out for validation: speakers, separated by " "commas, or a file of utterance ids.  [default: p226,p287]")] = None,
    jobs: Jobs = 1,
    part: WavPart = None,
    resampler: Resampler = "soxr",
    rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate; the corpus is at 48000.")] = 16000,
    max_fail: shell.MaxFail = 0,
):
    # fmt: on
    """Write VoiceBank+DEMAND at 16 kHz, or another rate, to OUT/{train,valid,test}."""
    from setk.data.corpora.vbd import vbd as write_vbd

    _report(
        write_vbd(root, out, valid, jobs, part, resampler, shell.progress, rate), out, shell.Failures("se-prep", max_fail)
    )


# fmt: off
def librimix(
    root: Annotated[Path, typer.Argument(help="A Libri2Mix tree; with --librispeech and --wham, the folder of the generation CSVs libri2mix_*.csv.")],
    out: Out,
    mixture: Annotated[str, typer.Option(help="mix_single (target s1), mix_both (mix_clean) or mix_clean (s1).")] = "mix_single",
    mode: Annotated[str, typer.Option(help="min: cut to the shorter speaker; max: padded to the longer.")] = "min",
    rate: Annotated[int, typer.Option(help="16000 or 8000 Hz.")] = 16000,
    train: Annotated[str, typer.Option(metavar="SETS", help="Sets for training, separated by commas.")] = "train-100,train-360",
    moved: Annotated[Optional[Path], typer.Option("--root", metavar="DIR", help="Where the wav16k/... of the CSVs' paths is now, if not in ROOT.")] = None,
    librispeech: Annotated[Optional[Path], typer.Option(metavar="DIR", help="LibriSpeech: has train-clean-360 ...")] = None,
    wham: Annotated[Optional[Path], typer.Option(metavar="DIR", help="wham_noise: has tr, cv and tt.")] = None,
    jobs: Jobs = 1,
    max_fail: shell.MaxFail = 0,
):
    # fmt: on
    """Write Libri2Mix to OUT/{train,valid,test}: its wavs, or on-the-fly mixtures, which need no disk space."""
    from setk.data.corpora import librimix as library

    variant = library.Variant(mixture, mode, rate, tuple(train.split(",")))
    if (librispeech is None) != (wham is None):
        raise UserError("--librispeech and --wham need each other: the mixtures are made of both")
    if librispeech and moved:
        raise UserError("--root is for a tree of wavs; with --librispeech and --wham, remove it")
    report = (
        library.rendered(root, librispeech, wham, out, variant, jobs, shell.progress)
        if librispeech
        else library.librimix(root, out, variant, moved, jobs, shell.progress)
    )
    _report(report, out, shell.Failures("se-prep", max_fail))


# fmt: off
def ndns(
    ctx: typer.Context,
    root: Annotated[Path, typer.Argument(help="Folder of training_set, validation_set and test_set_1, existing or to be made.")],
    out: Out,
    clean: Annotated[Optional[Path], typer.Option(metavar="DIR", help="Make the sets in ROOT first, of this speech ...")] = None,
    noise: Annotated[Optional[Path], typer.Option(metavar="DIR", help="... and this noise, each file for one set only.")] = None,
    clips: Annotated[str, typer.Option(metavar="N,N,N", help="Number of clips of 30 s to make: training, validation, test.")] = "60000,60000,60000",
    group: Annotated[Optional[str], typer.Option(metavar="REGEX", help="Files in whose paths this matches the same text are one source.  [default: reader_\\d+]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of each clip.")] = 0,
    jobs: Jobs = 1,
    part: WavPart = None,
    max_fail: shell.MaxFail = 0,
):
    # fmt: on
    """Write the Intel N-DNS corpus to OUT/{train,valid,test}. Sources that two sets share are an error."""
    from setk.data.corpora import ndns as library
    from setk.data.corpora import ndns_synthesis as synthesis

    if (clean is None) != (noise is None):
        raise UserError("--clean and --noise need each other: clips are made of both")
    if not clean:
        shell.refuse(ctx, "without --clean and --noise", "clips", "group", "seed", "part")
    failures, made, named = shell.Failures("se-prep", max_fail), 0, set()
    if clean:
        counts = synthesis.parse_counts(clips)
        add_all(failures, synthesis.split_sources(root, clean, noise, group or synthesis.GROUP, seed, jobs))
        for clip in shell.progress(synthesis.synthesize(root, counts, seed, part, jobs), None, "clips"):
            made += not clip.error
            for name, reason in clip.reasons:
                if name not in named:  # a broken source is drawn for many clips
                    failures.add(name, reason)
                named.add(name)
        shell.note(f"se-prep: {root}: {made} clips made")
    if part:
        failures.finish(made)
    else:
        _report(library.ndns(root, out, jobs, shell.progress), out, failures)


# Command -> the examples of its help.
COMMANDS = {
    get: "se-prep get vbd /data/VoiceBank-DEMAND",
    vbd: "se-prep vbd /data/VoiceBank-DEMAND data/vbd --jobs 8",
    librimix: """
se-prep librimix /data/Libri2Mix data/l2m
se-prep librimix metadata/Libri2Mix data/l2m --librispeech /data/LibriSpeech --wham /data/wham_noise
""",
    ndns: "se-prep ndns /data/ndns data/ndns --clean dns/clean --noise dns/noise",
}


def _report(report: Report, out: Path, failures: shell.Failures) -> None:
    """Print the result of preparing a corpus; exit 1 on failures."""
    for warning in report.warnings:
        shell.note(f"se-prep: warning: {warning}")
    add_all(failures, report.faults)
    if report.clipped:
        shell.note(f"se-prep: {report.clipped} samples clipped in resampling")
    for split, count in report.counts.items():
        shell.note(f"se-prep: {out / split}: {count} utterances")
    failures.finish(sum(report.counts.values()))


def add_all(failures: shell.Failures, faults: Iterable[tuple[str, str]]) -> None:
    """Count and print each (utterance or path, reason)."""
    for name, reason in faults:
        failures.add(name, reason)
