"""What the program says of itself, as pages of the manual, in the language that HAUSLM_LANGUAGE names.

Nothing here is written by hand but headings: commands come from click, the project file from its JSON
Schema, records from their models and the comments beside their fields, the API from its docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import Any

import click

from hauslm import flow, records
from hauslm.base import words
from hauslm.cli.entry import COMMANDS
from hauslm.report import plots
from hauslm.report.blocks import Figure, Writer
from hauslm.report.svg import BLUE, GREY, INK, ORANGE, PAPER, SOFT, Canvas

T = {
    "generated": ("Generated from the program itself.", "Vom Programm selbst erzeugt."),
    "cli": ("The commands", "Die Befehle"),
    "file": ("The project file", "Die Projektdatei"),
    "records": ("The records", "Die Datensätze"),
    "python": ("The Python API", "Die Python-Schnittstelle"),
    "option": ("option", "Schalter"),
    "meaning": ("meaning", "Bedeutung"),
    "default": ("default", "Vorgabe"),
    "field": ("field", "Feld"),
    "type": ("type", "Typ"),
    "file_intro": (
        "`hauslm.yaml` is the whole input of every stage. Every field has a default; an unknown name or an impossible value is told with line and column.",
        "`hauslm.yaml` ist die ganze Eingabe jeder Stufe. Jedes Feld hat eine Vorgabe; ein unbekannter Name oder ein unmöglicher Wert wird mit Zeile und Spalte gemeldet.",
    ),
    "records_intro": (
        "Each stage writes one JSON file into `records/`. A quantity is `{value, unit, low, high, known, source, date}`; `known` is given, measured, sourced, derived or assumed. A sentence keeps its template and values, so that it can be said in another language.",
        "Jede Stufe schreibt eine JSON-Datei nach `records/`. Eine Größe ist `{value, unit, low, high, known, source, date}`; `known` ist given, measured, sourced, derived oder assumed. Ein Satz behält Vorlage und Werte, damit er in einer anderen Sprache gesagt werden kann. Feldnamen und Anmerkungen sind englisch.",
    ),
    "python_intro": (
        "The same stages as functions; they return the records. A project is a folder with `hauslm.yaml`, a path to one, or (for `compare`, `decide` and `plan`) a `Scenario`.",
        "Dieselben Stufen als Funktionen; sie geben die Datensätze zurück. Ein Projekt ist ein Ordner mit `hauslm.yaml`, der Pfad dazu oder (für `compare`, `decide` und `plan`) ein `Scenario`. Die Beschreibungen stehen im Programm und sind englisch.",
    ),
    "exit": (
        "Exit codes: 0 done; 2 usage or project file; 3 data; 4 does not fit, or refused; 5 environment; 75 interrupted, the same command goes on.",
        "Rückgabewerte: 0 erledigt; 2 Aufruf oder Projektdatei; 3 Daten; 4 passt nicht oder abgelehnt; 5 Umgebung; 75 unterbrochen, derselbe Befehl macht weiter.",
    ),
    "one_of": ("one of", "eines von"),
    "base": ("Weights of the base, frozen", "Gewichte des Grundmodells, eingefroren"),
    "adapter": ("Adapter, trained", "Adapter, trainiert"),
    "lora": ("LoRA beside one weight matrix of Mistral 7B", "LoRA neben einer Gewichtsmatrix von Mistral 7B"),
    "lab": ("The lab's code as it stands, on 24 GB", "Der Code des Aufgabenblatts, wie er ist, auf 24 GB"),
    "fits": ("4-bit base, recomputed activations", "Grundmodell in 4 Bit, Aktivierungen neu berechnet"),
    "numbers": ("{n:,} numbers", "{n:,} Zahlen"),
}  # fmt: skip


def t(key: str, language: str) -> str:
    return T[key][0 if language == "en" else 1]


def pages(language: str) -> dict[str, str]:
    """Page name -> Markdown."""
    words.use_language(language)
    return {
        "reference/cli": _cli(language),
        "reference/project-file": _project_file(language),
        "reference/records": _records(language),
        "reference/python": _python(language),
    }


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") or "–"


def _head(title: str, language: str, *intro: str) -> str:
    return f"# {t(title, language)}\n\n*{t('generated', language)}*\n\n" + "".join(
        f"{t(i, language)}\n\n" for i in intro
    )


def _cli(language: str) -> str:
    text = _head("cli", language, "exit")
    for name, (module, line) in COMMANDS.items():
        command = getattr(importlib.import_module(f"hauslm.cli.{module}"), name.replace("-", "_"))
        context = click.Context(command, info_name=f"hauslm {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        text += f"## hauslm {name}\n\n{words.translate(line, language)}\n\n"
        text += f"```text\nhauslm {name} {usage}\n```\n\n"
        text += f"| {t('option', language)} | {t('meaning', language)} |\n| --- | --- |\n"
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            first, second = parameter.get_help_record(context) or ("", "")
            text += f"| `{first.replace('|', '¦')}` | {cell(second)} |\n"
        text += "\n"
    return text


def _project_file(language: str) -> str:
    schema = flow.schema(language)
    text = _head("file", language, "file_intro")
    text += _fields(schema, schema, "", language)
    return text


def _sub(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a field is, if it is one."""
    for part in (field, *field.get("allOf", []), *field.get("anyOf", [])):
        name = part.get("$ref", "").rpartition("/")[2]
        if name and "properties" in schema["$defs"][name]:
            found: dict[str, Any] = schema["$defs"][name]
            return found
    return None


