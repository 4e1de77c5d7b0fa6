"""What does the base model's licence ask of whoever shares an adapter? Duties, texts, name.

Facts come from the catalog (each with its source); this module turns them into what a bundle must
carry, and refuses one that would break a duty. `verify` asks the same questions of a stranger's
bundle, by the id of its base model and not by what it says of itself. No legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import N_, Sentence, say

_TEXTS = Path(__file__).parent / "licences"
_LICENCE_FILES = (
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "LICENCE",
    "USE_POLICY.md",
    "NOTICE",
    "NOTICE.txt",
    "Notice.txt",
)
CHANGES = "CHANGES.md"  # says what was changed: asked for by Apache-2.0 4(b) and Gemma 3.1
NOTICE = "Notice.txt"
CARD = "README.md"

APACHE_DUTY = N_("Pass on the licence text and say what was changed (Apache-2.0, section 4).")
COPY_DUTY = N_("Pass on the licence and its conditions with the adapter.")
UNKNOWN_DUTY = N_("The base model's licence is not in the catalog: read it before sharing.")
GEMMA_DUTY = N_(
    "Pass on the Gemma terms with their use restrictions, carry the notice, and say what was changed (Gemma Terms of Use, 3.1)."
)
GEMMA_NOTICE_LINE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_LLAMA = re.compile(r"llama (?P<version>3(?:\.\d)?)\b")


@dataclass(frozen=True)
class Duties:
    """What the bundle must say and carry. `texts` are file name -> contents.

    `sentences`: the duties for a reader. `shown`: words that the model card must carry.
    `needs_text`: the licence asks for a copy of itself. `needs_changes`: and for a change notice.
    """

    licence: str
    sentences: tuple[Sentence, ...]
    texts: Mapping[str, str]
    name_prefix: str = ""
    shown: str = ""
    notice_line: str = ""
    needs_text: bool = False
    needs_changes: bool = False

    def record(self, language: str | None = None) -> dict[str, Any]:
        return {
            "id": self.licence,
            "duties": [s.text(language) for s in self.sentences],
            "files": sorted(self.texts),
            "name_prefix": self.name_prefix,
            "shown": self.shown,
        }


def _catalog_licence(base_id: str) -> str:
    from hauslm.catalog.load import model, models

    try:
        licence = model(base_id).licence
    except UsageError:
        hits = [m for m in models() if m.hf_id and m.hf_id.lower() == base_id.lower()]
        licence = hits[0].licence if hits else None
    return licence.id if licence else ""


def licence_of(base_id: str) -> str:
    """The licence of a base model by id or Hugging Face name; '' if the catalog does not know it."""
    return "Apache-2.0" if base_id == "embedded" else _catalog_licence(base_id)


def duties_of(base_id: str, base_folder: Path | None) -> Duties:
    """The duties for an adapter on `base_id`; licence texts come from us or from the base's folder."""
    texts = {} if base_folder is None else _texts_in(base_folder)
    licence = licence_of(base_id)
    lowered = licence.lower()
    llama = _LLAMA.search(lowered)
    if lowered.startswith("apache"):
        texts.setdefault(
            "LICENSE.base.txt", (_TEXTS / "Apache-2.0.txt").read_text(encoding="utf-8")
        )
        return Duties(
            "Apache-2.0", (_plain(APACHE_DUTY),), texts, needs_text=True, needs_changes=True
        )
    if llama:
        return _llama(licence, llama["version"], texts)
    if lowered.startswith("gemma"):
        _notice(texts, GEMMA_NOTICE_LINE)
        return Duties(
            licence, (_plain(GEMMA_DUTY),), texts, notice_line=GEMMA_NOTICE_LINE,
            needs_text=True, needs_changes=True,
        )  # fmt: skip
    if not licence:
        return Duties("", (_plain(UNKNOWN_DUTY),), texts)
    return Duties(licence, (_plain(COPY_DUTY),), texts, needs_text=True)


def _plain(sentence: str) -> Sentence:
    return Sentence(sentence)


def _texts_in(folder: Path) -> dict[str, str]:
    """The licence texts of a base model's folder under the names that a bundle gives them."""
    found: dict[str, str] = {}
    for name in _LICENCE_FILES:
        file = folder / name
        if not file.is_file():
            continue
        kept = f"LICENSE.base.{name}" if name.startswith("LICEN") else name
        if kept.lower() not in {n.lower() for n in found}:
            found[kept] = file.read_text(encoding="utf-8", errors="replace")
    return found


