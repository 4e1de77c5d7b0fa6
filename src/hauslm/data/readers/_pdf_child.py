"""The process that touches a stranger's PDF: limits itself, extracts lines, prints one JSON value.

    python -I -m hauslm.data.readers._pdf_child FILE PAGES SECONDS BYTES

It has no network (audit hook), little memory, little time; whatever happens to it happens to nobody
else. Output: {"pages": [{"width", "height", "lines": [[text, x0, y0, x1, y1, size], ...]}]}, with y
measured from the top, lines in content-stream order; or {"error": kind, "detail": text}.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

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
    try:
        answer = extract(path, most_pages)
    except MemoryError:
        answer = {"error": "memory"}
    json.dump(answer, sys.stdout)
    return 0


def extract(path: str, most_pages: int) -> dict[str, Any]:
    import pypdfium2 as pdfium

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
    for index in range(len(document)):
        try:
            pages.append(page_lines(document[index]))
        except pdfium.PdfiumError:
            broken += 1
            pages.append({"width": 0, "height": 0, "lines": []})
    meta = {k: str(v)[:500] for k, v in document.get_metadata_dict(skip_empty=True).items()}
    return {"pages": pages, "broken": broken, "metadata": meta}


def page_lines(page: Any) -> dict[str, Any]:
    """The lines of one page with their boxes. pdfium separates lines by CR LF in stream order.

    `size` is the height of the font's box, which is the same for every letter of a font.
    """
    import pypdfium2.raw as raw

    width, height = page.get_size()
    text_page = page.get_textpage()
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
    flush()
    return {"width": round(width, 1), "height": round(height, 1), "lines": lines}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
