"""The keys of a configuration with type, default, unit and meaning, read from the dataclass and the comments next to its fields.

A field's meaning is the comment that ends its line. A unit is in brackets at the end of the comment, as in
`level: float  # RMS of the mixture [dBFS]`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import tokenize
import types
import typing
from dataclasses import dataclass
from typing import Any, Iterator


@dataclass(frozen=True)
class Key:
    """One key of a configuration. Nested keys are dotted."""

    name: str
    type: str
    default: str
    unit: str
    meaning: str


def keys(cls: type, prefix: str = "") -> Iterator[Key]:
    """The keys of a dataclass, in order, nested dataclasses included."""
    comments, hints = _comments(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        meaning, unit = _unit(comments.get(field.name, ""))
        nested = _nested(hints[field.name])
        yield Key(prefix + field.name, _type_name(hints[field.name]), _default(field, nested), unit, meaning)
        if nested:
            yield from keys(nested, f"{prefix}{field.name}.")


def _comments(cls: type) -> dict[str, str]:
    """Field name -> the comment that ends its line."""
    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    ends = {
        node.end_lineno: node.target.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] in ends:
            found[ends[token.start[0]]] = token.string.lstrip("# ")
    return found


def _unit(comment: str) -> tuple[str, str]:
    """The comment without its unit, and the unit."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]+)\]", comment)
    return (match[1], match[2]) if match else (comment, "")


def _nested(hint: Any) -> type | None:
    """The dataclass that a field holds, if it holds one."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def _type_name(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("none" if arg is type(None) else _type_name(arg) for arg in args)
    if dataclasses.is_dataclass(hint):
        return "mapping"
    if origin is dict:
        return f"mapping of {_type_name(args[1])}"
    if origin in (tuple, list):
        if args[-1] is Ellipsis or origin is list:
            return f"list of {_type_name(args[0])}"
        return f"[{', '.join(map(_type_name, args))}]"
    return {"Any": "any", "str": "text"}.get(getattr(hint, "__name__", str(hint)), getattr(hint, "__name__", str(hint)))


def _default(field: dataclasses.Field, nested: type | None) -> str:
    if field.default is not dataclasses.MISSING:
        return "" if nested and field.default is not None else _shown(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _shown(field.default_factory())
    return "required"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
