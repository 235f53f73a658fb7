"""Frozen dataclasses to plain values and back, strictly.

The annotations of a domain type are its schema: an unknown key, a missing key or a value of the wrong kind is a
``SchemaError`` that names file, line and key. Understood: dataclasses, enums, ``Digest``, ``tuple[T, ...]``,
``dict[str, T]``, ``T | None``, unions of scalars, ``str``, ``int``, ``float``, ``bool``. A field that equals its
default is left out when it is written, so an added field does not change the bytes of old documents.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nwmctl.domain.digest import Digest
from nwmctl.errors import NwmError, SchemaError
from nwmctl.formats.canonical import Plain

T = TypeVar("T")
Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a document came from: ``name`` for people, ``lines`` maps a key path to its line (1-based)."""

    name: str
    lines: Mapping[Path, int] = dataclasses.field(default_factory=dict)

    def at(self, path: Path) -> str:
        """``file:line: key`` for an error, as exact as is known."""
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        return ": ".join(part for part in (f"{self.name}:{line}" if line else self.name, key) if part)

    def refuse(self, path: Path, what: str, why: str, next: str) -> SchemaError:
        """A SchemaError at ``path``."""
        return SchemaError(f"{self.at(path)}: {what}", why=why, next=next)


def to_plain(value: object) -> Plain:
    """A domain value as plain JSON values; fields that equal their default are left out."""
    match value:
        case Enum():
            return str(value.value)
        case Digest():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case tuple() | list():
            return [to_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                field.name: to_plain(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if not _is_default(field, getattr(value, field.name))
            }
    raise TypeError(f"{type(value).__name__} has no place in a document")


def from_plain(kind: type[T], plain: object, source: Source, path: Path = ()) -> T:
    """Read a domain value of type ``kind``. Raises SchemaError with file, line and key."""
    result: T = _read(kind, plain, source, path)
    return result


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, plain: object, source: Source, path: Path) -> Any:
    if kind is object:
        return plain  # a field that this reader hands on unread
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), plain, source, path)
    if origin is tuple:
        items = _expect(list, plain, source, path)
        return tuple(_read(get_args(kind)[0], item, source, (*path, i)) for i, item in enumerate(items))
    if origin is dict:
        table = _expect(dict, plain, source, path)
        return {str(key): _read(get_args(kind)[1], item, source, (*path, str(key))) for key, item in table.items()}
    if dataclasses.is_dataclass(kind) and kind is not Digest:
        return _read_dataclass(kind, plain, source, path)
    return _read_scalar(kind, plain, source, path)


def _read_union(options: tuple[Any, ...], plain: object, source: Source, path: Path) -> Any:
    if plain is None and type(None) in options:
        return None
    real = [option for option in options if option is not type(None)]
    if len(real) == 1:
        return _read(real[0], plain, source, path)
    # bool is an int in Python: the exact type decides, so that `true` never becomes 1.
    for option in sorted(real, key=lambda option: option is not type(plain)):
        try:
            return _read(option, plain, source, path)
        except SchemaError:
            continue  # not this option; if it is none of them, the refusal below names them all
    raise _wrong(" or ".join(_name(option) for option in real), plain, source, path)


def _read_dataclass(kind: Any, plain: object, source: Source, path: Path) -> Any:
    table = _expect(dict, plain, source, path)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            raise source.refuse(
                (*path, str(key)),
                f"unknown key '{key}'",
                f"{_name(kind)} has the keys {', '.join(fields)}",
                "correct the key's spelling or remove it",
            )
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in table:
            raise source.refuse(path, f"key '{name}' is missing", f"{_name(kind)} needs it", f"add '{name}:'")
    values = {
        name: _read(hint, table[name], source, (*path, name))
        for name, hint in _hints(kind).items()
        if name in fields and name in table
    }
    try:
        return kind(**values)
    except SchemaError:
        raise
    except ValueError as problem:
        # A domain type refuses impossible values in __post_init__; here the refusal gets its place in the file.
        raise source.refuse(path, str(problem), f"{_name(kind)} cannot hold this", "correct the value") from problem


def _read_scalar(kind: Any, plain: object, source: Source, path: Path) -> Any:
    if kind is Digest:
        try:
            return Digest.parse(_expect(str, plain, source, path))
        except NwmError as problem:
            raise source.refuse(path, problem.what, problem.why, problem.next) from problem
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = [str(member.value) for member in kind]
        if not isinstance(plain, str) or plain not in known:
            raise _wrong(f"one of {', '.join(known)}", plain, source, path)
        return kind(plain)
    if kind is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        # A whole number of JSON has any length, and one that no float holds is as good as infinite.
        if abs(plain) > sys.float_info.max or not math.isfinite(plain):
            raise _wrong("a finite number", plain, source, path)
        return float(plain)
    return _expect(kind, plain, source, path)


def _expect(kind: Any, plain: object, source: Source, path: Path) -> Any:
    if type(plain) is not kind:
        raise _wrong(_name(kind), plain, source, path)
    return plain


def _wrong(expected: str, plain: object, source: Source, path: Path) -> SchemaError:
    shown = repr(plain)[:60]
    return source.refuse(path, f"{shown} is not {expected}", f"{expected} is expected here", "correct the value")


_PLAIN_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def _name(kind: Any) -> str:
    return _PLAIN_NAMES.get(kind) or str(getattr(kind, "__name__", kind))
