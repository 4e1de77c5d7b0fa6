"""Does a bundle carry what it owes its reader? Card in both languages, licence, bill, reports.

The manifest may say anything: what counts is the base model's id, the files, and whether they agree.
"""

from __future__ import annotations

import json
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.share import archive, bom, card, licence
from hauslm.share.source import Source, read

EVALUATION = "evaluation.json"
MEMORISATION = "memorisation.json"
PRIVACY = "privacy.json"
TRAINING = "training.json"
DATA = "data.json"
REPORTS = (EVALUATION, MEMORISATION, PRIVACY)


def check(source: Source, manifest: dict[str, Any], digests: dict[str, str]) -> list[str]:
    """Sentences on what is there. H714 licence, H718 records and reports, H719 card and bill."""
    _agree(source, manifest, digests)
    _licence(source, manifest, digests)
    _card_and_bill(source, digests)
    checks = [
        say(
            "licence: {licence}, duties carried", licence=manifest["licence"].get("id") or "–"
        ).text(),
        say("model card: in English and German; bill of materials: CycloneDX").text(),
    ]
    return checks + _reports(source, manifest, digests)


def _refuse(code: str, what: Sentence, source: Source) -> None:
    raise archive.refused(code, what, source.path)


def _object(source: Source, name: str, code: str) -> dict[str, Any]:
    try:
        value = json.loads(read(source, name))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        _refuse(code, say("{file} is not a JSON object.", file=name), source)
    return dict(value or {})


def _agree(source: Source, manifest: dict[str, Any], digests: dict[str, str]) -> None:
    """The manifest's claims are those of the records beside it."""
    for name in (TRAINING, DATA):
        if name not in digests:
            _refuse("H718", say("{file} is missing.", file=name), source)
    training, data = _object(source, TRAINING, "H718"), _object(source, DATA, "H718")
    run_base, adapter = training.get("base"), training.get("adapter")
    pairs = (
        (isinstance(run_base, dict) and run_base.get("id"), manifest["base"].get("id")),
        (isinstance(run_base, dict) and run_base.get("sha256", ""), manifest["base"].get("sha256")),
        (isinstance(adapter, dict) and adapter.get("sha256"), digests.get(archive.TENSORS)),
        (data.get("fingerprint"), manifest["data_fingerprint"]),
        (data.get("rights"), manifest["rights"]),
        (digests.get("chat_template.jinja", ""), manifest["template_sha256"]),
    )
    if any(left != right for left, right in pairs):
        _refuse("H718", say("The manifest and the records in the bundle do not agree."), source)


def _licence(source: Source, manifest: dict[str, Any], digests: dict[str, str]) -> None:
    listed = manifest["licence"].get("files", [])
    for name in listed if isinstance(listed, list) else []:
        if name not in digests:
            _refuse("H714", say("The licence file {file} is missing.", file=str(name)[:80]), source)
    prefix = str(manifest["licence"].get("name_prefix", ""))
    if prefix and not licence.begins_rightly(manifest["name"], prefix):
        _refuse(
            "H714",
            say(
                "The base model's licence asks for a name that begins with '{prefix}'.",
                prefix=prefix[:40],
            ),
            source,
        )
    base_id = str(manifest["base"].get("id", ""))
    problem = licence.problem(base_id, manifest["name"], digests, lambda n: read(source, n))
    if problem is not None:
        _refuse("H714", problem, source)


def _card_and_bill(source: Source, digests: dict[str, str]) -> None:
    for name in (licence.CARD, bom.NAME):
        if name not in digests:
            _refuse("H719", say("{file} is missing.", file=name), source)
    text = read(source, licence.CARD)
    marks = [card.MARK.format(code=code).encode() for code in card.LANGUAGES]
    if not text.startswith(b"---\nbase_model:") or any(mark not in text for mark in marks):
        _refuse("H719", say("The model card is not in both languages."), source)
    bill = _object(source, bom.NAME, "H719")
    if bom.problem(bill, digests.get(archive.TENSORS, "")):
        _refuse("H719", say("The bill of materials is not one of this adapter."), source)


def _reports(source: Source, manifest: dict[str, Any], digests: dict[str, str]) -> list[str]:
    present = sorted(n for n in REPORTS if n in digests)
    wanted = [EVALUATION, MEMORISATION] if manifest["evaluated"] else []
    if sorted(manifest["reports"], key=str) != present or not set(wanted) <= set(present):
        _refuse("H718", say("A report that the manifest names is missing."), source)
    checks = []
    for name in present:
        _object(source, name, "H718")
    if manifest["evaluated"]:
        checks.append(say("evaluation: included").text())
    else:
        checks.append(say("evaluation: none was made").text())
    passed = False
    if MEMORISATION in present:
        passed = _object(source, MEMORISATION, "H718").get("passed") is True
    if passed != manifest["memorisation_passed"]:
        _refuse("H718", say("The manifest and the records in the bundle do not agree."), source)
    if not passed:
        checks.append(say("memorisation: not shown to be within the limit").text())
    if PRIVACY in present:
        checks.append(say("privacy: the proof of the run is included").text())
    else:
        checks.append(say("privacy: no proof is included (hauslm prove-privacy makes one)").text())
    return checks
