"""How do the rows of an article's sections become the article's row?

`vote`: the label that most of the text got. `union`: all entries, each once. `best`: the first section
that answers. `rewrite`: the model writes one text from the sections' texts (see `run.py`). Merging
invents nothing: the article row's quote is one of its sections' quotes, and it names the rows it
rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hauslm.analyse.runner import key_of
from hauslm.lm.schema import invalid

Row = dict[str, Any]

# What an article row takes over from its sections' rows as it stands.
_SHARED = (
    "article", "article_sha256", "title", "language", "question", "model", "model_sha256", "adapter",
    "adapter_sha256", "template", "template_version", "template_sha256", "engine",
)  # fmt: skip


def article_schema(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What an article's answer must fit, from the schema of a section's answer: a vote tells the
    shares of the labels, a union may hold the entries of every section."""
    fields = dict(schema.get("properties", {}))
    if kind == "vote":
        shares = {"type": "number", "minimum": 0, "maximum": 1}
        fields["shares"] = {"type": "object", "additionalProperties": shares}
    if kind == "union":
        fields["items"] = {k: v for k, v in fields["items"].items() if k != "maxItems"}
    return {**schema, "properties": fields}


def article_row(rows: Sequence[Row], kind: str, schema: Mapping[str, Any]) -> Row:
    """The article's row from its section rows (in text order), by a merge that needs no model; its
    answer is checked like any other. `schema` is that of a section's answer."""
    sound = [r for r in rows if r["status"] == "valid"]
    head = {k: rows[0].get(k, "") for k in _SHARED}
    row: Row = {
        "key": key_of(merge=kind, rows=[r["key"] for r in rows]),
        **head,
        "level": "article",
        "section": "",
        "start": min(r["start"] for r in rows),
        "end": max(r["end"] for r in rows),
        "rests_on": [r["key"] for r in sound],
        "sections_failed": len(rows) - len(sound),
        "untrusted": sorted({f for r in rows for f in r["untrusted"]}),
        "prompt_sha256": "",
        "attempts": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds": 0.0,
        "finish_reason": "merged",
        "raw": "",
    }
    if not sound:
        return row | _empty("no section has a valid row")
    answer, witness = MERGES[kind](sound)
    if problem := invalid(answer, article_schema(schema, kind)):
        return row | _empty(f"invalid: {problem}")
    return row | {
        "status": "valid",
        "reason": "",
        "schema_valid": True,
        "answer": answer,
        **{k: witness[k] for k in ("quote", "quote_found", "quote_start", "quote_end")},
    }


def _empty(reason: str) -> Row:
    return {
        "status": "failed", "reason": reason, "schema_valid": False, "answer": None, "quote": "",
        "quote_found": False, "quote_start": -1, "quote_end": -1,
    }  # fmt: skip


def _with_quote(rows: Sequence[Row]) -> Row:
    """The first row whose quote stands in the article; else the first."""
    return next((r for r in rows if r["quote_found"]), rows[0])


def _size(row: Row) -> int:
    return int(row["end"]) - int(row["start"])


def vote(rows: Sequence[Row]) -> tuple[Any, Row]:
    """The label with most characters behind it; ties go to the one that comes first in the text."""
    weight: dict[str, int] = {}
    for row in rows:
        label = row["answer"]["label"]
        weight[label] = weight.get(label, 0) + _size(row)
    label = max(weight, key=lambda name: weight[name])
    witness = _with_quote([r for r in rows if r["answer"]["label"] == label])
    shares = {name: round(w / max(1, sum(weight.values())), 4) for name, w in weight.items()}
    return {
        "label": label,
        "reason": witness["answer"].get("reason", ""),
        "shares": shares,
    }, witness


def union(rows: Sequence[Row]) -> tuple[Any, Row]:
    """All entries in text order; the same kind and name (case and blanks aside) with the same value
    counts once."""
    seen: dict[tuple[str, ...], Any] = {}
    for row in rows:
        for item in row["answer"]["items"]:
            mark = tuple(" ".join(str(v).casefold().split()) for v in item.values())
            seen.setdefault(mark, item)
    filled = [r for r in rows if r["answer"]["items"]] or list(rows)
    return {"items": list(seen.values())}, _with_quote(filled)


def best(rows: Sequence[Row]) -> tuple[Any, Row]:
    """The first section that says it answers, preferably with a quote that stands in the article."""
    answering = [r for r in rows if r["answer"].get("answered") == "yes" and r["answer"]["answer"]]
    witness = _with_quote(answering or list(rows))
    return dict(witness["answer"]), witness


def first(rows: Sequence[Row]) -> tuple[Any, Row]:
    """The only row there is (an article of one section needs no rewriting)."""
    return rows[0]["answer"], rows[0]


MERGES: Mapping[str, Callable[[Sequence[Row]], tuple[Any, Row]]] = {
    "vote": vote,
    "union": union,
    "best": best,
    "first": first,
}
