"""The process that touches a stranger's PDF: limits itself, extracts lines, prints one JSON value.

    main([FILE, PAGES, SECONDS, BYTES]), called by `readers.pdf` in an isolated Python (-I)

Before it opens the file it gives up what it does not need: the network (switches, audit hook and, on
Linux, the kernel's filter, which holds pdfium's native code as well), memory, CPU time, and writing
files. Where the kernel refuses the filter the answer says so. Whatever happens here happens to nobody
else. Output: {"pages": [{"width", "height", "lines": [[text, x0, y0, x1, y1, size], ...]}], "broken":
number of pages that could not be decoded, "metadata", "hidden": {kind: characters that no reader sees,
of the kinds of `data.hidden`}, "characters" (letters and digits, as in "hidden"), "filter": null or the reason why there is none}, with y
measured from the top, lines in content-stream order; or {"error": kind, "detail": text}.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
from collections import Counter
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from hauslm.data.hidden import SMALLEST_PT, WHITE

Line = list[Any]
HYPHEN = "\ufffe"  # as pdfium itself spells a hyphen that ended a line


def main(argv: list[str]) -> int:
    path, most_pages, seconds, memory = argv[0], int(argv[1]), float(argv[2]), int(argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    from hauslm.base import egress

    egress.shut("strict")
    layer = egress.layers()[2]
    try:
        answer = extract(path, most_pages)
    except MemoryError:
        answer = {"error": "memory"}
    answer["filter"] = None if layer.active else layer.said.text("en")
    json.dump(answer, sys.stdout)
    return 0


def extract(path: str, most_pages: int) -> dict[str, Any]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        return {
            "error": "password" if "password" in str(error).lower() else "damaged",
            "detail": str(error),
        }
    if len(document) > most_pages:
        return {"error": "pages", "detail": len(document)}
    pages, broken = [], 0
    hidden: Counter[str] = Counter()
    for index in range(len(document)):
        try:
            pages.append(page_lines(document[index], hidden))
        except pdfium.PdfiumError:
            broken += 1
            pages.append({"width": 0, "height": 0, "lines": []})
    meta = {k: str(v)[:500] for k, v in document.get_metadata_dict(skip_empty=True).items()}
    characters = hidden.pop("all", 0)
    return {
        "pages": pages, "broken": broken, "metadata": meta,
        "hidden": dict(hidden), "characters": characters,
    }  # fmt: skip


class Looks:
    """How the characters of one page are hidden, if they are: white, tiny, beside the page, not drawn."""

    def __init__(self, page: Any, text_page: Any) -> None:
        self._page, self._text_page = page, text_page
        self._by_object: dict[int, str] = {}
        self._box = page.get_cropbox()
        self._behind: list[tuple[float, float, float, float]] | None = None

    def of(self, index: int, box: tuple[float, float, float, float]) -> str:
        """The kind for character `index` with its box (left, bottom, right, top), or ''."""
        left, bottom, right, top = self._box
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not (left - 1 <= x <= right + 1 and bottom - 1 <= y <= top + 1):
            return "off_page"
        if 0 < box[3] - box[1] < SMALLEST_PT:
            return "tiny"
        handle = raw.FPDFText_GetTextObject(self._text_page.raw, index)
        key = ctypes.cast(handle, ctypes.c_void_p).value or 0
        if key not in self._by_object:
            self._by_object[key] = self._drawn(handle)
        kind = self._by_object[key]
        return "" if kind == "white" and self._on_colour(x, y) else kind

    def _drawn(self, handle: Any) -> str:
        if not handle:
            return ""
        mode = raw.FPDFTextObj_GetTextRenderMode(handle)
        if mode in (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP):
            return "not_drawn"
        if mode in (raw.FPDF_TEXTRENDERMODE_STROKE, raw.FPDF_TEXTRENDERMODE_STROKE_CLIP):
            return ""
        red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
        if not raw.FPDFPageObj_GetFillColor(handle, red, green, blue, alpha):
            return ""
        if alpha.value == 0:
            return "not_drawn"
        return "white" if min(red.value, green.value, blue.value) >= WHITE else ""

    def _on_colour(self, x: float, y: float) -> bool:
        """Is something that is not white drawn there? White letters on a coloured bar are no secret."""
        if self._behind is None:
            self._behind = [_bounds(o) for o in self._page.get_objects(max_depth=8) if _coloured(o)]
        return any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for b in self._behind)


def _coloured(thing: Any) -> bool:
    if thing.type in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_SHADING):
        return True
    if thing.type != raw.FPDF_PAGEOBJ_PATH:
        return False
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPath_GetDrawMode(thing.raw, fill, stroke)
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    known = raw.FPDFPageObj_GetFillColor(thing.raw, red, green, blue, alpha)
    dark = min(red.value, green.value, blue.value) < WHITE and alpha.value > 0
    return bool(fill.value) and (not known or dark)


def _bounds(thing: Any) -> tuple[float, float, float, float]:
    try:
        left, bottom, right, top = thing.get_bounds()
    except pdfium.PdfiumError:
        return (0.0, 0.0, 0.0, 0.0)
    return (left, bottom, right, top)


def page_lines(page: Any, hidden: Counter[str]) -> dict[str, Any]:
    """The lines of one page with their boxes. pdfium separates lines by CR LF in stream order.

    `size` is the height of the font's box, which is the same for every letter of a font. `hidden`
    gets the letters and digits that no reader sees, by kind, and "all".
    """
    width, height = page.get_size()
    text_page = page.get_textpage()
    looks = Looks(page, text_page)
    lines: list[Line] = []
    characters: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []

    def flush() -> None:
        text = "".join(characters)
        if text.strip():
            real = [b for b in boxes if b[2] > b[0]] or boxes
            x0, y0 = min(b[0] for b in real), min(b[1] for b in real)
            x1, y1 = max(b[2] for b in real), max(b[3] for b in real)
            heights = sorted(b[3] - b[1] for b in real)
            size = heights[len(heights) // 2]
            lines.append([text, *(round(v, 1) for v in (x0, height - y1, x1, height - y0, size))])
        characters.clear()
        boxes.clear()

    pending = 0  # the first half of a surrogate pair
    for index in range(text_page.count_chars()):
        code = raw.FPDFText_GetUnicode(text_page, index)
        if 0xD800 <= code < 0xDC00:
            pending = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((pending - 0xD800) << 10) + (code - 0xDC00) if pending else 0xFFFD
        pending = 0
        if code in (0x0A, 0x0D):
            flush()
        elif code == 0x02:  # pdfium's own mark for a hyphen at the end of a line
            characters.append(HYPHEN)
            boxes.append(text_page.get_charbox(index, loose=True))
        elif 0 < code <= 0x10FFFF:
            characters.append(chr(code))
            boxes.append(text_page.get_charbox(index, loose=True))
            if chr(code).isalnum():  # tiny full stops are a matter of typesetting
                hidden["all"] += 1
                kind = looks.of(index, boxes[-1])
                if kind:
                    hidden[kind] += 1
    flush()
    return {"width": round(width, 1), "height": round(height, 1), "lines": lines}
