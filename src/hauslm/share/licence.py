"""What does the base model's licence ask of whoever shares an adapter? Duties, texts, name.

Facts come from the catalog (each with its source); this module turns them into what a bundle must
carry and refuses one that would break a duty. No legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import N_, say, translate

_TEXTS = Path(__file__).parent / "licences"
_LICENCE_FILES = (
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "LICENCE",
    "USE_POLICY.md",
    "NOTICE",
    "Notice.txt",
)

APACHE_DUTY = N_("Pass on the licence text and say what was changed (Apache-2.0, section 4).")
LLAMA3_NAME = N_("The adapter's name must begin with 'Llama 3' (Meta Llama 3 licence, 1.b.i).")
LLAMA3_BUILT = N_("Display 'Built with Meta Llama 3' where the adapter is offered (1.b.i).")
LLAMA3_NOTICE = N_("Carry the notice line of the licence in a file called Notice (1.b.iii).")
UNKNOWN_DUTY = N_("The base model's licence is not in the catalog: read it before sharing.")

LLAMA3_NOTICE_LINE = (
    "Meta Llama 3 is licensed under the Meta Llama 3 Community License, "
    "Copyright (c) Meta Platforms, Inc. All Rights Reserved."
)


@dataclass(frozen=True)
class Duties:
    """What the bundle must say and carry. `texts` are file name -> contents."""

    licence: str
    duties: tuple[str, ...]
    texts: dict[str, str]
    name_prefix: str = ""

    def record(self, language: str | None = None) -> dict[str, Any]:
        return {
            "id": self.licence,
            "duties": [translate(d, language) for d in self.duties],
            "files": sorted(self.texts),
            "name_prefix": self.name_prefix,
        }


def _catalog_licence(base_id: str) -> str:
    from hauslm.catalog.load import model

    try:
        licence = model(base_id).licence
    except UsageError:
        return ""
    return licence.id if licence else ""


def duties_of(base_id: str, base_folder: Path) -> Duties:
    """The duties for an adapter on `base_id`; licence texts come from us or from the base's folder."""
    texts = {
        f"LICENSE.base.{name}" if name.startswith("LICEN") else name: (
            base_folder / name
        ).read_text(encoding="utf-8", errors="replace")
        for name in _LICENCE_FILES
        if (base_folder / name).is_file()
    }
    licence = "Apache-2.0" if base_id == "embedded" else _catalog_licence(base_id)
    lowered = licence.lower()
    if lowered.startswith("apache"):
        texts.setdefault(
            "LICENSE.base.txt", (_TEXTS / "Apache-2.0.txt").read_text(encoding="utf-8")
        )
        return Duties("Apache-2.0", (APACHE_DUTY,), texts)
    if "llama" in lowered and "3" in lowered:
        texts.setdefault("Notice.txt", LLAMA3_NOTICE_LINE + "\n")
        return Duties(licence, (LLAMA3_NAME, LLAMA3_BUILT, LLAMA3_NOTICE), texts, "Llama 3")
    if not licence:
        return Duties("", (UNKNOWN_DUTY,), texts)
    return Duties(licence, (N_("Pass on the licence and its conditions with the adapter."),), texts)


def check_name(name: str, duties: Duties) -> None:
    """H720 if the licence asks for a name that the bundle does not have."""
    if duties.name_prefix and not name.replace("-", " ").replace("_", " ").lower().startswith(
        duties.name_prefix.lower()
    ):
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
