"""Blocks as one HTML file: no script, no request to anywhere, the drawings inside, fit to print.

Everything that comes from outside (document names, model answers) passes `escape`; the only markup that
is let through is our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from hauslm.report.blocks import (
    CLOSE,
    OPEN,
    SPLIT,
    Block,
    Bullets,
    Callout,
    Code,
    Figure,
    Heading,
    Masked,
    Table,
    Text,
)

STYLE = """
:root{--ink:#1d2a35;--soft:#5b6b79;--line:#dbe2e8;--paper:#fff;--wash:#f4f7f9;--accent:#005b96;
--good:#e7f4ee;--good-line:#0b7a55;--warn:#fdf3e1;--warn-line:#a86400;--mark:#fff1b8}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#a3b1bd;--line:#33414d;--paper:#131a20;
--wash:#1b242c;--accent:#7cc4ff;--good:#12312a;--good-line:#4cc79b;--warn:#33270f;--warn-line:#f0b54a;--mark:#5b4a10}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,"Segoe UI",Roboto,"Noto Sans",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .25rem;letter-spacing:-.015em}
.lead{color:var(--soft);margin:0 0 2rem}
h2{font-size:1.4rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line);letter-spacing:-.01em}
h3{font-size:1.08rem;margin:2rem 0 .5rem}h4{font-size:.95rem;margin:1.1rem 0 .2rem;color:var(--soft)}
p{margin:.6rem 0;max-width:46rem}
ul{margin:.4rem 0 .8rem;padding-left:1.2rem;max-width:50rem}li{margin:.25rem 0}
nav{background:var(--wash);border-radius:10px;padding:.9rem 1.2rem;margin:0 0 2rem}
nav ol{columns:2;column-gap:2rem;margin:0;padding-left:1.2rem}
nav a{color:var(--accent);text-decoration:none}nav a:hover,nav a:focus{text-decoration:underline}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem;line-height:1.45}
caption{caption-side:bottom;text-align:left;color:var(--soft);font-size:.85rem;padding-top:.4rem}
th{text-align:left;font-weight:600;border-bottom:2px solid var(--line);padding:.45rem .7rem .45rem 0;vertical-align:bottom}
td{border-bottom:1px solid var(--line);padding:.45rem .7rem .45rem 0;vertical-align:top;overflow-wrap:anywhere}
.r{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.r{overflow-wrap:normal}
tr.chosen td{background:var(--good)}tr.chosen td:first-child{font-weight:600;padding-left:.5rem;box-shadow:inset 3px 0 var(--good-line)}
.callout{border-left:4px solid var(--line);background:var(--wash);padding:.75rem 1rem;border-radius:0 8px 8px 0;margin:1rem 0;max-width:50rem}
.callout.verdict{background:var(--good);border-color:var(--good-line);font-size:1.12rem;font-weight:600}
.callout.warning{background:var(--warn);border-color:var(--warn-line);font-weight:600}
.callout.note{font-size:.92rem}
figure{margin:1.5rem 0;padding:1rem;border:1px solid var(--line);border-radius:10px}
figure svg{display:block;width:100%;height:auto;max-width:45rem}
figcaption{font-size:.9rem;color:var(--soft);margin-top:.6rem}figcaption b{color:var(--ink)}
details{font-size:.9rem;margin-top:.5rem}summary{cursor:pointer;color:var(--accent)}
pre{background:var(--wash);padding:1rem;border-radius:8px;overflow-x:auto;font-size:.85rem;line-height:1.5}
code,pre{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.sample{white-space:pre-wrap;background:var(--wash);padding:.8rem 1rem;border-radius:8px;font-size:.88rem;overflow-wrap:anywhere;max-height:16rem;overflow-y:auto}
.sample mark{background:var(--mark);color:inherit;border-radius:2px}
footer{margin-top:4rem;color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);padding-top:1rem}
a:focus-visible,summary:focus-visible,.scroll:focus-visible,.sample:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
@media (prefers-color-scheme:dark){.chart .f.ci{fill:#e6edf3}.chart .f.cs{fill:#a3b1bd}.chart .f.cp{fill:#131a20}
.chart .s.ci{stroke:#e6edf3}.chart .s.cg{stroke:#33414d}.chart .f.c0{fill:#58b0ee}.chart .s.c0{stroke:#58b0ee}
.chart .f.c2{fill:#3dbb93}.chart .s.c2{stroke:#3dbb93}.chart .f.c5{fill:#f08a4b}.chart .s.c5{stroke:#f08a4b}}
@media print{body{font-size:10.5pt}main{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}
figure,table,.callout{break-inside:avoid}details>*{display:block}.sample{max-height:none}}
@media (max-width:40rem){nav ol{columns:1}h1{font-size:1.6rem}}
"""


def page(
    blocks: Sequence[Block],
    *,
    title: str,
    lead: str,
    language: str,
    footer: str,
    words: dict[str, str],
) -> str:
    """The whole file. `words` holds 'contents' and 'data' in the page's language."""
    chapters = [b for b in blocks if isinstance(b, Heading) and b.level == 2]
    links = "".join(f'<li><a href="#{anchor(h.text)}">{escape(h.text)}</a></li>' for h in chapters)
    label = escape(words["contents"], quote=True)
    contents = f'<nav aria-label="{label}"><ol>{links}</ol></nav>' if len(chapters) > 2 else ""
    body = "\n".join(_one(b, words) for b in blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n{contents}\n{body}\n'
        f"<footer>{escape(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def fragment(
    blocks: Sequence[Block], words: dict[str, str], sources: dict[str, int] | None = None,
    prefix: str = "s",
) -> str:  # fmt: skip
    """The blocks alone, for a page of the web room; `sources` (text -> number) make figures links."""
    tips = {number: text for text, number in (sources or {}).items()}
    return "\n".join(_linked(_one(b, words), tips, prefix) for b in blocks)


def source_list(sources: dict[str, int], title: str, prefix: str = "s") -> str:
    """The numbered sources that the figures of a fragment link to."""
    if not sources:
        return ""
    items = "".join(
        f'<li id="{prefix}{number}">{escape(text)}</li>'
        for text, number in sorted(sources.items(), key=lambda i: i[1])
    )
    head = escape(title)
    return f'<details class="sources"><summary>{head}</summary><ol>{items}</ol></details>'


_MARK = re.compile(f"{OPEN}(\\d+){SPLIT}(.*?){CLOSE}", re.DOTALL)


def _linked(text: str, tips: dict[int, str], prefix: str) -> str:
    """Marks of figures become links to their source, which a pointer or the focus shows at once."""

    def link(match: re.Match[str]) -> str:
        number = int(match.group(1))
        tip = escape(tips.get(number, ""), quote=True)
        return (
            f'<a class="fig" href="#{prefix}{number}" data-tip="{tip}">{match.group(2)}'
            f"<sup>{number}</sup></a>"
        )

    return _MARK.sub(link, text)


def anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9äöüß]+", "-", text.lower()).strip("-")


def _one(block: Block, words: dict[str, str]) -> str:
    match block:
        case Heading(level, text):
            place = f' id="{anchor(text)}"' if level == 2 else ""
            return f"<h{level}{place}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{escape(i)}</li>" for i in items) + "</ul>"
        case Table():
            return table(block)
        case Figure():
            return (
                f"<figure>{_inline_ids(block.svg)}<figcaption><b>{escape(block.title)}.</b> {escape(block.description)}"
                f"</figcaption><details><summary>{escape(words['data'])}</summary>{table(block.table)}</details></figure>"
            )
        case Code(_, text):
            return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
        case Callout(kind, text):
            return f'<div class="callout {kind}">{escape(text)}</div>'
        case Masked(title, pieces):
            inner = "".join(f"<mark>{escape(p)}</mark>" if t else escape(p) for p, t in pieces)
            return f'<p><b>{escape(title)}</b></p><div class="sample" tabindex="0">{inner}</div>'
    raise TypeError(type(block))


def table(block: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_right(block, i)}>{escape(h)}</th>' for i, h in enumerate(block.headers)
    )
    rows = []
    for index, row in enumerate(block.rows):
        chosen = ' class="chosen"' if index == block.marked else ""
        cells = "".join(f"<td{_right(block, i)}>{escape(c)}</td>" for i, c in enumerate(row))
        rows.append(f"<tr{chosen}>{cells}</tr>")
    caption = f"<caption>{escape(block.caption)}</caption>" if block.caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _right(block: Table, column: int) -> str:
    return ' class="r"' if column < len(block.align) and block.align[column] == "r" else ""


def _inline_ids(svg: str) -> str:
    """Several drawings on one page must not share ids: prefix each drawing's with its content hash."""
    import hashlib

    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:6]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
