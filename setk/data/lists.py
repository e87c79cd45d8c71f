"""Wav lists (scp) and tables: one line per utterance, `utt-id value`.

In a wav list the value is a location (see setk.audio.location): a path, with its inner spaces; `-`, standard input;
a shell command that ends in `|` (run only where the caller allows it); or an on-the-fly mixture `mix:{...}`.
A relative path is taken from the current directory, or, if it does not exist there, from the folder of the list.
A folder is accepted wherever a wav list is: its audio files are the list.

Ids become file names: they have no white space and no `/`, and are not `.` or `..`. What setk writes is sorted in
C order; any order is read.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from typing import Iterable, Iterator, Mapping, TypeVar

from setk.audio import Location
from setk.core.errors import UserError
from setk.core.files import check_readable, finish_replacement, write_text

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff")  # of the audio files of a folder
T = TypeVar("T")

Faults = list[tuple[str, str]]  # (utterance or path, why it cannot be used)


def check_id(utt: str) -> str:
    """Return `utt` if it can be an utterance id and a file name. Raises UserError otherwise."""
    if not utt or utt in (".", "..") or "/" in utt or "\0" in utt or any(c.isspace() for c in utt):
        raise UserError(
            f"{utt!r} cannot be an utterance id: ids become file names; use no white space, no '/', not '.' or '..'"
        )
    return utt


def parse_table(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """Yield (id, rest of the line) of each line as it arrives; `name` is used in messages.

    Blank lines and CRLF endings are accepted. Raises UserError with the line's number on a missing value, an
    unusable id, or a duplicate id.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        line = line.strip().lstrip("\ufeff").strip()
        if not line:
            continue
        utt, value = (*line.split(maxsplit=1), "")[:2]
        try:
            check_id(utt)
        except UserError as e:
            raise UserError(f"{name}:{number}: {e}") from None
        if not value:
            raise UserError(f"{name}:{number}: {utt} has no value; write 'utt-id path'")
        if utt in seen:
            raise UserError(f"{name}:{number}: duplicate id {utt!r}; remove one of the lines")
        seen.add(utt)
        yield utt, value


