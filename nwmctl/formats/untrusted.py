"""Reading JSON that anybody may have sent: every function either gives what its name says or raises DdiFormatError.

Bounds come first (length, depth through the parser, digits of a number), so that a hostile body costs little. Knows
no message.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, TypeVar

from nwmctl.errors import DdiFormatError

MAX_BODY = 256 * 1024
MAX_TEXT = 16 * 1024

_NUMBER = re.compile(r"\d{1,18}\Z", re.ASCII)
Word = TypeVar("Word", bound=StrEnum)


def parse(body: bytes) -> Any:
    """The JSON value of a body."""
    if len(body) > MAX_BODY:
        raise garbage(f"it is longer than {MAX_BODY} bytes")
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise garbage("it is not JSON in UTF-8") from problem


def as_object(value: Any, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise garbage(f"{name} is missing or not an object")
    return value


def as_list(value: Any, name: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise garbage(f"{name} is missing or not a list")
    return value


def as_text(value: Any, name: str) -> str:
    """A text that every database can store."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise garbage(f"{name} is missing, not a text, or longer than {MAX_TEXT}")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise garbage(f"{name} holds characters that no database stores")
    return value


def as_number(value: Any, name: str) -> int:
    """A whole number from 0, written as a number or as a text."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    if isinstance(value, str) and _NUMBER.match(value):
        return int(value)
    raise garbage(f"{name} is missing or not a whole number from 0")


def as_hex(value: Any, digits: int, name: str) -> str:
    """That many hexadecimal digits, in lower case."""
    text = as_text(value, name).lower()
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise garbage(f"{name} does not have {digits} hexadecimal digits")
    return text


def as_word(kind: type[Word], value: Any, name: str) -> Word:
    """One of an enumeration's words."""
    if not isinstance(value, str) or value not in set(kind):
        raise garbage(f"{name} is not one of {', '.join(kind)}")
    return kind(value)


def garbage(why: str) -> DdiFormatError:
    """The refusal."""
    return DdiFormatError(
        "a message of the update protocol cannot be read",
        why=why,
        next="send what the DDI specification describes; nothing of this message was stored",
    )
