"""What does a colleague need? Adapter, tokenizer, hashes, licence duties, evaluation: one file.

`NAME.hlm` holds the plain PEFT folder, `manifest.json` with the sha256 of every other entry, the base
model's id and weight hash, the template's hash, what the records say about data, training, evaluation,
memorisation and privacy, the model card in two languages, the bill of materials, the licence's texts
and, if asked for, a signature over all of it. Never training text: samples, items and file names of documents stay at home.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.files import ProjectFolder, sha256_bytes, write_sealed
from hauslm.base.progress import Progress
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import base_of
from hauslm.records import Bundle, Corpus, Evaluation, Privacy, Run, Said
from hauslm.scenario import Scenario
from hauslm.share import archive, bom, contents, keys
from hauslm.share import sign as signing
from hauslm.share.card import card
from hauslm.share.licence import (
    CARD,
    CHANGES,
    Duties,
    changes_text,
    check_name,
    check_texts,
    duties_of,
)
from hauslm.share.verify import FORMAT, verify

# What of the adapter folder travels. Anything else there (logs, checkpoints) stays.
CARRIED = (
    "adapter_config.json",
    archive.TENSORS,
    archive.TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "canary.json",
)
_REQUIRED = CARRIED[:2]
# Keys of the records that could carry text of documents.
_PRIVATE = ("samples", "examples", "checks", "notices", "inputs", "files", "duplicates")


def _public(record: Any) -> dict[str, Any]:
    """A record without anything that quotes or names the team's documents."""
    data: dict[str, Any] = record.model_dump(mode="json")
    for key in _PRIVATE:
        data.pop(key, None)
    documents = data.get("documents")
    if isinstance(documents, dict):
        documents["rejected"] = len(documents.get("rejected", []))
    data.pop("task", None)
    if isinstance(data.get("memorisation"), dict):
        data["memorisation"] = _without_text(data["memorisation"])
    for part, key in (("base", "path"), ("adapter", "path")):  # paths of this machine
        if isinstance(data.get(part), dict):
            data[part].pop(key, None)
    if isinstance(data.get("adapter"), dict):
        data["adapter"].get("config", {}).pop("base_model_name_or_path", None)
    return data


