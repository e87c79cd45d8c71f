"""The exceptions that a user can act on."""


class UserError(Exception):
    """Something that the user can fix. The message names the thing and the fix; commands print it and exit 2."""


class AudioError(UserError):
    """One utterance that cannot be read or used; lists go on with the next, and the command exits 1."""
