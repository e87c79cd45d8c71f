"""Wav lists (scp) and data directories.

A wav list has one line per utterance, `utt-id path`. The path is the rest of the line, inner spaces kept,
relative to the current directory; `-` is standard input; a path ending in `|` is a shell command whose
standard output is a wav (run only where the caller allows it); one that begins with `sum:` is a sum of files
(see setk.sums). Ids become file names, so they hold no white
space and no `/` and are not `.` or `..`. What setk writes is sorted in C order; any order is read.

A data directory holds `noisy.scp` and `clean.scp` (pairs), or `speech.scp` and `noise.scp` (and `rir.scp`)
to be mixed as training goes, and the tables `utt2dur`, `utt2spk`, `utt2snr` where they are known.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterable, Iterator, Mapping

from setk.core.errors import UserError
from setk.core.files import write_text

PAIR = ("noisy", "clean")
MIXED = ("speech", "noise")


def check_id(utt: str) -> str:
    """Return `utt` if it can serve as an utterance id and a file name; else raise UserError."""
    if not utt or utt in (".", "..") or "/" in utt or "\0" in utt or any(c.isspace() for c in utt):
        raise UserError(f"{utt!r} cannot be an utterance id: ids become file names; use no white space, no '/', not '.' or '..'")
    return utt


def parse_table(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """Yield (id, rest of line) of each line, as it comes; `name` stands in messages.

    Blank lines and CRLF endings are accepted. Raises UserError naming the line and the mend on a missing
    value, an unusable id, or an id seen before.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line:
            continue
        utt, value = (*line.lstrip("\ufeff").split(maxsplit=1), "")[:2]
        try:
            check_id(utt)
        except UserError as e:
            raise UserError(f"{name}:{number}: {e}") from None
        if not value:
            raise UserError(f"{name}:{number}: {utt} has no value; write 'utt-id path'")
        if utt in seen:
            raise UserError(f"{name}:{number}: {utt} stands in the list twice; keep one of the lines")
        seen.add(utt)
        yield utt, value


def open_list(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (utt, location) of a list file, or of standard input for `-`, line by line as they arrive."""
    try:
        if str(path) == "-":
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale, as for files
            yield from parse_table(sys.stdin, "standard input")
            return
        with open(path, encoding="utf-8", newline="\n") as f:
            yield from parse_table(f, str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such list") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; a list file (utt-id path per line) is wanted") from None
    except UnicodeDecodeError:
        name = "standard input" if str(path) == "-" else path
        raise UserError(f"{name}: is not text; a list has 'utt-id path' on each line") from None


def read_list(path: str | os.PathLike) -> dict[str, str]:
    """Read a whole list or table, keeping its order."""
    return dict(open_list(path))


def write_list(path: str | os.PathLike, table: Mapping[str, object]) -> None:
    """Write a list or table, sorted in C order, whole or not at all."""
    rows = sorted(table.items(), key=lambda row: row[0].encode())
    write_text(path, "".join(f"{check_id(utt)} {value}\n" for utt, value in rows))


def parse_shard(spec: str) -> tuple[int, int]:
    """Parse `k/n` (1-based) to (k, n)."""
    k, _, n = spec.partition("/")
    if not (k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise UserError(f"--shard {spec}: write k/n with 1 <= k <= n, as in 3/40")
    return int(k), int(n)


def take_shard(items: Iterable, spec: str | None) -> Iterator:
    """Every n-th item beginning with the k-th, for `spec` = "k/n"; all of them for None."""
    if spec is None:
        yield from items
        return
    k, n = parse_shard(spec)
    for i, item in enumerate(items):
        if i % n == k - 1:
            yield item


class DataDir:
    """A data directory on disk.

    `streams` names the wav lists that are there (PAIR or MIXED, and `rir`); `table(name)` reads one of them
    or of the utt2* tables (missing optional table: empty). Raises UserError if neither kind is complete.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{path}: no such data directory; make one with se-prep")
        kinds = [kind for kind in (PAIR, MIXED) if all((self.path / f"{s}.scp").is_file() for s in kind)]
        if not kinds:
            raise UserError(f"{path}: is no data directory: it needs noisy.scp and clean.scp, or speech.scp and noise.scp")
        self.streams = kinds[0]
        if self.streams == MIXED and (self.path / "rir.scp").is_file():
            self.streams += ("rir",)

    @property
    def is_pairs(self) -> bool:
        return self.streams == PAIR

    def table(self, name: str) -> dict[str, str]:
        """Read `name` ("noisy.scp", "utt2spk", ...); an absent utt2* table is empty."""
        path = self.path / name
        if name.startswith("utt2") and not path.exists():
            return {}
        return read_list(path)

    def pairs(self) -> dict[str, tuple[str, str]]:
        """utt -> (noisy, clean), in list order. Raises UserError if the two lists differ in ids."""
        if not self.is_pairs:
            raise UserError(f"{self.path}: holds speech and noise, not pairs; make pairs with se-prep mix")
        noisy, clean = self.table("noisy.scp"), self.table("clean.scp")
        odd = sorted(noisy.keys() ^ clean.keys())
        if odd:
            where = "clean.scp" if odd[0] in noisy else "noisy.scp"
            raise UserError(f"{self.path}/{where}: {odd[0]} is missing ({len(odd)} ids in one list only); se-prep fix mends it")
        return {utt: (noisy[utt], clean[utt]) for utt in noisy}
