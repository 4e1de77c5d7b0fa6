"""Keep the gettext catalogues true: collect sentences, merge translations, compile, check.

    python scripts/words.py add FILE.json [--language de]   merge {"English template": "Deutsch"}
    python scripts/words.py check                           every sentence translated, .mo up to date
    python scripts/words.py prune                           drop what nobody says any more
    python scripts/words.py missing [--language de]         what is still to be translated, as JSON

Sentences are found by the keywords `say`, `N_` and `Sentence` in src/hauslm, and by `_()` in the
Jinja2 templates. Catalogues: src/hauslm/locale/<language>/LC_MESSAGES/hauslm.po (and the compiled .mo).
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import json
import re
import string
import sys
from functools import lru_cache
from pathlib import Path

import polib

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hauslm"
KEYWORDS = {"say", "N_", "Sentence", "translate"}
TEMPLATE_CALL = re.compile(r"""\b_\(\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")


@lru_cache(maxsize=1)
def sentences() -> dict[str, list[tuple[str, int]]]:
    """Every template in the source, with the places where it stands."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            called = (
                function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            )
            if called not in KEYWORDS:
                continue
            for first in _strings(node.args[0]):
                if first:
                    found.setdefault(first, []).append((name, node.lineno))
    for path in sorted(p for p in SOURCE.rglob("*") if p.suffix in (".j2", ".html", ".jinja")):
        name = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in TEMPLATE_CALL.finditer(line):
                text = (match.group(1) or match.group(2)).replace('\\"', '"').replace("\\'", "'")
                found.setdefault(text, []).append((name, number))
    return found


def _strings(node: ast.expr) -> list[str]:
    """The literal(s) of a first argument; `a if c else b` has two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _strings(node.body) + _strings(node.orelse)
    return []


def catalogue_path(language: str) -> Path:
    return SOURCE / "locale" / language / "LC_MESSAGES" / "hauslm.po"


def load(language: str) -> polib.POFile:
    path = catalogue_path(language)
    if path.exists():
        return polib.pofile(str(path), wrapwidth=0)
    catalogue = polib.POFile(wrapwidth=0)
    catalogue.metadata = {
        "Project-Id-Version": "hauslm",
        "Language": language,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
    }
    return catalogue


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def save(language: str, catalogue: polib.POFile) -> None:
    path = catalogue_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    catalogue.sort(key=lambda entry: entry.msgid)
    catalogue.save(str(path))
    catalogue.save_as_mofile(str(path.with_suffix(".mo")))


def add(language: str, file: Path, comment: str = "") -> int:
    new: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    with (SOURCE / "locale" / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        catalogue = load(language)
        known = {entry.msgid: entry for entry in catalogue}
        for template, translation in new.items():
            if fields(template) != fields(translation):
                print(f"fields differ, not taken: {template!r} -> {translation!r}", file=sys.stderr)
                continue
            if template in known:
                known[template].msgstr = translation
            else:
                entry = polib.POEntry(msgid=template, msgstr=translation, comment=comment)
                catalogue.append(entry)
                known[template] = entry
        save(language, catalogue)
    return 0


def prune(language: str) -> int:
    """Drop the translations of sentences that nobody says any more."""
    catalogue = load(language)
    used = set(sentences())
    for entry in [e for e in catalogue if e.msgid not in used and not e.comment]:
        catalogue.remove(entry)
    save(language, catalogue)
    return 0


def missing(language: str) -> list[str]:
    translated = {entry.msgid for entry in load(language) if entry.msgstr}
    return [t for t in sentences() if t not in translated]


def check(languages: list[str]) -> int:
    problems = []
    for language in languages:
        for template in missing(language):
            place = sentences()[template][0]
            problems.append(f"{place[0]}:{place[1]}: no {language} for {template!r}")
        used = set(sentences())
        catalogue = load(language)
        for entry in catalogue:
            if entry.msgid not in used and not entry.comment:
                problems.append(f"{language}: nobody says {entry.msgid!r}")
            if entry.msgstr and fields(entry.msgid) != fields(entry.msgstr):
                problems.append(f"{language}: fields differ in {entry.msgid!r}")
        compiled = catalogue_path(language).with_suffix(".mo")
        if not compiled.exists() or compiled.read_bytes() != catalogue.to_binary():
            problems.append(f"{compiled} is not the compiled form of its .po")
    print("\n".join(problems))
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["add", "check", "missing", "prune"])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--language", default="de")
    parser.add_argument("--said-by", default="", help="a library that says these sentences (click)")
    arguments = parser.parse_args()
    if arguments.command == "add":
        return add(arguments.language, arguments.file, arguments.said_by)
    if arguments.command == "prune":
        return prune(arguments.language)
    if arguments.command == "missing":
        json.dump(
            dict.fromkeys(missing(arguments.language), ""), sys.stdout, indent=1, ensure_ascii=False
        )
        return 0
    return check([arguments.language])


if __name__ == "__main__":
    raise SystemExit(main())
