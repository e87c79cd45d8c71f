"""YAML to dataclass, strictly: an unknown key is an error that names the nearest known one.

Only scalars, lists and mappings come from a file; no tags, no references, no code. A file has at most 1 MiB and 20,000
values, nested at most 20 deep.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from pathlib import Path
from typing import Any, Mapping, Sequence, TypeVar

import yaml

from setk.core.errors import UserError, nearest
from setk.core.files import check_readable

T = TypeVar("T")
SUFFIXES = (".yaml", ".yml")
_MOST_BYTES, _MOST_NODES, _DEEPEST = 1 << 20, 20_000, 20
# What PyYAML raises for a scalar that its tag cannot hold: a date that does not exist, an integer of 5000 digits.
_SCALAR_ERRORS = (ValueError, OverflowError, AttributeError)


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits, and without aliases: a few lines of those can become gigabytes, or contain themselves."""

    _nodes = _depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            self._refuse("references (*name) are not supported; write the value again")
        self._nodes += 1
        self._depth += 1
        if self._nodes > _MOST_NODES:
            self._refuse(f"has more than {_MOST_NODES} values")
        if self._depth > _DEEPEST:
            self._refuse(f"is nested more than {_DEEPEST} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"has {shown(key.value)} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _refuse(self, problem: str) -> None:
        raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)


def shown(value: Any) -> str:
    """A value as a message shows it: its beginning, if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def included() -> dict[str, Path]:
    """Name -> file of every training config in the package, sorted by name."""
    return {p.stem: p for p in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))}


def find(spec: str | os.PathLike) -> Path:
    """The file that CONFIG names: a path, or the name of an included config. Raises UserError if neither."""
    spec = os.fspath(spec)
    if os.sep in spec or spec.endswith(SUFFIXES) or Path(spec).is_file():
        return Path(spec)
    known = included()
    if spec not in known:
        raise UserError(
            f"no config is called '{spec}'; name a .yaml file or an included config ({nearest(spec, known)})"
        )
    return known[spec]


def read_yaml(path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError with file and line on bad syntax or another kind of document."""
    check_readable(path)
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UserError(f"{path}: has more than {_MOST_BYTES} bytes; is it a config?")
        data = yaml.load(text, _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; expected a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        mark = getattr(e, "problem_mark", None)
        raise UserError(
            f"{path}{f':{mark.line + 1}' if mark else ''}: is not YAML: {' '.join(str(getattr(e, 'problem', e)).split())}"
        ) from None
    except _SCALAR_ERRORS as e:
        raise UserError(f"{path}: has a value that cannot be read: {str(e)[:100]}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: has no 'key: value' lines")
    return data


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make dataclass `cls` from a mapping, nested dataclasses included; `where` is used in messages."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected 'key: value' lines, not {values!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key '{str(key)[:80]}'; {nearest(str(key)[:80], known)}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: '{missing[0]}' is missing")
    return cls(**{k: _convert(v, hints[k], f"{where}: {k}") for k, v in values.items()})


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        return _convert(
            value, next((a for a in kinds if isinstance(value, typing.get_origin(a) or a)), kinds[0]), where
        )
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: expected a list, not {shown(value)}")
        if origin is tuple and args[-1:] != (...,) and len(value) != len(args):
            raise UserError(f"{where}: expected {len(args)} values, not {len(value)}")
        kinds = args if origin is tuple and args[-1:] != (...,) else [args[0]] * len(value)
        return origin(_convert(v, a, where) for v, a in zip(value, kinds))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected 'key: value' lines, not {shown(value)}")
        return {str(k): _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML 1.1 reads 1e-3 as a string
        except (ValueError, OverflowError):
            raise UserError(f"{where}: expected float, not {shown(value)}") from None
        if not math.isfinite(number):
            raise UserError(f"{where}: expected a finite float, not {shown(value)}")
        return number
    if type(value) is not hint:
        raise UserError(f"{where}: expected {hint.__name__}, not {shown(value)}")
    return value


def override(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply `key=value` settings (dotted keys reach inside, values are YAML) to a copy of `values`."""
    values = {k: (override(v, ()) if isinstance(v, dict) else v) for k, v in values.items()}
    for setting in settings:
        key, eq, text = setting.partition("=")
        if not eq:
            raise UserError(f"--set {setting}: write key=value")
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {setting}: '{part}' has a value, not further keys")
        try:
            node[last] = yaml.load(text, _Loader)
        except (yaml.YAMLError, *_SCALAR_ERRORS):
            raise UserError(f"--set {setting[:80]}: the value is not YAML") from None
    return values


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as plain mappings, lists and scalars, fit for YAML and for a checkpoint."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
