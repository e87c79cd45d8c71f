"""Everything that a person reads follows docs/glossary.md: no private vocabulary in docs, help, errors, docstrings and comments."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What not to write -> what to write.
REPLACED = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"lest": "so that ... not",
    r"whereof|likewise|in the manner of": "of which, also, like",
    r"wants|wanted": "needs, expected",
    r"tells?|told": "print, report, show",
    r"stands? (in|on|beside|behind|under|for|first|last|still|alone|about|between|below|above|outside|inside|aside)": "is in, is next to",
    r"stood (in|on|beside|behind|under|still)": "was in",
    r"ships|shipped|what ships": "included",
    r"alike": "the same, shared",
    r"whole or not": "complete or not",
    r"(?<!there )(?<!There )(?<!which )(is|are) no (?!longer|more|less|later|better)\w+": "is not a",
    r"to be had|can be had": "available",
    r"of (ours|yours|theirs)": "our, your, their",
    r"(a|the|this|each|its|your|CONF's) confs?": "config",
    r"came to a stand|stays? outside": "stopped; is not part of",
    r"its like|and the like": "similar",
    r"(from|of) a stranger": "untrusted",
    r"but for": "except",
    r"gone on|goes on": "continues",
}
FORBIDDEN = re.compile(r"(?<![.])\b(" + "|".join(f"(?:{idiom})" for idiom in REPLACED) + r")\b")
PROSE = (".md", ".html", ".sh", ".yaml", ".toml", ".cff")
CODE = (".py", ".c", ".h", ".js", ".css")
# Text of other people, or that names the words itself.
EXEMPT = ("LICENSE", "tests/", "results/", "data/mini/sentences.txt")


def read_by_people() -> list[Path]:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        ROOT / name
        for name in tracked
        if name.endswith(PROSE + CODE) and not name.startswith(EXEMPT) and (ROOT / name).is_file()
    ]


def test_no_private_vocabulary():
    found = []
    for path in read_by_people():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {match.group()}" for match in FORBIDDEN.finditer(line)]
    assert not found, f"{len(found)} places; {REPLACED}:\n" + "\n".join(found)


def test_the_word_list_finds_what_it_is_for():
    for bad in (
        "mend the file",
        "is no checkpoint",
        "are no files",
        "a list is wanted",
        "stands in the file",
        "what ships",
        "the conf says",
    ):
        assert FORBIDDEN.search(bad), bad
    for good in ("There is no second version", "is no longer there", "commend", "the config is wrong"):
        assert not FORBIDDEN.search(good), good
