"""How does a project begin? The questions of `init`, the demo's project, the look around of `check`.

`init` asks eight questions and writes a commented project file; everything else keeps its default,
which is the lab sheet's research team. `demo` copies the sample documents, so that a reader sees what
goes in. `check` looks at this machine and names the next command for everything that is not ok.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm import embedded
from hauslm.base import egress, files
from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.words import N_, Sentence, language, say, translate


@dataclass(frozen=True)
class Question:
    """One question of `init`: where the answer goes, what is asked, why, and the default."""

    field: str
    prompt: str
    why: str
    default: Any
    choices: tuple[str, ...] = ()


QUESTIONS: tuple[Question, ...] = (
    Question(
        "scenario.workload.documents_per_month",
        N_("How many documents will you analyse per month?"),
        N_("Volume decides whether a price per token or a machine of your own is cheaper."),
        3000,
    ),
    Question(
        "scenario.workload.backlog_documents",
        N_("How many documents are waiting already?"),
        N_("A large backlog can fill a GPU for weeks; it is counted once."),
        100_000,
    ),
    Question(
        "scenario.data.personal",
        N_("Do the documents contain personal data?"),
        N_("Personal data needs a legal basis and, in the cloud, a processor contract (GDPR)."),
        "no",
        ("yes", "no", "unknown"),
    ),
    Question(
        "scenario.data.copyright",
        N_("Whose works are the documents?"),
        N_("Works of third parties may be mined for research, but not simply passed on."),
        "third_party",
        ("own", "open", "third_party", "unknown"),
    ),
    Question(
        "scenario.data.may_leave",
        N_("May the documents leave the house?"),
        N_("If not, every cloud option is out, whatever it costs. Unknown counts as no."),
        "unknown",
        ("yes", "no", "unknown"),
    ),
    Question(
        "scenario.adaptation.needed",
        N_("Must the model learn your domain terms or house style?"),
        N_("Then fine-tuning counts, and cloud fine-tuning is being withdrawn."),
        True,
    ),
    Question(
        "scenario.hardware.gpu",
        N_("Which GPU do you have (catalog id, or none)?"),
        N_(
            "A card that is already paid for costs electricity only. hauslm catalog gpus lists the ids."
        ),
        "rtx-4090",
    ),
    Question(
        "scenario.horizon.months",
        N_("Over how many months do you count?"),
        N_("A purchase pays off over time; models and prices change meanwhile."),
        36,
    ),
)

_HEAD = (
    N_("The project file of hauslm: the whole input of every stage."),
    N_("hauslm schema prints every field with its unit and default."),
)


# The sheet's own configuration, written out; `preset: default` is the one with evidence.
_LAB_ADAPTER: dict[str, Any] = {
    "adapter.preset": "lab",
    "adapter.r": 8,
    "adapter.lora_alpha": 16,
    "adapter.lora_dropout": 0.05,
    "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "adapter.bias": "none",
    "adapter.task_type": "CAUSAL_LM",
}


def _nested(answers: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in answers.items():
        node = tree
        *parents, last = dotted.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _yaml(
    tree: Mapping[str, Any], comments: Mapping[str, str], prefix: str = "", depth: int = 0
) -> str:
    """A small block-style writer: scalars, lists of scalars, sections; comments above their field."""
    import json

    lines = []
    pad = "  " * depth
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if dotted in comments:
            lines.append(f"{pad}# {comments[dotted]}")
        if isinstance(value, Mapping):
            lines.append(f"{pad}{key}:")
            lines.append(_yaml(value, comments, f"{dotted}.", depth + 1).rstrip("\n"))
        elif isinstance(value, bool):
            lines.append(f"{pad}{key}: {str(value).lower()}")
        elif isinstance(value, list):
            inner = ", ".join(
                v if _plain_word(v) else json.dumps(v, ensure_ascii=False) for v in value
            )
            lines.append(f"{pad}{key}: [{inner}]")
        elif isinstance(value, str) and not _plain_word(value):
            lines.append(f"{pad}{key}: {json.dumps(value, ensure_ascii=False)}")
        else:
            lines.append(f"{pad}{key}: {value}")
    return "\n".join(lines) + "\n"


def _plain_word(value: Any) -> bool:
    """A text that YAML reads back as the same text without quotes."""
    word = (
        isinstance(value, str)
        and value.replace("-", "").replace("_", "").replace(".", "").isalnum()
    )
    return bool(
        word
        and not value[0].isdigit()
        and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off")
    )


def write_project_file(root: Path, answers: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write `root/hauslm.yaml` from dotted answers; H111 if there is one already."""
    folder = files.ProjectFolder(root)
    if folder.file.exists() and not overwrite:
        raise UsageError(
            "H111",
            say("There is a project file already."),
            where=str(folder.file),
            next_step=say("Edit it, or write a new one elsewhere with -C DIR."),
        )
    values: dict[str, Any] = {"name": answers.get("name", _project_name(folder.root))}
    values["language"] = answers.get("language", language())
    for question in QUESTIONS:
        values[question.field] = answers.get(question.field, question.default)
    values |= {
        "documents.paths": answers.get("documents.paths", ["documents"]),
        "model.base": answers.get("model.base", "mistral-7b-v0.3"),
    }
    if answers.get("adapter.preset", "lab") == "lab":
        values |= _LAB_ADAPTER
    values |= {k: v for k, v in answers.items() if k not in values}
    code = values["language"]
    comments = {q.field: translate(q.why, code) for q in QUESTIONS}
    if "adapter.r" in values:
        comments["adapter.preset"] = translate(
            N_(
                "The lab sheet's LoRA; for preset 'default' (all linear layers, r 16) delete the lines below it."
            ),
            code,
        )
    comments["model.base"] = translate(
        N_("A catalog id, a folder with config.json, or 'embedded' (shows the way, not quality)."),
        code,
    )
    head = "".join(f"# {translate(line, code)}\n" for line in _HEAD)
    text = head + _yaml(_nested(values), comments)
    from hauslm.scenario import parse

    parse(
        text, folder.file.name
    )  # a wrong answer is told with its place before anything is written
    files.write_sealed(folder.file, text)
    return folder.file


