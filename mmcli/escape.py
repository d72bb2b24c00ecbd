"""Text that is safe and readable on a terminal: what is invisible is spelt out, what is long is cut in its middle.

A terminal obeys control characters: a file's name could set its title, clear it, or seem to be a message of ours.
Characters that turn the direction of writing, or have no width, make one name look like another.
"""

import re
from unicodedata import category, east_asian_width

LONGEST = 300  # characters of one message
NAME = 120  # … of an input's name in it, where the message is longer than that

# Controls (C0, DEL, C1), line and paragraph separators, what has no width or turns the direction, tags, halves of
# surrogate pairs. Joiners belong to the spelling of many languages and of emoji, and do nothing behind ASCII.
_UNSEEN = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
_IN_TEXT = re.compile(rf"[\x00-\x08\x0b-\x1f{_UNSEEN}]|(?<=[\x00-\x7f])[\u200c\u200d]+")
_IN_LINE = re.compile(rf"[\x00-\x1f{_UNSEEN}]|(?<=[\x00-\x7f])[\u200c\u200d]+")
_IN_JSON = re.compile(f"[{_UNSEEN}]")


def escape(text: str) -> str:
    """Text of any number of lines, with line breaks and tabs as they are: ESC becomes `\\x1b`, U+202E `\\u202e`."""
    return _IN_TEXT.sub(_spelt, text)


def escape_line(text: str) -> str:
    """Text that must stay on one line: line breaks and tabs are spelt out too."""
    return _IN_LINE.sub(_spelt, text)


def escape_json(line: str) -> str:
    """JSON as it was with `ensure_ascii=False`, the same to every reader, with nothing unseen in it and valid UTF-8."""
    return _IN_JSON.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _utf16(match[0])), line)


def escape_xml(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold: they are spelt out; markup is left to the XML writer."""
    return escape(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def shorten(text: str, longest: int = LONGEST) -> str:
    """Text of at most so many characters: of a longer one a third from its beginning and the rest from its end."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def wrap(text: str, columns: int, indent: str = "  ") -> list[str]:
    """A line as several that fit, broken between words; `indent` leads all but the first.

    A word is never broken: what is longer than a line, such as a path, stays where it is, whole to be copied.
    """
    lines, line, width = [], "", 0
    for word in re.findall(r" *[^ ]+", text):
        size, moved = _columns(word), indent + word.lstrip()
        if line and width + size > columns >= _columns(moved):
            lines.append(line)
            line, width = moved, _columns(moved)
        else:
            line, width = line + word, width + size
    return [*lines, line]


def _spelt(match: re.Match) -> str:
    return "".join(map(_name, match[0]))


def _name(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no text
        return f"\\x{code - 0xDC00:02x}"
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    if text.isascii():
        return len(text)
    return sum(0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1 for c in text)
