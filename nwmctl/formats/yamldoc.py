"""YAML to plain values plus the line of every key, so that errors can name the place.

Safe subset only: no tags, no aliases across documents, no duplicate keys. Does not know any schema.
"""

from __future__ import annotations

from nwmctl.errors import SchemaError
from nwmctl.formats.canonical import Plain
from nwmctl.formats.codec import Path, Source

_MAX_BYTES = 4 << 20
_MAX_KEYS = 200_000


def parse(data: bytes, name: str) -> tuple[Plain, Source]:
    """Parse one YAML document; ``name`` is what errors call the file. Raises SchemaError."""
    import yaml

    lines: dict[Path, int] = {}
    source = Source(name, lines)
    if len(data) > _MAX_BYTES:
        raise source.refuse((), "the file is too large", f"more than {_MAX_BYTES} bytes", "split it")
    try:
        text = data.decode("utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise source.refuse((), "the file is empty", "a mapping is expected", "write the document")
        _note_lines(node, (), lines, source, frozenset())
        plain: Plain = loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        mark = getattr(problem, "problem_mark", None)
        at = f"{name}:{mark.line + 1}" if mark else name
        reason = str(getattr(problem, "problem", None) or problem)
        raise SchemaError(f"{at}: not valid YAML", why=reason, next="correct the file's syntax") from problem
    _refuse_odd(plain, source, ())
    return plain, source


def _note_lines(node: object, path: Path, lines: dict[Path, int], source: Source, open_: frozenset[int]) -> None:
    import yaml

    if id(node) in open_:
        raise source.refuse(path, "an alias contains itself", "the document would never end", "remove the alias")
    if len(lines) > _MAX_KEYS:
        # Nested aliases can blow a small file up beyond any memory.
        raise source.refuse(
            path, "too many keys", f"more than {_MAX_KEYS} after aliases are resolved", "split the file"
        )
    open_ |= {id(node)}
    match node:
        case yaml.MappingNode():
            seen: set[str] = set()
            lines.setdefault(path, node.start_mark.line + 1)
            for key, value in node.value:
                name = str(key.value)
                at = (*path, name)
                lines[at] = key.start_mark.line + 1
                if name in seen:
                    raise source.refuse(at, f"key '{name}' occurs twice", "one would hide the other", "remove one")
                seen.add(name)
                _note_lines(value, at, lines, source, open_)
        case yaml.SequenceNode():
            lines.setdefault(path, node.start_mark.line + 1)
            for index, value in enumerate(node.value):
                lines[(*path, index)] = value.start_mark.line + 1
                _note_lines(value, (*path, index), lines, source, open_)
        case _:
            return


def _refuse_odd(plain: object, source: Source, path: Path) -> None:
    match plain:
        case dict():
            for key, value in plain.items():
                if not isinstance(key, str):
                    raise source.refuse(path, f"key {key!r} is not a text", "keys are texts", "quote the key")
                _refuse_odd(value, source, (*path, key))
        case list():
            for index, value in enumerate(plain):
                _refuse_odd(value, source, (*path, index))
        case None | bool() | int() | float() | str():
            return
        case _:
            raise source.refuse(
                path,
                f"{plain!r} is a {type(plain).__name__}",
                "only texts, numbers, lists and mappings are known",
                "quote the value",
            )