def change_project_file(root: Path, answers: Mapping[str, str]) -> None:
    """Set the questions' fields in an existing project file; comments and everything else stay.

    The changed text is checked as a whole before it is written: a faulty answer changes nothing.
    """
    import io

    from ruamel.yaml import YAML

    from hauslm.scenario import parse

    folder = files.ProjectFolder(root)
    known = {q.field for q in QUESTIONS}
    text = folder.file.read_text(encoding="utf-8")
    parse(text, folder.file.name)
    writer = YAML(typ="rt", pure=True)
    writer.preserve_quotes = True
    writer.width = 10_000
    data = writer.load(text) or {}
    for dotted, answer in answers.items():
        if dotted not in known and not dotted.startswith("scenario."):
            continue
        node = data
        *parents, last = dotted.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = typed_answer(dotted, answer)
        if node[last] is None:  # emptied: the field's default holds again
            del node[last]
    stream = io.StringIO()
    writer.dump(data, stream)
    parse(stream.getvalue(), folder.file.name)
    files.write_sealed(folder.file, stream.getvalue())


def typed_answer(dotted: str, answer: str) -> Any:
    """What was typed into a form for a field: a list where the field is one, None where it is empty."""
    if dotted == "scenario.workload.languages":
        return [part.strip() for part in answer.split(",") if part.strip()]
    return _typed(answer.strip()) if answer.strip() else None


def _typed(answer: str) -> Any:
    """What was typed into a form, as YAML would read it: number, true/false, text."""
    if answer.lower() in ("true", "false"):
        return answer.lower() == "true"
    for kind in (int, float):
        try:
            return kind(answer)
        except ValueError:
            continue
    return answer


def _project_name(root: Path) -> str:
    kept = "".join(c if c.isalnum() or c in " .-_" else "-" for c in root.name).strip(" .-_")
    return kept[:60] or "team"


def write_demo(root: Path, code: str) -> Path:
    """The demo's project: sample documents and task copied into `root`, a project file over them.

    An existing demo project is kept as it is, so that the second run continues the first.
    """
    folder = files.ProjectFolder(root)
    if folder.file.exists():
        return folder.root
    try:
        not_documents = shutil.ignore_patterns("README.md", "glossary.yaml")
        shutil.copytree(
            embedded.DOCUMENTS, folder.root / "documents", dirs_exist_ok=True, ignore=not_documents
        )
        shutil.copytree(
            embedded.TASKS, folder.root / "tasks", dirs_exist_ok=True, ignore=not_documents
        )
        shutil.copy(embedded.DOCUMENTS / "glossary.yaml", folder.root / "glossary.yaml")
    except OSError as error:
        raise files.disk_error(error, folder.root) from error
    write_project_file(folder.root, _DEMO | {"name": "demo", "language": code})
    return folder.root