def open_list(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (utt, value) of a table, or of standard input for `-`, line by line as they arrive."""
    try:
        if str(path) == "-":
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale, as for files
            yield from parse_table(sys.stdin, "standard input")
            return
        finish_replacement(os.path.dirname(path) or ".")
        check_readable(path)
        with open(path, encoding="utf-8", newline="\n") as f:
            yield from parse_table(f, str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such list") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; expected a table with 'utt-id value' on each line") from None
    except UnicodeDecodeError:
        name = "standard input" if str(path) == "-" else path
        raise UserError(f"{name}: is not a text file; a list has 'utt-id path' on each line") from None


def read_list(path: str | os.PathLike) -> dict[str, str]:
    """Read a complete table, keeping its order."""
    return dict(open_list(path))


def open_wavs(path: str | os.PathLike, allow_commands: bool = False) -> Iterator[tuple[str, Location]]:
    """Yield (utt, Location) of a wav list, of standard input for `-`, or of the audio files in a folder.

    With `allow_commands` the locations may run shell commands. Raises UserError as `open_list` and `find_wavs` do,
    and on a file in a folder whose name cannot be in a list.
    """
    if os.path.isdir(path):
        table, faults = find_wavs(path)
        if faults:
            raise UserError(faults[0][1])
        yield from table.items()
        return
    folder = os.path.dirname(path)
    for utt, text in open_list(path):
        location = Location.parse(text, allow_commands)
        yield utt, location.resolve(folder) if folder else location


def read_wavs(path: str | os.PathLike, allow_commands: bool = False) -> dict[str, Location]:
    """Read a complete wav list, or folder, as `open_wavs` does."""
    return dict(open_wavs(path, allow_commands))


def merge_wavs(paths: Iterable[str | os.PathLike], allow_commands: bool = False) -> dict[str, Location]:
    """Several wav lists as one. Raises UserError if two of them have the same id."""
    merged: dict[str, Location] = {}
    for path in paths:
        table = read_wavs(path, allow_commands)
        duplicates = merged.keys() & table.keys()
        if duplicates:
            raise UserError(f"{path}: duplicate id {min(duplicates)!r}, also in an earlier list; rename one")
        merged |= table
    return merged


def format_list(table: Mapping[str, object]) -> str:
    """The text of a list or table, sorted in C order. Raises UserError on an id that cannot be one."""
    rows = sorted(table.items(), key=lambda row: row[0].encode())
    return "".join(f"{check_id(utt)} {value}\n" for utt, value in rows)


def write_list(path: str | os.PathLike, table: Mapping[str, object]) -> None:
    """Write a list or table atomically, sorted in C order."""
    write_text(path, format_list(table))


def parse_part(part: str) -> tuple[int, int]:
    """Parse `k/n` (1-based): part k of n. Raises UserError on anything else."""
    k, _, n = part.partition("/")
    if not (part.isascii() and k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise UserError(f"--part {part}: write K/N with 1 <= K <= N, as in 3/40")
    return int(k), int(n)


def take_part(items: Iterable[T], part: str | None) -> Iterator[T]:
    """Every n-th item from the k-th, for `part` = "k/n"; all of them for None."""
    k, n = parse_part(part) if part is not None else (1, 1)
    for i, item in enumerate(items):
        if i % n == k - 1:
            yield item


def check_location(location: str) -> str:
    """Return a path if a wav list can hold it. Raises UserError otherwise."""
    try:
        location.encode()
    except UnicodeEncodeError:
        raise UserError(f"{location!r}: the name is not UTF-8; rename it") from None
    if location != location.strip() or {"\n", "\0"} & set(location) or location.endswith("|"):
        raise UserError(
            f"{location!r}: a list cannot hold a name that ends in white space or '|' or has a line break; rename it"
        )
    return location


def make_id(relative: str) -> str:
    """An utterance id from a path within a folder: no suffix, '-' for '/', '_' for white space, Unicode composed (NFC)."""
    stem = unicodedata.normalize("NFC", os.path.splitext(relative)[0])
    return check_id("".join("_" if c.isspace() else c for c in stem).replace("/", "-"))


def find_wavs(place: str | os.PathLike, allow_commands: bool = False) -> tuple[dict[str, Location], Faults]:
    """id -> Location of the audio files in a folder (except hidden ones), or of a wav list; and unusable names.

    Links to folders are followed, each folder once. Raises UserError if there are no audio files, or two have the
    same id.
    """
    if not os.path.isdir(place):
        return read_wavs(place, allow_commands), []
    found: dict[str, Location] = {}
    faults: Faults = []
    for path in _audio_files(str(place)):
        try:
            utt = make_id(os.path.relpath(check_location(path), place))
        except UserError as e:
            faults.append((repr(path), str(e)))
            continue
        if utt in found:
            raise UserError(f"{path} and {found[utt]} would have the same id {utt!r}; rename one")
        found[utt] = Location.parse(path)
    if not found and not faults:
        hint = "; for a data directory, give one of its lists" if list(Path(place).glob("*.scp")) else ""
        raise UserError(f"{place}: has no audio files ({', '.join(SUFFIXES)}){hint}")
    return found, faults


def _audio_files(place: str) -> Iterator[str]:
    seen = {os.path.realpath(place)}
    for folder, below, files in os.walk(place, followlinks=True):
        below[:] = sorted(d for d in below if not d.startswith(".") and _is_new(os.path.join(folder, d), seen))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES:
                yield os.path.join(folder, file)


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder is not one of `seen`, nor a link to one; it is from now on."""
    place = os.path.realpath(folder)
    known = place in seen
    seen.add(place)
    return not known
