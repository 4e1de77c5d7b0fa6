"""Do all real documents and tasks go through, how long does one take, and how good is text from PDF?

Reads every article, PDF and text of the shared data folder with the readers of `hauslm prepare`, and every
labelled task with its loader. Where the same document lies there as PDF and as JATS, TEI or Markdown, the
text of the PDF is compared with that of the other: the words of both are aligned (longest matching
blocks, difflib), and the similarity is twice the characters in matching words over the characters of
both; `any_order` is the same without regard to order, which tells text that stands elsewhere (a caption
before or after the paragraph, a table) from text that is missing. Results go to benchmarks/results/reading.json; docs/reading.md is made from them (--page).

    python benchmarks/reading.py --data ../shared/data
    python benchmarks/reading.py --page
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hauslm.data.reading import read_documents
from hauslm.data.task_files import load_task
from hauslm.scenario import TaskSection

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "reading.json"
PAGE = ROOT / "docs" / "reading.md"
FOLDERS = ("articles_jats", "articles_pdf", "corpus_crops", "german/dhd", "german/rki")
PAIRS = (
    ("articles_pdf", "articles_pdf", ".xml"),
    ("german/dhd/pdf", "german/dhd/tei", ".xml"),
    ("german/rki", "german/rki", ".md"),
)
TASKS: dict[str, dict[str, Any]] = {
    "task_roles_csabstruct": {"text_field": "sentences", "label_field": "labels"},
    "task_roles_structured_abstracts": {
        "text_field": "sentences", "label_field": "labels", "document_field": "id",
    },
    "task_entities_craft": {"kind": "extraction", "label_field": "entities", "document_field": "pmid"},
}  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def similarity(one: str, other: str) -> dict[str, float]:
    """Characters of matching words: as share of the first text, of the second, and of both."""
    a, b = words(one), words(other)
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    same = sum(len(w) for m in blocks for w in a[m.a : m.a + m.size])
    common = sum(len(w) * n for w, n in (Counter(a) & Counter(b)).items())
    left, right = sum(map(len, a)), sum(map(len, b))
    return {
        "of_pdf": round(same / max(1, left), 4),
        "of_other": round(same / max(1, right), 4),
        "similarity": round(2 * same / max(1, left + right), 4),
        "any_order": round(2 * common / max(1, left + right), 4),
    }


def read_all(data: Path, name: str) -> dict[str, Any]:
    """One folder through the readers: counts, reasons, seconds."""
    started = time.monotonic()
    documents, rejected = read_documents([name], data)
    formats: Counter[str] = Counter()
    characters = 0
    for document in documents:
        formats[document.format] += 1
        characters += len(document.text)
    seconds = time.monotonic() - started
    count = sum(formats.values())
    reasons = Counter((r.reason.template or r.reason.text) for r in rejected)
    return {
        "read": count,
        "by_format": dict(formats),
        "rejected": len(rejected),
        "reasons": dict(reasons),
        "characters": characters,
        "seconds": round(seconds, 2),
        "seconds_per_document": round(seconds / max(1, count), 4),
    }


def pairs(data: Path) -> list[dict[str, Any]]:
    rows = []
    for pdfs, others, suffix in PAIRS:
        for pdf in sorted((data / pdfs).glob("*.pdf")):
            other = data / others / (pdf.stem + suffix)
            if not other.is_file():
                continue
            started = time.monotonic()
            read = list(read_documents([str(pdf)], data)[0])
            seconds = time.monotonic() - started
            known = list(read_documents([str(other)], data)[0])
            if len(read) != 1 or len(known) != 1:
                rows.append({"pdf": f"{pdfs}/{pdf.name}", "failed": True})
                continue
            rows.append(
                {
                    "pdf": f"{pdfs}/{pdf.name}",
                    "against": suffix[1:] if suffix == ".md" else known[0].format,
                    "pages": read[0].metadata.get("pages"),
                    "seconds": round(seconds, 2),
                    **similarity(read[0].text, known[0].text),
                }
            )
    return rows


def tasks(data: Path) -> dict[str, Any]:
    found = {}
    for name, fields in TASKS.items():
        section = TaskSection(
            train_file=str(data / name / "train.jsonl"),
            test_file=str(data / name / "test.jsonl"),
            **fields,
        )
        started = time.monotonic()
        task, items, rejected, notices = load_task(section, data)
        found[name] = {
            "items": len(items),
            "documents": len({i.document for i in items}),
            "labels": list(task.labels),
            "rejected": len(rejected),
            "reasons": dict(Counter((r.reason.template or r.reason.text) for r in rejected)),
            "notices": [n.text("en") for n in notices],
            "seconds": round(time.monotonic() - started, 2),
        }
    return found


def page(result: dict[str, Any]) -> str:
    """The documentation page; every figure from the results."""
    lines = [
        "# Reading real documents",
        "",
        "Made by `benchmarks/reading.py --page` from `benchmarks/results/reading.json`; measured "
        f"{result['date']} on {result['machine']['cores']} processor cores that other work shared (load "
        f"{result['machine']['load_at_end'][0]}), so the seconds are an upper bound.",
        "",
        "| Documents | Read | Rejected | Why rejected | Seconds per document |",
        "|---|---:|---:|---|---:|",
    ]
    for name, row in result["folders"].items():
        reasons = "; ".join(f"{why} ({n})" for why, n in row["reasons"].items()) or "–"
        lines.append(
            f"| {name} | {row['read']} | {row['rejected']} | {reasons} | {row['seconds_per_document']:.3f} |"
        )
    lines += ["", "| Task | Items | Documents | Rejected | Seconds |", "|---|---:|---:|---:|---:|"]
    for name, row in result["tasks"].items():
        lines.append(
            f"| {name} | {row['items']:,} | {row['documents']:,} | {row['rejected']} | {row['seconds']:.2f} |"
        )
    lines += [
        "",
        "## Text of PDF against the same document as XML or Markdown",
        "",
        "Similarity: twice the characters in matching words over the characters of both texts, in the same "
        "order; `in any order` counts text that stands elsewhere too. The other text "
        "has no running heads, page numbers or text inside figures; the PDF has none of the XML's hidden parts.",
        "",
        "| Collection | Documents | Similarity, mean | lowest | In any order | Of the PDF's characters | Of the other's |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in result["similarity"].items():
        lines.append(
            f"| {name} | {row['documents']} | {row['mean']:.3f} | {row['lowest']:.3f} | {row['any_order']:.3f} | {row['of_pdf']:.3f} "
            f"| {row['of_other']:.3f} |"
        )
    failed = [p["pdf"] for p in result["pairs"] if p.get("failed")]
    if failed:
        lines += [
            "",
            "Not compared, because one side was not read as one document: "
            + ", ".join(failed)
            + ".",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--page", action="store_true", help="only write docs/reading.md")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    compared = pairs(options.data)
    summary = {}
    for folder, _, _ in PAIRS:
        rows = [r for r in compared if r["pdf"].startswith(folder) and not r.get("failed")]
        if rows:
            summary[folder] = {
                "documents": len(rows),
                "mean": round(statistics.mean(r["similarity"] for r in rows), 4),
                "lowest": min(r["similarity"] for r in rows),
                "any_order": round(statistics.mean(r["any_order"] for r in rows), 4),
                "of_pdf": round(statistics.mean(r["of_pdf"] for r in rows), 4),
                "of_other": round(statistics.mean(r["of_other"] for r in rows), 4),
            }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "folders": {name: read_all(options.data, name) for name in FOLDERS},
        "tasks": tasks(options.data),
        "similarity": summary,
        "pairs": compared,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load_at_end": [round(x, 1) for x in os.getloadavg()],
        },
    }
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