def bundle(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run,
    corpus: Corpus,
    evaluation: Evaluation | None,
    privacy: Privacy | None = None,
    canary: dict[str, Any] | Sentence | None = None,
    accepted: Said | None = None,
    sign: str | None = None,
    passphrase: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write `bundles/NAME.hlm`. `sign` names one of our keys (see `keys.py`); None leaves it unsigned.
    `accepted` is the measured memorisation that the user shares knowingly: it stands in the record of
    the bundle, in its memorisation report and in the model card.

    H710 a file is missing, H711 the adapter is not what the run record says, H720 and H721 the base
    model's licence, H742-H744 the key. Same records and same key: same bytes.
    """
    key = keys.load(sign, passphrase) if sign is not None else None
    entries = _adapter_files(folder.root / run.adapter.path, run)
    model = scenario.model
    base = base_of(model, folder.root)
    duties = duties_of(model.base, base.path)
    check_name(scenario.name, duties)
    check_texts(duties, base.path)
    if isinstance(canary, dict):
        entries["canary.json"] = _json(canary)
    entries |= _papers(
        scenario, run, corpus, evaluation, privacy, duties, base.revision or "", accepted
    )
    entries["adapter_config.json"] = _portable_config(entries["adapter_config.json"], model.base)
    if key is not None:
        entries[signing.PUBLIC_KEY] = signing.pem_of(key.public_key())
    manifest = _manifest(scenario, run, corpus, evaluation, duties, base.revision or "", entries)
    entries["manifest.json"] = _json(manifest)
    if key is not None:
        hashes = {n: sha256_bytes(b) for n, b in entries.items()}
        entries[signing.SIGNATURE] = signing.sign(hashes, _file_name(scenario.name), key)
    data = archive.write(entries)
    path = folder.bundles / f"{_file_name(scenario.name)}{archive.SUFFIX}"
    digest = write_sealed(path, data)
    return Bundle(
        path=folder.relative(path),
        sha256=digest,
        bytes=len(data),
        files=manifest["files"],
        signature={"kind": "none"}
        if key is None
        else {"kind": "openssf", "key": sign, "fingerprint": signing.fingerprint(key.public_key())},
        licence=duties.record(scenario.language),
        canary={"included": "canary.json" in entries},
        accepted_memorisation=accepted,
        notices=tuple(Said.of(n) for n in _notices(key is not None, canary, evaluation, corpus)),
    )


def _adapter_files(source: Path, run: Run) -> dict[str, bytes]:
    """What of the adapter folder travels, as it was when training ended. H710, H711."""
    entries = {n: (source / n).read_bytes() for n in CARRIED if (source / n).is_file()}
    for name in _REQUIRED:
        if name not in entries:
            raise DataError(
                "H710", say("{file} is missing from the adapter.", file=name), where=str(source),
                next_step=say("hauslm train makes it again."),
            )  # fmt: skip
    found = sha256_bytes(entries[archive.TENSORS])
    if found != run.adapter.sha256:
        raise DataError(
            "H711",
            say(
                "The adapter was changed after training (expected {old}, found {new}).",
                old=run.adapter.sha256[:12],
                new=found[:12],
            ),
            where=str(source / archive.TENSORS),
            next_step=say("Run hauslm train again, or put the trained file back."),
        )
    entries.pop("canary.json", None)  # made anew, or not at all
    return entries


def _papers(
    scenario: Scenario, run: Run, corpus: Corpus, evaluation: Evaluation | None,
    privacy: Privacy | None, duties: Duties, revision: str, accepted: Said | None,
) -> dict[str, bytes]:  # fmt: skip
    """Card, bill of materials, licence texts, records and reports: everything but the adapter."""
    name = scenario.name
    papers = {n: text.encode() for n, text in duties.texts.items()}
    if duties.needs_changes:
        papers[CHANGES] = changes_text(scenario.model.base, "adapter").encode()
    papers[CARD] = card(name, run, corpus, evaluation, duties, accepted).encode()
    papers[bom.NAME] = bom.bom(name, run, corpus, evaluation, duties, run.adapter.sha256, revision)
    papers[contents.TRAINING] = _json(_public(run))
    papers[contents.DATA] = _json(_public(corpus))
    if evaluation is not None:
        papers[contents.EVALUATION] = _json(_public(evaluation))
        measured = _without_text(evaluation.memorisation)
        if accepted is not None:
            measured["accepted"] = accepted.sentence().text("en")
        papers[contents.MEMORISATION] = _json(measured)
    if privacy is not None:
        papers[contents.PRIVACY] = _json(_public(privacy))
    return papers


def _without_text(memorisation: dict[str, Any]) -> dict[str, Any]:
    """The measured figures; of planted canaries only whether they came back, not their words."""
    kept = dict(memorisation)
    canaries = kept.get("canaries")
    if isinstance(canaries, (list, tuple)):
        kept["canaries"] = [{k: v for k, v in dict(c).items() if k != "text"} for c in canaries]
    return kept


def _manifest(
    scenario: Scenario, run: Run, corpus: Corpus, evaluation: Evaluation | None,
    duties: Duties, revision: str, entries: dict[str, bytes],
) -> dict[str, Any]:  # fmt: skip
    template = entries.get("chat_template.jinja", b"")
    return {
        "format": FORMAT,
        "name": scenario.name,
        "base": {
            "id": scenario.model.base,
            "revision": revision,
            "sha256": run.base.get("sha256", ""),
            **({"added_tokens": added} if (added := scenario.model.added_tokens) else {}),
        },
        "template_sha256": sha256_bytes(template) if template else "",
        "data_fingerprint": corpus.fingerprint,
        "rights": corpus.rights,
        "licence": duties.record("en"),
        "evaluated": evaluation is not None,
        "memorisation_passed": evaluation is not None
        and evaluation.memorisation.get("passed") is True,
        "reports": sorted(n for n in contents.REPORTS if n in entries),
        "files": {n: sha256_bytes(b) for n, b in sorted(entries.items())},
    }


def _notices(
    signed: bool,
    canary: dict[str, Any] | Sentence | None,
    evaluation: Evaluation | None,
    corpus: Corpus,
) -> list[Sentence]:
    notices = []
    if not signed:
        notices.append(
            say("The bundle is not signed: its hashes prove that it is whole, not who made it.")
        )
    if isinstance(canary, Sentence):
        notices.append(say("The bundle carries no canary: {reason}", reason=canary))
    kept = {} if evaluation is None else evaluation.memorisation
    exceeded = kept.get("spans") or kept.get("canaries_memorised")
    if kept.get("passed") is False and not exceeded:
        notices.append(
            say(
                "Memorisation could not be measured, so nothing shows that the adapter keeps training text to itself; do not pass it on before counsel agrees."
            )
        )
    elif kept.get("passed") is False:
        notices.append(
            say(
                "The memorisation limit is exceeded: the adapter can repeat training text, so do not pass it on before counsel agrees."
            )
        )
    if corpus.rights and set(corpus.rights) - {"open"}:
        notices.append(
            say(
                "Not all training documents are openly licensed: share the adapter only with those who may use them."
            )
        )
    return notices


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _portable_config(raw: bytes, base_id: str) -> bytes:
    """The adapter's config without this machine's paths: the base is named by its id."""
    config = json.loads(raw)
    config["base_model_name_or_path"] = base_id
    return _json(config)


def _file_name(name: str) -> str:
    return (
        "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name).strip("-.")
        or "adapter"
    )


def unpack(path: Path, target: Path) -> Path:
    """Write a verified bundle's entries into `target` (a new folder); `verify` has run before."""
    verify(path)
    target.mkdir(parents=True, exist_ok=False)
    with archive.open_checked(path) as opened:
        for info in opened.infolist():
            write_sealed(target / info.filename, opened.read(info))
    return target