def _fields(schema: dict[str, Any], part: dict[str, Any], prefix: str, language: str) -> str:
    plain, sections = [], []
    for name, field in part["properties"].items():
        section = _sub(schema, field)
        (sections if section else plain).append((name, field, section))
    text = ""
    if plain:
        heads = [t(k, language) for k in ("field", "type", "default", "meaning")]
        text += f"| {' | '.join(heads)} |\n|{' --- |' * 4}\n"
        for name, field, _ in plain:
            said = cell(field.get("description", ""))
            text += f"| `{name}` | {_type(field, language)} | {_default(field)} | {said} |\n"
        text += "\n"
    for name, _, section in sections:
        assert section is not None
        level = "##" if not prefix else "###"
        text += f"{level} {prefix}{name}\n\n" + _fields(
            schema, section, f"{prefix}{name}.", language
        )
    return text


def _default(field: dict[str, Any]) -> str:
    """As one would write it in YAML; – where the field may stay empty."""
    value = field.get("default")
    if value is None or value == []:
        return "–"
    if isinstance(value, (bool, list, dict)):
        return f"`{json.dumps(value, ensure_ascii=False)}`"
    return f"`{cell(value)}`"


def _type(field: dict[str, Any], language: str) -> str:
    if "enum" in field:
        return f"{t('one_of', language)} " + ", ".join(f"`{v}`" for v in field["enum"])
    if "anyOf" in field:
        kinds = [_type(f, language) for f in field["anyOf"]]
        return " / ".join(dict.fromkeys(k for k in kinds if k))
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "")
    if kind == "array":
        return f"[{_type(field.get('items', {}), language)}]"
    ends = [f"{s} {_plain(field[k])}" for k, s in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
            if isinstance(field.get(k), (int, float)) and abs(field[k]) < 1e9]  # fmt: skip
    return " ".join([str(kind), *ends])


