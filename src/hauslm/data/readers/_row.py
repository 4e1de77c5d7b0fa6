"""One row of a table or one JSON object -> one document. Shared by the JSONL and table readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.data.document import Document, clean, hidden_characters, normal_doi, one_line, tidy
from hauslm.data.language import normal_code
from hauslm.data.rights import classify

ROLES = ("system", "user", "assistant")
_ID_FIELDS = ("id", "ID", "pmcid", "PMCID", "abstract_id", "key")
_TEXT_LIKE = ("text", "content", "body", "abstract")


def document(
    row: Mapping[str, Any], *, format_: str, number: int, text_field: str
) -> Document | Sentence:
    """The document of a row, or the reason why there is none.

    Recognised: `messages` (a conversation), `prompt` + `completion`, otherwise the text field.
    """
    messages = conversation(row)
    if isinstance(messages, Sentence):
        return messages
    if messages:
        text = "\n\n".join(m["content"] for m in messages)
    else:
        found = text_of(row, text_field)
        if isinstance(found, Sentence):
            return found
        text = found
    hidden = hidden_characters(text)
    statement = one_line(
        " ".join(str(row[k]) for k in ("licence", "license", "rights") if row.get(k))
    )
    rights = classify(statement)
    id_ = next((str(row[k]) for k in _ID_FIELDS if row.get(k) not in (None, "")), f"{number}")
    skip = {text_field, "messages", "prompt", "completion", "text"}
    return Document(
        id=id_,
        title=one_line(str(row.get("title") or "")),
        text=tidy(text),
        language=normal_code(row.get("language") or row.get("lang")),
        licence=rights.label or statement[:80],
        licence_class=rights.licence_class,
        doi=normal_doi(str(row.get("doi") or row.get("DOI") or "")),
        format=format_,
        metadata={
            **{k: v for k, v in row.items() if k not in skip},
            "licence_statement": statement,
        },
        messages=messages,
        left_out={"invisible characters": hidden} if hidden else {},
    )


def text_of(row: Mapping[str, Any], text_field: str) -> str | Sentence:
    """The text field; a list of sentences is joined."""
    if text_field not in row:
        return say(
            "There is no field '{field}'; the fields are {fields}.",
            field=text_field,
            fields=", ".join(sorted(str(k) for k in row)[:12]),
        )
    value = row[text_field]
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = " ".join(value)
    if not isinstance(value, str):
        return say("The field '{field}' is not text.", field=text_field)
    return value if value.strip() else say("The field '{field}' is empty.", field=text_field)


def conversation(row: Mapping[str, Any]) -> tuple[Mapping[str, str], ...] | Sentence:
    """The messages of a row; () if it is not a conversation; a reason if it is a damaged one."""
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        if not row["completion"].strip():
            return say("The field '{field}' is empty.", field="completion")
        return (
            {"role": "user", "content": clean(row["prompt"]).strip()},
            {"role": "assistant", "content": clean(row["completion"]).strip()},
        )
    if "messages" not in row:
        return ()
    raw = row["messages"]
    if not isinstance(raw, list) or not raw:
        return say("'messages' is not a list of messages.")
    messages: list[Mapping[str, str]] = []
    for entry in raw:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
            return say("A message has no text in 'content'.")
        if entry.get("role") not in ROLES:
            return say(
                "A message has the role '{role}'; known are system, user, assistant.",
                role=str(entry.get("role"))[:40],
            )
        messages.append({"role": entry["role"], "content": clean(entry["content"]).strip()})
    answers = [m for m in messages if m["role"] == "assistant"]
    if not any(m["content"] for m in answers):
        return say("The conversation has no answer to learn from.")
    return tuple(messages)
