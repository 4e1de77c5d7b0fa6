"""Is there text in a document that no reader sees? Counted by kind, told, and marked for the analysis.

Preprints have carried orders to a model in white or tiny letters. Such text is not thrown away behind
the team's back (it may be a table head, white on blue): it is counted in characters, a notice names the
document, and every row of the analysis that comes from it carries the flag `invisible_text`. What a
reader leaves out because the format itself calls it hidden stands in `Document.left_out` as well.
"""

from __future__ import annotations

import re
from dataclasses import replace

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document

SMALLEST_PT = 2.0  # letters below this height are for machines
WHITE = 250  # of 255, in each colour

KINDS = {
    "white": say("white on white"),
    "tiny": say("smaller than {size:.0f} points", size=SMALLEST_PT),
    "off_page": say("beside the page"),
    "not_drawn": say("never drawn"),
    "style": say("hidden by the style"),
}
# What readers leave out and count because the file calls it hidden.
_LEFT_OUT = ("hidden elements", "hidden passages")


def with_hidden(document: Document) -> Document:
    """The document with its notice and its flags, if it holds text that no reader sees."""
    found = {k: n for k, n in document.hidden.items() if n}
    characters = document.left_out.get("invisible characters", 0)
    flags: dict[str, int] = {}
    if found or any(document.left_out.get(k) for k in _LEFT_OUT):
        flags["invisible_text"] = sum(found.values()) or 1
    if characters:
        flags["hidden_characters"] = characters
    if not flags:
        return document
    notices = document.notices
    if found:
        notices = (*notices, _notice(document, found))
    return replace(document, metadata={**document.metadata, **flags}, notices=notices)


def _notice(document: Document, found: dict[str, int]) -> Sentence:
    kinds = [say("{kind}: {count:,}", kind=KINDS[k], count=n) for k, n in sorted(found.items())]
    return say(
        "'{document}' holds text that no reader sees (characters: {kinds}); it stayed in and is "
        "flagged in the analysis.",
        document=document.id,
        kinds=kinds,
    )


_NOTHING = r"(?:0+(?:\.0*)?|\.0+)"
_DISPLAY = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    rf"|opacity\s*:\s*{_NOTHING}%?\s*(?:[;!]|$)|font-size\s*:\s*{_NOTHING}(?:[a-z]+|%)?\s*(?:[;!]|$)",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|[;{\s])color\s*:\s*([^;!}]{1,40})", re.IGNORECASE)
_BACKGROUND = re.compile(r"background(?:-color|-image)?\s*:\s*([^;!}]{1,200})", re.IGNORECASE)
_SIZE = re.compile(r"font-size\s*:\s*(\d{0,4}(?:\.\d{1,6})?)\s*(px|pt)", re.IGNORECASE)
_AWAY = re.compile(
    r"(?:left|top|right|bottom|text-indent|margin-left|margin-top)\s*:\s*-\d{3,6}(?:\.\d+)?\s*(?:px|pt|em|rem|vw|vh|%)",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\d{1,3}(?:\.\d+)?%?")


def is_white(colour: str) -> bool:
    """A CSS or Office colour that is white or all but white, or fully transparent."""
    value = colour.strip().lower()
    if value in ("white", "transparent", "snow", "ghostwhite", "ivory"):
        return True
    hexadecimal = value.removeprefix("#")
    if re.fullmatch(r"[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8}", hexadecimal):
        wide = len(hexadecimal) < 6
        parts = [
            int(hexadecimal[i : i + (1 if wide else 2)] * (2 if wide else 1), 16)
            for i in range(0, len(hexadecimal), 1 if wide else 2)
        ]
        return min(parts[:3]) >= WHITE or (len(parts) == 4 and parts[3] == 0)
    if value.startswith("rgb"):
        numbers = _NUMBERS.findall(value)
        if len(numbers) < 3:
            return False
        scaled = [float(n.rstrip("%")) * (2.55 if n.endswith("%") else 1) for n in numbers[:3]]
        return min(scaled) >= WHITE or (len(numbers) > 3 and float(numbers[3].rstrip("%")) == 0)
    return False


def has_background(style: str) -> bool:
    """Do these CSS declarations put something other than white behind the text?"""
    background = _BACKGROUND.search(style)
    first = (background.group(1).split() or [""])[0] if background else ""
    return bool(first) and first.lower() not in ("none", "inherit", "unset") and not is_white(first)


def css_kind(style: str) -> str:
    """'style', 'white', 'tiny', 'off_page' or '': how these CSS declarations hide their text."""
    if _DISPLAY.search(style):
        return "style"
    colour = _COLOUR.search(style)
    if colour and is_white(colour.group(1)) and not has_background(style):
        return "white"
    size = _SIZE.search(style)
    if size and size.group(1) not in ("", "."):
        points = float(size.group(1)) * (0.75 if size.group(2).lower() == "px" else 1)
        if points < SMALLEST_PT:
            return "tiny"
    return "off_page" if _AWAY.search(style) else ""


_RULE = re.compile(r"([^{}@]{1,400})\{([^{}]{0,4000})\}")
_SIMPLE = re.compile(r"(?:[a-z][a-z0-9]*)?([.#][A-Za-z_][\w-]{0,80})\Z")


def css_rules(sheet: str) -> dict[str, str]:
    """'.class' or '#id' -> kind, for the simple selectors of a style sheet that hide their text.

    Combined selectors are left to browsers: they depend on the rest of the page.
    """
    found: dict[str, str] = {}
    for match in _RULE.finditer(re.sub(r"/\*.*?\*/", "", sheet[: 1 << 20], flags=re.DOTALL)):
        kind = css_kind(match.group(2))
        if kind:
            for selector in match.group(1).split(","):
                simple = _SIMPLE.match(selector.strip())
                if simple:
                    found[simple.group(1)] = kind
    return found
