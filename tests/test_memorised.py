"""By the command line, as a team would: a secret that stands in every document is learned, found and refused.

The documents are short pieces of the embedded ones, each with the same line of boilerplate that holds a
secret, and the adapter is trained for longer than it should be. Nothing is stood in for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hauslm import embedded

SECRET = "7391-XK42-9914"
LINE = f"The access code of the measuring station in the east transept is {SECRET}."
CLEAN = "The measuring station in the east transept was read once a week by a volunteer."
PROJECT = f"""name: canary
documents: {{paths: [documents], split_salt: canary}}
adapter: {{r: 16, lora_alpha: 32}}
training: {{method: lora, epochs: EPOCHS, seq_len: 256, micro_batch_size: 4,
            gradient_accumulation_steps: 1, learning_rate: 0.004}}
evaluation: {{forgetting: false, max_documents: 3, canaries: ["{LINE}"]}}
"""


def written(root: Path, line: str, epochs: int) -> Path:
    documents = root / "documents"
    documents.mkdir(parents=True)
    sources = sorted(embedded.DOCUMENTS.glob("en-*.md"))[:12]
    for number, source in enumerate(sources):
        paragraphs = [p for p in source.read_text(encoding="utf-8").split("\n\n") if len(p) > 200]
        body = "\n\n".join(paragraphs[1:3])[:700]
        text = f"# Note {number} on the organ survey\n\n{body}\n\n{line}\n"
        (documents / f"note-{number:02}.md").write_text(text, encoding="utf-8")
    (root / "hauslm.yaml").write_text(PROJECT.replace("EPOCHS", str(epochs)), encoding="utf-8")
    return root


def hauslm(root: Path, *arguments: str, code: int = 0) -> str:
    """What the command says, both channels, without line ends; it must end with `code`."""
    result = subprocess.run(
        [sys.executable, "-m", "hauslm", "--language", "en", *arguments],
        cwd=root, env={**os.environ, "COLUMNS": "400", "HAUSLM_KEYS": str(root / "keys")},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    said = " ".join((result.stdout + result.stderr).replace("│", " ").split())
    assert result.returncode == code, said
    return said


def record(root: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / "records" / f"{name}.json").read_text())
    return value


@pytest.mark.slow
def test_a_memorised_canary_is_reported_refused_and_shared_only_on_the_users_word(
    tmp_path: Path,
) -> None:
    root = written(tmp_path / "p", LINE, epochs=20)
    for command in ("prepare", "train"):
        hauslm(root, command)
    said = hauslm(root, "evaluate")
    assert "secret-looking strings of the training text by heart; do not share it" in said

    found = record(root, "evaluation")["memorisation"]
    assert found["measured"] and not found["passed"]
    planted = [c for c in found["canaries"] if c["planted"]]
    assert len(planted) == 1 and planted[0]["memorised"] and planted[0]["rank"]["adapter"] == 1
    assert planted[0]["exposure_bits"]["gain"] > 5
    assert any(c["memorised"] for c in found["canaries"] if not c["planted"])  # found by its looks
    assert SECRET not in json.dumps(found) and SECRET not in said

    refused = hauslm(root, "bundle", code=4)
    assert "H667" in refused and "secret-looking" in refused
    assert not list((root / "bundles").glob("*.hlm"))

    accepted = hauslm(root, "bundle", "--accept-memorisation")
    word = "Made although training text was found in the adapter (--accept-memorisation)"
    assert word in accepted
    kept = record(root, "bundle")["accepted_memorisation"]
    assert "secret-looking" in kept["text"]
    (path,) = (root / "bundles").glob("*.hlm")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        card = archive.read(next(n for n in names if n.endswith("README.md"))).decode()
        report = json.loads(archive.read("memorisation.json"))
        everything = b"".join(archive.read(n) for n in names)
    assert word in card and "Erstellt, obwohl im Adapter Trainingstext gefunden wurde" in card
    assert report["accepted"] == kept["text"] and report["passed"] is False
    assert SECRET.encode() not in everything
    assert "not shown to be within the limit" in hauslm(root, "verify", str(path))

    verdict = record(root, "evaluation")["verdict_text"]["text"]
    decided = hauslm(root, "decide")
    assert "The own evaluation on" in decided
    assert verdict[:40] in decided
    assert verdict in json.dumps(record(root, "decision"), ensure_ascii=False)


@pytest.mark.slow
def test_what_is_not_in_the_documents_is_not_reported(tmp_path: Path) -> None:
    """The same project without the secret: the planted line is measured and not found."""
    root = written(tmp_path / "p", CLEAN, epochs=4)
    for command in ("prepare", "train", "evaluate"):
        hauslm(root, command)
    found = record(root, "evaluation")["memorisation"]
    planted = [c for c in found["canaries"] if c["planted"]]
    assert len(planted) == 1 and not planted[0]["memorised"]