def _notice(texts: dict[str, str], line: str) -> None:
    """The notice line stands in the notice file, before what the base's own notice says."""
    old = next((n for n in texts if n.lower() in ("notice", "notice.txt")), NOTICE)
    own = texts.pop(old, "")
    texts[NOTICE] = own if line in own else f"{line}\n{own}"


def _llama(licence: str, version: str, texts: dict[str, str]) -> Duties:
    """Llama 3 (2024-04-18) asks for 'Meta Llama 3' and names that begin 'Llama 3'; 3.1 and later for
    'Llama' alone. Section 1.b.i and 1.b.iii of the community licences."""
    first = version == "3"
    prefix = "Llama 3" if first else "Llama"
    shown = "Built with Meta Llama 3" if first else "Built with Llama"
    title = "Meta Llama 3" if first else f"Llama {version}"
    line = (
        f"{title} is licensed under the {title} Community License, "
        "Copyright (c) Meta Platforms, Inc. All Rights Reserved."
    )
    _notice(texts, line)
    duties = (
        say("The adapter's name must begin with '{prefix}' ({licence}, 1.b.i).", prefix=prefix, licence=licence),
        say("Display '{words}' where the adapter is offered (1.b.i).", words=shown),
        say("Carry the notice line of the licence in a file called Notice (1.b.iii)."),
        say("Pass on the licence and its acceptable use policy; above 700 million monthly users a licence of its own is needed."),
    )  # fmt: skip
    return Duties(licence, duties, texts, prefix, shown, line, needs_text=True)


def begins_rightly(name: str, prefix: str) -> bool:
    return name.replace("-", " ").replace("_", " ").lower().startswith(prefix.lower())


def check_name(name: str, duties: Duties) -> None:
    """H720 if the licence asks for a name that the bundle does not have."""
    if duties.name_prefix and not begins_rightly(name, duties.name_prefix):
        raise RefusedError(
            "H720",
            say(
                "An adapter on this base must have a name that begins with '{prefix}'; '{name}' does not.",
                prefix=duties.name_prefix,
                name=name,
            ),
            next_step=say(
                'Set name: "{prefix} {name}" in hauslm.yaml.', prefix=duties.name_prefix, name=name
            ),
        )


def check_texts(duties: Duties, base_folder: Path) -> None:
    """H721 if the licence must travel and its text is nowhere on this machine."""
    if duties.needs_text and not _has_licence(duties.texts):
        raise RefusedError(
            "H721",
            say(
                "The licence of the base model ({licence}) must be passed on, and its text is not in the base model's folder.",
                licence=duties.licence,
            ),
            where=str(base_folder),
            next_step=say("Put the licence into that folder as LICENSE (it came with the model)."),
        )


def _has_licence(names: Mapping[str, Any]) -> bool:
    return any(n.startswith("LICENSE.base") for n in names)


def changes_text(base_id: str, what: str) -> str:
    """The change notice, English and German: what was changed and that the base itself was not."""
    lines = ["# Changes / Änderungen", ""]
    for code in ("en", "de"):
        lines += [
            say("This is a modification of the model {base}.", base=base_id).text(code),
            _WHAT[what].text(code),
            "",
        ]
    return "\n".join(lines)


_WHAT = {
    "adapter": say(
        "Changed: low-rank matrices (LoRA) were trained beside its weights with hauslm. The weights of the base model are not part of this bundle and were not changed."
    ),
    "merged": say(
        "Changed: low-rank matrices (LoRA) were trained with hauslm and added to its weights; the files here are the result."
    ),
}


def problem(base_id: str, name: str, files: Mapping[str, Any], read: Any) -> Sentence | None:
    """Which duty does a stranger's bundle neglect? None if none. `read(file)` gives a file's bytes."""
    duties = duties_of(base_id, None)
    if duties.name_prefix and not begins_rightly(name, duties.name_prefix):
        return say(
            "The base model's licence asks for a name that begins with '{prefix}'.",
            prefix=duties.name_prefix,
        )
    if duties.needs_text and not _has_licence(files):
        return say("The text of the base model's licence is missing.")
    if duties.needs_changes and CHANGES not in files:
        return say("The change notice ({file}) is missing.", file=CHANGES)
    line = duties.notice_line.encode()
    if line and (NOTICE not in files or line not in read(NOTICE)):
        return say("The notice of the base model's licence ({file}) is missing.", file=NOTICE)
    if duties.shown and duties.shown.encode() not in read(CARD):
        return say("The model card does not say '{words}'.", words=duties.shown)
    return None


__all__ = ["Duties", "check_name", "check_texts", "duties_of", "licence_of", "problem"]
