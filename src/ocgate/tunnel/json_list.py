"""The items of a JSON list, one at a time: what an answer may cost is known beforehand. Pure.

`json.loads` of 32 MB of `{},` or `[],` takes 700 MB: an object is 20 to 30 times as large as its
text. Here each item is decoded by itself out of a window of the text, and the caller makes of it
what it needs before the next one is looked at. So beside the text memory holds one item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# A server takes 4 KB, the country with the most cities 10 KB.
LARGEST_ITEM = 64 << 10  # characters

# Of a country 500 servers are asked for; there are 250 countries.
MOST_ITEMS = 1000

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODE = json.JSONDecoder().raw_decode


class NoList(Exception):
    """The text is no list of such items; the words say why, as the end of `the answer …`."""


def items(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a list; what else it holds is passed over. Raises NoList, which may be after
    the first items."""
    text = _text(body)
    at = _past_blanks(text, 0)
    if text[at : at + 1] != "[":
        raise NoList("is no list" if text[at : at + 1] in ("{", '"') else "is no JSON")
    at = _past_blanks(text, at + 1)
    count = 0
    while text[at : at + 1] != "]" or count:
        item, at = _item(text, at)
        count += 1
        if count > MOST_ITEMS:
            raise NoList(f"has more than {MOST_ITEMS} items")
        if isinstance(item, dict):
            yield item
        del item
        at = _past_blanks(text, at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise NoList("is no JSON")
        at = _past_blanks(text, at + 1)
    if _past_blanks(text, at + 1) != len(text):
        raise NoList("is no JSON")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise NoList("is no JSON") from None


def _item(text: str, at: int) -> tuple[Any, int]:
    """One item and where it ends."""
    window = text[at : at + LARGEST_ITEM]
    try:
        item, size = _DECODE(window)
    except (ValueError, RecursionError):
        cut_off = at + LARGEST_ITEM < len(text)
        said = f"is no JSON, or has an item of more than {LARGEST_ITEM} characters"
        raise NoList(said if cut_off else "is no JSON") from None
    return item, at + size


def _past_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None
    return found.end()
