"""The exceptions that a user can act on, and what to say of an unknown name."""

from __future__ import annotations

from typing import Iterable


class UserError(Exception):
    """Something that the user can fix. The message names the thing and the fix; commands print it and exit 2."""


class Killed(UserError):
    """A process of the command was killed; the command exits 1."""


class AudioError(UserError):
    """One utterance that cannot be read or used; lists go on with the next, and the command exits 1."""


class Truncated(AudioError):
    """Audio that ends `seconds` before the length that its header states (None: it states none), after its last sample."""

    def __init__(self, message: str, seconds: float | None):
        super().__init__(message)
        self.seconds = seconds

    def __reduce__(self):
        return Truncated, (str(self), self.seconds)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of `known`: the nearest, or all of them."""
    import difflib

    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else "known: " + (", ".join(known) or "none")
