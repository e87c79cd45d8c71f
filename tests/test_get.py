"""se-prep get: downloads from a local server that breaks off, what is there without a server, and the generated page."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import shutil
import socket
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ROOT
from setk.core.errors import UserError
from setk.data.corpora import get as library
from setk.data.corpora.archives import CORPORA, Archive, Corpus, document


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path. Each connection ends after `limit` bytes; requests are listed. `total`: whether the length is
    named where nothing follows."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit, self.ranges, self.total, self.requests = 1 << 30, True, True, []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        if self.path == "/page":
            self.answer(200, b"<html>log in first</html>", {"Content-Type": "text/html; charset=utf-8"})
        elif self.path[1:] not in server.files:
            self.send_error(404)
        else:
            data = server.files[self.path[1:]]
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
            if start and start >= len(data):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"} if server.total else {})
            else:
                range_ = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
                self.answer(206 if start else 200, data[start:], {"Content-Type": "application/octet-stream", **range_})

    def answer(self, code: int, data: bytes, headers: dict[str, str]):
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data[: self.server.limit])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(library, "PAUSE_S", 0.0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:bz2") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def corpus(*archives: Archive) -> Corpus:
    return Corpus("made", "made up", "", "", "", 1, archives, "", ("a {root}", "b"))


def archive(server: Server, name: str, data: bytes, **facts) -> Archive:
    """An archive with all facts known, that the server has."""
    server.files[name] = data
    return replace(Archive(name, (server.address(name),), len(data), "md5:" + hashlib.md5(data).hexdigest()), **facts)


def states(corpus: Corpus, root: Path, *only: str) -> dict[str, str]:
    return {row.archive.name: row.state for row in library.get(corpus, root, only)}


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server, tmp_path, rng):
    big = rng.bytes(3 * library.BLOCK + 12345)
    server.limit = library.BLOCK + 77
    made = corpus(archive(server, "wavs.zip", zipped({"wavs/a.wav": big, "wavs/b.wav": b"b"}), makes="wavs"))
    assert states(made, tmp_path / "x") == {"wavs.zip": "unpacked"}
    assert (tmp_path / "x/wavs/a.wav").read_bytes() == big and (tmp_path / "x/wavs/b.wav").read_bytes() == b"b"
    starts = [int(wanted[6:-1]) if wanted else 0 for _, wanted in server.requests]
    assert starts == [i * server.limit for i in range(4)]
    assert states(made, tmp_path / "x") == {"wavs.zip": "unpacked"} and len(server.requests) == 4


def test_a_run_that_was_stopped_goes_on_in_the_next_one(server, tmp_path):
    data = tarred({"LibriSpeech/dev/a.flac": b"audio" * 1000})
    made = corpus(archive(server, "dev.tar.bz2", data))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/dev.tar.bz2.part").write_bytes(data[:100])
    assert states(made, tmp_path) == {"dev.tar.bz2": "unpacked"}
    assert server.requests == [("/dev.tar.bz2", "bytes=100-")]
    assert (tmp_path / "LibriSpeech/dev/a.flac").read_bytes() == b"audio" * 1000


def test_a_server_without_ranges_is_asked_from_the_start(server, tmp_path):
    data = zipped({"a/x": b"x" * 5000})
    made = corpus(archive(server, "a.zip", data))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/a.zip.part").write_bytes(b"?" * 50)
    server.ranges = False
    assert states(made, tmp_path) == {"a.zip": "unpacked"} and (tmp_path / "archives/a.zip").read_bytes() == data


def test_a_part_of_another_file_is_replaced(server, tmp_path):
    data = zipped({"a/x": b"x"})
    made = corpus(archive(server, "a.zip", data, size=None))
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/a.zip.part").write_bytes(b"?" * (len(data) + 10))
    assert states(made, tmp_path) == {"a.zip": "unpacked"}


def test_a_download_that_was_stopped_before_its_last_step_is_not_repeated(server, tmp_path):
    data = zipped({"a/x": b"x"})
    made = corpus(archive(server, "a.zip", data, size=None))
    for server.total in (True, False):
        place = tmp_path / str(server.total)
        (place / "archives").mkdir(parents=True)
        (place / "archives/a.zip.part").write_bytes(data)
        assert states(made, place) == {"a.zip": "unpacked"}
    wanted = f"bytes={len(data)}-"
    assert [range_ for _, range_ in server.requests] == [wanted, wanted, None]


def test_the_next_address_is_tried_when_one_has_moved(server, tmp_path):
    good = archive(server, "a.zip", zipped({"a/x": b"x"}))
    for wrong in ("none", "page"):
        made = corpus(replace(good, addresses=(server.address(wrong), *good.addresses)))
        assert states(made, tmp_path / wrong) == {"a.zip": "unpacked"}
    made = corpus(replace(good, addresses=(f"http://127.0.0.1:{closed_port()}/a.zip", *good.addresses)))
    assert states(made, tmp_path / "closed") == {"a.zip": "unpacked"}
    (row,) = library.get(
        corpus(replace(good, addresses=(server.address("none"), server.address("page")))), tmp_path / "x"
    )
    assert row.state == "missing" and "404" in row.error and "web page" in row.error


def test_a_wrong_checksum_or_size_is_named(server, tmp_path):
    good = archive(server, "a.zip", zipped({"a/x": b"x"}))
    (row,) = library.get(corpus(replace(good, checksum="md5:" + "0" * 32)), tmp_path / "sum")
    assert row.state == "damaged" and "its md5 is " in row.error and "delete it and run again" in row.error
    assert not (tmp_path / "sum/a").exists()
    (row,) = library.get(
        corpus(replace(good, size=None, checksum="sha256:" + hashlib.sha256(server.files["a.zip"]).hexdigest())),
        tmp_path / "b",
    )
    assert row.state == "unpacked"
    (tmp_path / "size/archives").mkdir(parents=True)
    (tmp_path / "size/archives/a.zip").write_bytes(b"short")
    (row,) = library.get(corpus(good), tmp_path / "size")
    assert row.state == "damaged" and "has 5 bytes" in row.error


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2"])
def test_an_archive_without_a_checksum_that_is_damaged_is_named(server, tmp_path, name):
    made = corpus(archive(server, name, b"neither zip nor tar" * 100, checksum=None))
    (row,) = library.get(made, tmp_path)
    assert row.state == "damaged" and "is damaged" in row.error


@pytest.mark.parametrize("name", ["../outside", "a/../../outside"])
def test_an_archive_does_not_write_outside_its_folder(server, tmp_path, name):
    made = corpus(archive(server, "a.tar.bz2", tarred({name: b"x"})))
    (row,) = library.get(made, tmp_path / "in")
    assert row.state == "damaged" and repr(name) in row.error and not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_a_member_that_is_not_a_file_or_folder_is_refused(server, tmp_path, kind):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:bz2") as made:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, "../outside"
        made.addfile(info)
    (row,) = library.get(corpus(archive(server, "a.tar.bz2", data.getvalue())), tmp_path / "in")
    assert row.state == "damaged" and "neither a file nor a folder" in row.error
    assert not list(tmp_path.rglob("a"))


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_without_a_network_what_is_there_is_verified_and_one_host_is_asked_once(server, tmp_path, monkeypatch):
    gone = f"http://127.0.0.1:{closed_port()}/"
    data = zipped({"here/x": b"x"})
    here = replace(archive(server, "here.zip", data), addresses=(gone + "here.zip",))
    away = [Archive(f"away{i}.zip", (f"{gone}away{i}.zip",)) for i in range(3)]
    listed = Archive("list.csv", (gone + "list.csv",), folder="metadata", packed=False)
    found = Archive("found.zip", (gone + "found.zip",), makes="found")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/here.zip").write_bytes(data)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/list.csv").write_text("a,b\n")
    (tmp_path / "found").mkdir()
    tries = []
    monkeypatch.setattr(library.time, "sleep", tries.append)
    rows = list(library.get(corpus(away[0], here, away[1], listed, found, away[2]), tmp_path))
    assert [row.state for row in rows] == ["missing", "unpacked", "missing", "kept", "unpacked", "missing"]
    assert (
        all("cannot be reached" in row.error for row in rows if row.state == "missing")
        and len(tries) == library.TRIES - 1
    )


def test_a_small_disk_is_named_before_anything_is_downloaded(server, tmp_path, monkeypatch):
    made = replace(corpus(archive(server, "a.zip", zipped({"a/x": b"x"}))), disk=10**12)
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 3 * 10**9))
    with pytest.raises(UserError, match=r"needs about 1000.0 GB, and 3.0 GB are free; name a folder on a larger disk"):
        list(library.get(made, tmp_path))
    assert not server.requests and states(made, tmp_path, "a*") == {"a.zip": "unpacked"}


def test_the_command_prints_a_table_and_the_commands_that_follow(
    server, tmp_path, monkeypatch, capsys, restored_sigpipe
):
    from setk.cli import prep

    made = replace(
        corpus(
            archive(server, "a.zip", zipped({"a/x": b"x"})),
            Archive("log.zip", (server.address("none"),), optional=True),
        ),
        name="vbd",
    )
    monkeypatch.setitem(CORPORA, "vbd", made)
    monkeypatch.setattr(sys, "argv", ["se-prep", "get", "vbd", str(tmp_path)])
    prep.main()
    out, err = capsys.readouterr()
    assert out == "a.zip\tunpacked\nlog.zip\tmissing\n"
    assert f"se-prep: next:\n  a {tmp_path}\n  b\n" in err and "optional" in err
    monkeypatch.setitem(CORPORA, "vbd", corpus(Archive("gone.zip", (server.address("none"),))))
    with pytest.raises(SystemExit) as end:
        prep.main()
    out, err = capsys.readouterr()
    assert end.value.code == 1 and out == "gone.zip\tmissing\n" and "next" not in err


def test_an_unknown_corpus_or_pattern_is_one_line(se, tmp_path):
    done = se("prep", "get", "vbb", tmp_path)
    assert done.returncode == 2 and done.err == "se-prep: no corpus is called 'vbb'; did you mean 'vbd'?\n"
    done = se("prep", "get", "vbd", tmp_path, "--only", "x*")
    assert done.returncode == 2 and "--only x*: matches no archive of vbd" in done.err


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_of_corpora_is_current():
    assert (ROOT / "docs/corpora.md").read_text() == document(), (
        "run: python -m setk.data.corpora.archives > docs/corpora.md"
    )


@pytest.mark.parametrize("found", CORPORA.values(), ids=lambda c: c.name)
def test_the_table_is_well_formed(found):
    names = [a.name for a in found.archives]
    assert len(set(names)) == len(names) and sum(a.size or 0 for a in found.archives) < found.disk
    for a in found.archives:
        assert all(re.fullmatch(r"https://\S+", address) for address in a.addresses)
        assert a.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", a.checksum)
        assert not a.packed or a.name.endswith((".zip", ".tar.gz", ".tar.bz2"))
    assert len(found.then) == 2


@pytest.mark.parametrize("found", CORPORA.values(), ids=lambda c: c.name)
def test_the_commands_that_follow_have_options_that_exist(found, se, tmp_path):
    for line in found.then:
        command, *args = line.format(root=tmp_path / "none").split()
        done = se(command.removeprefix("se-"), *args, cwd=tmp_path)
        assert done.returncode == 2 and "No such option" not in done.err and "Missing" not in done.err
        assert re.search(r"no such|lists no|does not exist|not a", done.err), done.err
