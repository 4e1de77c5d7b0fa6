"""A further language is one catalogue: no code changes, and nothing is left in English.

The catalogue is made here from the German one's msgids; every sentence stands in ⟦brackets⟧, so that
what is hard-coded stands outside of them. `tests/web/test_pseudo.py` does the same for pages and reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polib
import pytest

from hauslm.base import words
from hauslm.cli.entry import COMMANDS
from tests.cli.test_entry import CLEAN
from tests.web.test_pseudo import outside

THIRD = "fr"  # hauslm has no catalogue for it; babel knows its numbers
# What is typed stays as it is typed, and a value's kind is click's business.
TYPED = ("hauslm", "REGEX", "RANGE", "INTEGER", "FLOAT", "DIR", "FILE", "TEXT", "PATH")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    german = polib.pofile(str(words.LOCALE_FOLDER / "de" / "LC_MESSAGES" / "hauslm.po"))
    catalogue = polib.POFile()
    catalogue.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    for entry in german:
        kept = (
            {"msgid_plural": entry.msgid_plural, "msgstr_plural": entry.msgstr_plural}
            if entry.msgid_plural
            else {"msgstr": f"⟦{entry.msgid}⟧"}
        )
        catalogue.append(polib.POEntry(msgid=entry.msgid, **kept))
    folder = tmp_path_factory.mktemp("locale")
    (folder / THIRD / "LC_MESSAGES").mkdir(parents=True)
    catalogue.save_as_mofile(str(folder / THIRD / "LC_MESSAGES" / "hauslm.mo"))
    return folder


def _run(place: Path, code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python with the folder of catalogues beside the program's own exchanged, nothing else."""
    head = f"from pathlib import Path\nfrom hauslm.base import words\nwords.LOCALE_FOLDER = Path({str(place)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", head + code, *arguments], cwd=cwd, capture_output=True, text=True,
        env=CLEAN, timeout=120, check=False,
    )  # fmt: skip


ENTRY = "import sys\nfrom hauslm.cli.entry import entry\nsys.exit(entry())\n"


def test_the_tool_speaks_a_language_that_only_a_catalogue_knows(
    place: Path, tmp_path: Path
) -> None:
    made = _run(place, ENTRY, "init", "--yes", "--language", THIRD, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "⟦Next: {step}⟧".format(step="hauslm decide") in made.stderr
    written = (tmp_path / "hauslm.yaml").read_text(encoding="utf-8")
    assert f"language: {THIRD}" in written
    comments = [line for line in written.splitlines() if line.strip().startswith("#")]
    assert len(comments) > 8 and all("⟦" in line for line in comments)
    decided = _run(place, ENTRY, "decide", cwd=tmp_path)  # the project file says the language
    assert decided.returncode == 0 and "⟦The decision⟧" in decided.stdout, decided.stderr
    assert "\u202f" in decided.stdout  # a French thousand
    record = json.loads((tmp_path / "records" / "decision.json").read_text(encoding="utf-8"))
    assert (
        "⟦" in record["verdict"]["title"]["text"]
        and "⟦" not in record["verdict"]["title"]["template"]
    )
    wrong = _run(place, ENTRY, "decide", "--language", "xx", cwd=tmp_path)
    assert wrong.returncode == 2 and THIRD in wrong.stderr
    error = _run(place, ENTRY, "plan", "--rank", "8", "--language", THIRD, cwd=tmp_path)
    assert error.returncode == 2 and "⟦A free-standing plan needs --model.⟧" in error.stderr


def test_no_help_text_is_hard_coded(place: Path, tmp_path: Path) -> None:
    code = (
        "import json, click\n"
        f"words.use_language({THIRD!r})\n"
        "from hauslm.cli.entry import COMMANDS, group\n"
        "told = {}\n"
        "for name in COMMANDS:\n"
        "    command = group.get_command(None, name)\n"
        "    context = click.Context(command, info_name=name)\n"
        "    told[name] = [command.help] + [p.help for p in command.params if getattr(p, 'help', None)]\n"
        "    told[name] += [str(getattr(command, 'epilog', None) or '')]\n"
        "print(json.dumps(told))\n"
    )
    done = _run(place, code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(COMMANDS)
    for name, texts in told.items():
        left = [w for t in texts for w in outside(t) if w not in TYPED]
        assert left == [], f"hauslm {name}: {left}"
        assert all(p for p in texts[:1]), name
