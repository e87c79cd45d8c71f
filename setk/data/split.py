"""A data directory in parts of about equal duration."""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import Any, Mapping

from setk.core.errors import UserError
from setk.data.datadir import TABLES, DataDir


def split(data: DataDir, parts: int, by_speaker: bool = False) -> list[tuple[Path, int, float]]:
    """Write DIR/splitN/1 ... N = `parts`, data directories that share the utterances of DIR; path, utterances and
    seconds of each.

    The longest remaining utterance goes to the shortest part, with `by_speaker` all of a speaker (utt2spk) at once;
    so the same directory is always split in the same way. Of speech and noise, the speech is split; noise and room
    responses go completely to each part. Durations are those of utt2dur, or of the wavs. Raises UserError where a
    part would be empty, or a speaker is not known.
    """
    main = data.streams[0]
    tables = {f"{stream}.scp": data.table(f"{stream}.scp") for stream in data.streams} | {
        t: data.table(t) for t in TABLES
    }
    utts = sorted(data.pairs() if data.is_pairs else tables[f"{main}.scp"], key=str.encode)
    groups: dict[str, list[str]] = {}
    for utt in utts:
        if by_speaker and utt not in tables["utt2spk"]:
            raise UserError(f"{data.path}/utt2spk: {utt} has no speaker, which --by-speaker needs; complete the table")
        groups.setdefault(tables["utt2spk"][utt] if by_speaker else utt, []).append(utt)
    if not 1 <= parts <= len(groups):
        what = "speakers" if by_speaker else "utterances"
        raise UserError(
            f"{data.path}: {len(groups)} {what} cannot be split into {parts} parts; choose 1 ... {len(groups)}"
        )
    length = {utt: _duration(data, tables, f"{main}.scp", utt) for utt in utts}
    durations = {group: sum(length[utt] for utt in members) for group, members in groups.items()}
    heap: list[tuple[float, int, list[str]]] = [(0.0, part, []) for part in range(1, parts + 1)]
    for group in sorted(groups, key=lambda g: (-durations[g], g.encode())):
        total, part, members = heap[0]
        members.extend(groups[group])
        heapq.heapreplace(heap, (total + durations[group], part, members))
    shared = {f"{stream}.scp" for stream in data.streams if data.is_pairs or stream == main} | set(TABLES)
    written = []
    for total, part, members in sorted(heap, key=lambda h: h[1]):
        folder = data.path / f"split{parts}" / str(part)
        DataDir.write(
            folder,
            {
                name: {utt: table[utt] for utt in members if utt in table} if name in shared else table
                for name, table in tables.items()
                if table
            },
        )
        written.append((folder, len(members), total))
    return written


def _duration(data: DataDir, tables: Mapping[str, Mapping[str, Any]], main: str, utt: str) -> float:
    if utt not in tables["utt2dur"]:
        info = tables[main][utt].probe()
        return info.frames / info.rate
    text = tables["utt2dur"][utt]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{data.path}/utt2dur: {utt} has {text!r}; expected a number of seconds")
    return seconds
