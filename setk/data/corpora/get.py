"""Download the archives of a corpus, continue broken downloads, verify and unpack.

Below the folder of the corpus, archives/ holds NAME, NAME.part while it is downloaded, and NAME.unpacked when its content is in
place. All of it can be stopped at any moment; the next run continues.
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Generator, Iterator, Sequence

import setk
from setk.core.errors import UserError, nearest
from setk.core.files import make_dir, write_text
from setk.data.corpora.archives import CORPORA, GB, Archive, Corpus
from setk.data.datadir import Watch

BLOCK = 1 << 20
TRIES = 4  # connections without a new byte, after which a download is given up
TIMEOUT_S = 60
PAUSE_S = 1.0  # before the second connection; doubled each time
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError)


@dataclass(frozen=True)
class Row:
    """What became of one archive. `state`: unpacked, kept (complete, not to be unpacked), missing or damaged; `error`: why."""

    archive: Archive
    state: str
    error: str = ""


class _Failed(Exception):
    """An archive that cannot be downloaded or used; the message says why."""


class _Refused(_Failed):
    """The server answers, but not with this archive: another address may."""


class _Unreachable(_Failed):
    """There is no connection to the server."""


def find(name: str) -> Corpus:
    """The corpus of this name. Raises UserError."""
    if name not in CORPORA:
        raise UserError(f"no corpus is called '{name}'; {nearest(name, CORPORA)}")
    return CORPORA[name]


def chosen(corpus: Corpus, only: Sequence[str]) -> list[Archive]:
    """The archives whose names match one of the patterns `only`; all if there are none. Raises UserError if none matches."""
    found = [a for a in corpus.archives if not only or any(fnmatch.fnmatchcase(a.name, pattern) for pattern in only)]
    if not found:
        raise UserError(f"--only {' '.join(only)}: matches no archive of {corpus.name}; see docs/corpora.md")
    return found


def get(
    corpus: Corpus, root: str | os.PathLike, only: Sequence[str] = (), watch: Watch = lambda items, total, what: items
) -> Iterator[Row]:
    """Bring the archives of `corpus` into `root`, verify and unpack them; yield a row for each, in order.

    `watch(blocks, total, what)` passes the blocks of 1 MiB of a download through, for a progress bar. A server that cannot be
    reached is not asked again; its archives are then only verified. Raises UserError if the disk is too small.
    """
    root = make_dir(root)
    archives = chosen(corpus, only)
    if not only and not (root / "archives").exists():
        _check_disk(root, corpus.disk, f"{corpus.title} needs")
    make_dir(root / "archives")
    unreachable: set[str] = set()
    for archive in archives:
        try:
            yield Row(archive, _bring(archive, root, unreachable, watch))
        except _Failed as e:
            yield Row(archive, "damaged" if (root / "archives" / archive.name).exists() else "missing", str(e))


def _bring(archive: Archive, root: Path, unreachable: set[str], watch: Watch) -> str:
    """Do for one archive what is left to do; its state afterwards. Raises _Failed."""
    place = (
        root / archive.folder / archive.name
        if archive.folder and not archive.packed
        else root / "archives" / archive.name
    )
    mark = root / "archives" / f"{archive.name}.unpacked"
    if (
        mark.exists()
        or archive.makes
        and (root / archive.makes).exists()
        and not place.exists()
        and not _part(place).exists()
    ):
        return "unpacked"
    if not place.exists():
        make_dir(place.parent)
        _download(archive, _part(place), unreachable, watch)
        os.replace(_part(place), place)
    _verify(archive, place)
    if not archive.packed:
        return "kept"
    _unpack(place, root / archive.folder)
    write_text(mark, f"{place.stat().st_size}\n")
    return "unpacked"


def _part(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")


def _check_disk(folder: Path, size: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder}: {what} about {max(size / GB, 0.1):.1f} GB, and {free / GB:.1f} GB are free; name a folder on a larger "
            "disk, or choose archives with --only"
        )


# --- download --------------------------------------------------------------------------------------------------------


def _download(archive: Archive, part: Path, unreachable: set[str], watch: Watch) -> None:
    """Complete the file `part`, from the first address that has the archive; servers that cannot be reached are added to
    `unreachable`. Raises _Failed."""
    reasons = []
    for address in archive.addresses:
        host = urllib.request.Request(address).host
        if host in unreachable:
            reasons.append(f"{address}: the server cannot be reached")
            continue
        try:
            for _ in watch(
                _blocks(address, part, archive.size), archive.size and -(-archive.size // BLOCK), archive.name
            ):
                pass
            return
        except _Unreachable as e:
            unreachable.add(host)
            reasons.append(str(e))
        except _Refused as e:
            reasons.append(str(e))
    raise _Failed("; ".join(reasons) + f"; try again, or download it elsewhere into {part.parent}")


def _blocks(address: str, part: Path, size: int | None) -> Iterator[int]:
    """Append to `part` what it lacks of the file at `address`; yield the bytes of each block."""
    failures = 0
    while True:
        before = _length(part)
        if size is not None and before == size:
            return
        try:
            total = yield from _connection(address, part, before if size is None or before < size else 0)
            if total is None or _length(part) == total:
                return
            reason = f"the connection broke off after {_length(part)} of {total} bytes"
        except urllib.error.HTTPError as e:
            reason = f"{address}: the server answers {e.code} {e.reason}"
            if e.code == 416 and before:
                # Nothing follows what is here: a run was stopped before the file got its name, or it is of another file.
                if e.headers.get("Content-Range") == f"bytes */{before}":
                    return
                part.unlink()
            elif e.code < 500 and e.code != 429:
                raise _Refused(reason) from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as e:
            reason = f"{address}: cannot be reached ({getattr(e, 'reason', None) or e or type(e).__name__})"
        failures = 0 if _length(part) > before else failures + 1
        if failures == TRIES:
            raise _Unreachable(reason)
        time.sleep(PAUSE_S * 2**failures)


def _connection(address: str, part: Path, start: int) -> Generator[int, None, int | None]:
    """Write what one connection brings of the file from byte `start` on; the length of the complete file, if it is known."""
    request = urllib.request.Request(address, headers={"User-Agent": f"setk/{setk.__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.headers.get_content_type() == "text/html":
            raise _Refused(f"{address}: the server answers with a web page, not with the archive")
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise _Refused(f"{address}: the server answers with another range than was asked for")
        if response.status != 206:  # it does not continue downloads
            start = 0
        length = response.headers.get("Content-Length")
        if length is not None:
            _check_disk(part.parent, int(length), f"{part.stem} needs")
        with open(part, "ab" if start else "wb") as out:
            while block := response.read(BLOCK):
                out.write(block)
                yield len(block)
    return None if length is None else start + int(length)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- what is there ---------------------------------------------------------------------------------------------------


def _verify(archive: Archive, place: Path) -> None:
    """Compare size and checksum with those published. Raises _Failed."""
    if archive.size is not None and place.stat().st_size != archive.size:
        raise _Failed(
            f"{place}: has {place.stat().st_size} bytes, the published archive {archive.size}; delete it and run again"
        )
    if archive.checksum is None:
        return
    kind, _, published = archive.checksum.partition(":")
    with open(place, "rb") as f:
        found = hashlib.file_digest(f, kind).hexdigest()
    if found != published:
        raise _Failed(f"{place}: its {kind} is {found}, the published one {published}; delete it and run again")


def _unpack(place: Path, folder: Path) -> None:
    """Unpack a zip or tar archive; members never leave `folder`. Raises _Failed if it is damaged."""
    make_dir(folder)
    try:
        if place.suffix == ".zip":
            with zipfile.ZipFile(place) as archive:
                _check_disk(
                    folder, sum(member.file_size for member in archive.infolist()), f"the content of {place.name} needs"
                )
                archive.extractall(folder)
        else:
            with tarfile.open(place) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and older have none
                archive.extractall(folder, _plain_members(archive, folder))
    except _DAMAGE as e:
        if isinstance(e, OSError) and e.errno:  # of the disk; those of decompression have no number
            raise
        raise _Failed(f"{place}: is damaged ({e}); delete it and run again") from None


def _plain_members(archive: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """The files and folders of `archive`. Raises tarfile.TarError on links, devices and names that leave `folder`."""
    root = folder.resolve()
    for member in archive:
        if not member.isfile() and not member.isdir():
            raise tarfile.ExtractError(f"{member.name!r} is neither a file nor a folder")
        if not (root / member.name).resolve().is_relative_to(root):
            raise tarfile.ExtractError(f"{member.name!r} is outside of the archive's folder")
        yield member