def _plain(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _records(language: str) -> str:
    text = _head("records", language, "records_intro")
    made = [
        c for c in vars(records).values() if inspect.isclass(c) and c.__module__ == records.__name__
    ]
    whole = [c for c in made if issubclass(c, records.Record) and c.name]
    parts = [
        c
        for c in made
        if issubclass(c, records.Value) and c not in whole and c is not records.Value
    ]
    for group in (whole, parts):
        for model in group:
            title = f"records/{model.name}.json" if model in whole else model.__name__
            text += f"## {title}\n\n{cell(inspect.getdoc(model) or '').strip('–')}\n\n"
            notes = _comments(model)
            text += f"| {t('field', language)} | {t('type', language)} | {t('meaning', language)} |\n|{' --- |' * 3}\n"
            for name, field in model.model_fields.items():
                if model in whole and name in records.Record.model_fields:
                    continue
                shown = field.serialization_alias or name
                kind = re.sub(r"\b(?:hauslm\.[\w.]*\.|typing\.)", "", _annotation(field.annotation))
                text += (
                    f"| `{shown}` | `{kind.replace('|', '¦')}` | {cell(notes.get(name, ''))} |\n"
                )
            text += "\n"
    return text


def _annotation(kind: Any) -> str:
    return (
        kind.__name__ if inspect.isclass(kind) and not getattr(kind, "__args__", ()) else str(kind)
    )


def _comments(model: type) -> dict[str, str]:
    """The comment behind each field in the source."""
    lines = inspect.getsource(model).splitlines()
    found = (re.match(r"\s+(\w+): .*?  # (.*)$", line) for line in lines)
    return {m.group(1): m.group(2) for m in found if m}


def _python(language: str) -> str:
    import hauslm

    text = _head("python", language, "python_intro")
    for name in sorted(hauslm._FROM_FLOW):
        function = getattr(flow, name)
        signature = str(inspect.signature(function)).replace("'", "")
        said = inspect.getdoc(function) or ""
        text += f"## hauslm.{name}\n\n```python\nhauslm.{name}{signature}\n```\n\n{said}\n\n"
    for name in ("load_scenario", "Scenario", "HauslmError"):
        thing = getattr(hauslm, name)
        text += f"## hauslm.{name}\n\n{inspect.getdoc(thing) or ''}\n\n"
    return text


# ---------------------------------------------------------------- figures


def figures(language: str) -> dict[str, str]:
    """Name -> SVG of the explanations, drawn from what the program computes for the lab's team."""
    words.use_language(language)
    return {
        "explain-cost": _decision_figure(language, 0),
        "explain-tornado": _decision_figure(language, 1),
        "explain-memory-lab": _memory(language, "lab", method="lora", checkpointing=False),
        "explain-memory-fits": _memory(language, "fits", method="qlora", checkpointing=True),
        "explain-lora": _lora(language),
    }


def _decision_figure(language: str, which: int) -> str:
    from hauslm.report.chapters import CHAPTERS
    from hauslm.scenario import Scenario

    writer = Writer(language)
    CHAPTERS["decision"](writer, flow.decide(Scenario()))
    return [b.svg for b in writer.blocks if isinstance(b, Figure)][which]


def _memory(language: str, title: str, **question: Any) -> str:
    from hauslm.plan.picture import PARTS

    plan = flow.plan_free(
        model="mistral-7b-v0.1", gpu="rtx-4090", seq_len=2048, micro_batch_size=1, rank=8,
        targets="q_proj,k_proj,v_proj,o_proj", **question,
    )  # fmt: skip
    parts = [
        (words.translate(n, language), getattr(plan.memory.parts, k).value)
        for k, (n, _) in PARTS.items()
    ]
    peak = plan.memory.peak_gib
    return plots.memory_bar(
        [p for p in parts if p[1] > 0.005], [("24 GB", 24.0)], t(title, language), "GiB",
        (peak.lowest, peak.highest), language=language,
    )  # fmt: skip


def _lora(language: str) -> str:
    """W (4096 x 4096) with B (4096 x 8) and A (8 x 4096) beside it; not to scale, the counts say it."""
    canvas = Canvas(720, 262, t("lora", language))
    side, rank = 4096, 8
    count = words.Sentence(t("numbers", language))

    def numbers(n: int) -> str:
        return words.Sentence(count.template, {"n": n}).text(language)

    canvas.rect(40, 40, 160, 160, GREY, title=t("base", language))
    canvas.text(120, 116, f"W  {side} × {side}", anchor="middle", weight="600")
    canvas.text(120, 136, numbers(side * side), size=11.5, anchor="middle")
    canvas.text(120, 224, t("base", language), size=11.5, anchor="middle", colour=SOFT)
    canvas.text(236, 126, "+", size=26, anchor="middle")
    canvas.text(290, 126, "α / r  ·", size=16, anchor="middle")
    canvas.rect(340, 40, 16, 160, ORANGE, title="B")
    canvas.text(348, 30, f"B  {side} × {rank}", size=11.5, anchor="middle")
    canvas.text(378, 126, "·", size=22, anchor="middle")
    canvas.rect(400, 112, 160, 16, BLUE, title="A")
    canvas.text(480, 102, f"A  {rank} × {side}", size=11.5, anchor="middle")
    canvas.text(480, 150, numbers(2 * side * rank), size=11.5, anchor="middle")
    share = words.number(2 * rank / side, ".2%", language)
    canvas.text(480, 170, share, size=11.5, anchor="middle", weight="600")
    canvas.text(480, 224, t("adapter", language), size=11.5, anchor="middle", colour=SOFT)
    canvas.line(330, 236, 630, 236, INK)
    canvas.line(30, 236, 210, 236, INK)
    canvas.rect(0, 0, 0, 0, PAPER)
    return canvas.svg()