_DEMO: dict[str, Any] = {
    "model.base": "embedded",
    "documents.paths": ["documents"],
    # A model this small needs all linear layers and a high rate to move at all in a minute.
    "adapter.preset": "default",
    "training.epochs": 2,
    "training.learning_rate": 0.006,
    "evaluation.task.file": "tasks/roles.jsonl",
    "evaluation.task.kind": "classification",
    "evaluation.glossary": "glossary.yaml",
    "analysis.template": "summary",
    "analysis.max_new_tokens": 96,
}


# ---------------------------------------------------------------- check


@dataclass(frozen=True)
class Check:
    """One line of `hauslm check`."""

    title: Sentence
    ok: bool
    detail: Sentence | str
    next_step: Sentence | str = ""
    required: bool = True


def check(root: Path) -> list[Check]:
    """Look around: Python, packages, GPU, memory, disk, base model, network guard, project file."""
    rows = [_python(), *_packages(), _gpu(), _memory(), _disk(root), *_guard()]
    rows += _project(root)
    return rows


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check(
        say("Python"), ok, platform.python_version(), "" if ok else say("Use Python 3.11 to 3.13.")
    )


_RANGES = {
    "torch": ((2, 11), (2, 16)),
    "transformers": ((5, 17), (5, 24)),
    "peft": ((0, 21), (0, 22)),
}


def _packages() -> list[Check]:
    rows = []
    for name, (low, high) in _RANGES.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows.append(
                Check(
                    say("Package {name}", name=name),
                    False,
                    say("not installed"),
                    say("Run: make install"),
                )
            )
            continue
        numbers = tuple(int(p) for p in version.split("+")[0].split(".")[:2])
        ok = low <= numbers < high
        wanted = say(
            "Install a version from {low} to below {high}.",
            low=".".join(map(str, low)),
            high=".".join(map(str, high)),
        )
        rows.append(Check(say("Package {name}", name=name), ok, version, "" if ok else wanted))
    return rows


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    title = say("GPU")
    step = say(
        "Small models run on the CPU; hauslm plan --gpu rtx-4090 plans for a card you do not have yet."
    )
    if not tool:
        return Check(title, False, say("no NVIDIA driver found"), step, required=False)
    query = [tool, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (subprocess.SubprocessError, OSError) as error:
        return Check(
            title,
            False,
            say("nvidia-smi failed ({reason})", reason=str(error)),
            step,
            required=False,
        )
    return Check(title, True, answer.replace("\n", "; "))


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    ok = free >= 2
    return Check(
        say("Main memory"),
        ok,
        say("{free:.1f} of {total:.1f} GiB free", free=free, total=total),
        "" if ok else say("Close other programs; the demo needs about 2 GiB."),
    )


def _disk(root: Path) -> Check:
    existing = next(p for p in (root.resolve(), *root.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**30
    ok = free >= 2
    return Check(
        say("Disk"),
        ok,
        say("{free:.1f} GiB free", free=free),
        "" if ok else say("Free some space; checkpoints and packed examples need it."),
    )


def _guard() -> list[Check]:
    """A layer that is missing is shown as missing: what it would hold back is then not held back."""
    on = egress.mode() != "open"
    step = say("Start hauslm through its command; the guard is on there.")
    if on:
        step = say("hauslm prove-privacy measures what leaves in spite of it.")
    return [
        Check(
            say("Network guard: {layer}", layer=translate(layer.name)),
            layer.active,
            layer.said,
            "" if layer.active else step,
            required=not on,
        )
        for layer in egress.layers()
    ]


def _project(root: Path) -> list[Check]:
    from hauslm.catalog.local import find_base
    from hauslm.scenario import load

    folder = files.ProjectFolder(root)
    title = say("Project file")
    try:
        scenario = load(folder.file)
    except HauslmError as error:
        rows = [Check(title, False, error.what, error.next_step, required=folder.file.exists())]
        base, path, revision = "embedded", None, None
    else:
        rows = [Check(title, True, str(folder.file))]
        base, path, revision = scenario.model.base, scenario.model.path, scenario.model.revision
    model = say("Base model {name}", name=base)
    try:
        found = find_base(base, path, revision, folder.root)
    except HauslmError as error:
        rows.append(Check(model, False, error.what, error.next_step))
    else:
        rows.append(Check(model, True, str(found.path)))
    return rows
