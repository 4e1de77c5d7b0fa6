"""The report in every format and both languages, against golden files; the lab's script, run.

After an intended change of wording: `HAUSLM_UPDATE_GOLDEN=1 pytest tests/report`, and read the diff.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hauslm import embedded
from hauslm.base.files import ProjectFolder
from hauslm.base.quantity import assumed, derived, measured, sourced
from hauslm.base.words import say
from hauslm.records import (
    AdapterFile,
    BreakEven,
    Cell,
    Comparison,
    ComparisonRow,
    Corpus,
    Cost,
    CostPerItem,
    Decision,
    Difference,
    Documents,
    Evaluation,
    Fact,
    Flip,
    Gate,
    Influence,
    Loss,
    Option,
    Reason,
    Record,
    Rejected,
    Run,
    Said,
    Sample,
    Split,
    SystemScore,
    Verdict,
)
from hauslm.report.build import blocks_of, build
from hauslm.report.markdown import render
from hauslm.scenario import Scenario

GOLDEN = Path(__file__).parent / "golden"
DAY = "2026-11-24"
MADE = {"created": f"{DAY}T10:00:00+00:00", "hauslm_version": "0.1.0"}
COST = CostPerItem(
    unit="item", items=220, tokens=measured(310.5, "tokens", DAY, "read and written, mean over 220"),
    seconds_p50=measured(0.21, "s", DAY, "asked one at a time, 20 of them"),
    seconds_p95=measured(0.44, "s", DAY, "asked one at a time, 20 of them"),
    energy=derived(0.005, "Wh", "0.2000 s of model time (measured) at 100 W (assumed: a computer whose processor is busy); this machine offers no counter", 0.0025, 0.01),
    absent={"money": Said.of(say("Without energy there is no cost of electricity."))},
)  # fmt: skip
EVIL = "<script>alert(1)</script> | **x** ${y}"


def _cost(month: float) -> Cost:
    return Cost(
        monthly=derived(month, "EUR", "the lines"),
        horizon=derived(month * 36, "EUR", "the lines"),
        per_document=derived(month / 3000, "EUR", "the lines"),
        lines=(Fact(label=Said.of(say("Electricity price")), quantity=sourced(0.372, "EUR/kWh", "BDEW", "2026-01-01")),),
    )  # fmt: skip


def records() -> dict[str, Record]:
    """One small record of most kinds, with something hostile in every text from outside."""
    local = Option(
        id="own/m/nf4/lora", kind="local", title=Said(text="Model M in 4 bit with LoRA on the own GPU"),
        model="m", cost=_cost(357.5),
    )  # fmt: skip
    cloud = Option(
        id="api/x", kind="cloud", title=Said(text="Model X through an API"), model="x", admissible=False,
        gates=(Gate(rule="D2", effect="BLOCK", why=Said(text="The documents stay."), source="a source"),),
        cost=_cost(47.25),
    )  # fmt: skip
    decision = Decision(
        **MADE,
        verdict=Verdict(
            option=local.id, kind="local", title=local.title,
            reasons=(Reason(criterion="cost", text="The machine is paid for."),
                     Reason(criterion="privacy", text="Nothing leaves the house.")),
        ),
        options=(local, cloud), break_even=BreakEven(against=cloud.id, documents_per_month=12345.6),
        flips=(Flip.model_validate({"parameter": "p", "title": {"text": "The GPU is paid for"},
                                    "from": True, "to": False, "becomes": "api/x"}),),
        sensitivity=(Influence(parameter="p", title=Said(text="Electricity price"), low=0.2, high=0.5,
                               advantage_at_low=-500, advantage_at_high=300),),
        probability_verdict_holds=derived(93, "%", "10,000 draws"), considered=5730,
        assumptions=(Fact(label=Said(text="Hours of upkeep"), quantity=assumed(3, "h/month", 1.5, 6)),),
    )  # fmt: skip
    cell = Cell(judgement=Said(text=f"Judged. {EVIL}"))
    comparison = Comparison(
        **MADE, rows=(ComparisonRow(criterion="cost", title=Said.of(say("Cost")), cloud=cell, local=cell),)
    )  # fmt: skip
    split = Split(train=20, validation=3, test=5)
    corpus = Corpus(
        **MADE,
        documents=Documents(read=28, rejected=(Rejected(file=EVIL, reason=Said(text="empty")),), by_language={"en": 17, "de": 11}),
        documents_split=split, examples=split, tokens=Split(train=96566, validation=31334, test=50343),
        fingerprint="0123456789abcdef" * 4, rights={"open": 28}, token_histogram={"0-512": 9, "512-1024": 19},
        samples=(Sample(id="s1", pieces=(("Question ", False), (EVIL, True))),),
    )  # fmt: skip
    run = Run(
        **MADE,
        adapter=AdapterFile(path="adapter", sha256="a" * 64, parameters=86016, config={"r": 8}),
        base={"id": "embedded", "sha256": "b" * 64}, method="lora", steps=58, epochs=1, tokens=96566,
        tokens_per_second=measured(3468.2, "tokens/s", DAY), peak_memory_gib=measured(1.63, "GiB", DAY),
        seconds=33.5, loss=Loss(first=4.759, last=3.411, validation=4.701, validation_first=5.232),
        history=({"step": 1, "loss": 4.759}, {"step": 58, "loss": 3.411, "validation": 4.701}),
        determinism="bitwise",
    )  # fmt: skip
    evaluation = Evaluation(
        **MADE, n=220, documents=8,
        systems=(SystemScore(name="base", kind="base", metrics={"accuracy": 0.25, "bits_per_byte": 2.27},
                             per_item=COST),
                 SystemScore(name="majority", kind="baseline", metrics={"accuracy": 0.295, "bits_per_byte": None})),
        differences=(Difference(metric="bits_per_byte", system="adapter", against="base", value=-0.17, low=-0.19,
                                high=-0.15, p=0.008, documents=8, detectable=0.02, higher_is_better=False),),
        forgetting={"measured": True}, memorisation={"passed": True}, verdict="better",
        verdict_text=Said(text="The adapter is better."),
        examples=({"text": EVIL, "label": "A", "base": "B", "adapter": "A"},),
    )  # fmt: skip
    made = (decision, comparison, corpus, run, evaluation)
    return {r.name: r for r in made}


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("template", ["full", "lab"])
def test_reports_read_as_the_golden_files(language: str, template: str) -> None:
    text = render(blocks_of(Scenario(name="golden"), records(), template, language).blocks, {})
    text = text.replace(str(embedded.MODEL), "EMBEDDED") + "\n"
    file = GOLDEN / f"{template}.{language}.md"
    if os.environ.get("HAUSLM_UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_format_is_written_and_html_is_harmless(language: str, tmp_path: Path) -> None:
    made = build(
        Scenario(name="t"), ProjectFolder(tmp_path), records(),
        formats=("html", "md", "json", "pdf", "terminal"), language=language,
    )  # fmt: skip
    page = made["html"].read_text(encoding="utf-8")
    assert f'<html lang="{language}">' in page and "<script" not in page
    assert re.findall(r'(?:src|href)="https?:', page) == []
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count("<figure>") == page.count("<details>") >= 4  # every drawing also as a table
    pdf = made["pdf"].read_bytes()
    assert pdf.startswith(b"%PDF-") and b"pdfuaid:part" in pdf  # typst refuses what breaks PDF/UA
    assert json.loads(made["json"].read_text(encoding="utf-8"))["language"] == language
    assert "Traceback" not in made["terminal"].read_text(encoding="utf-8")


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first = build(
        Scenario(name="t"), ProjectFolder(tmp_path / "a"), records(), formats=("html", "md")
    )
    second = build(
        Scenario(name="t"), ProjectFolder(tmp_path / "b"), records(), formats=("html", "md")
    )
    assert all(first[k].read_bytes() == second[k].read_bytes() for k in ("html", "md"))


def test_german_is_german(tmp_path: Path) -> None:
    text = render(blocks_of(Scenario(name="t"), records(), "full", "de").blocks)
    assert "93 %" in text and "96.566" in text and "4,701" in text
    assert "Im Monat" in text and "357,50" in text and "Per month" not in text


def test_without_records_the_report_says_what_to_run(tmp_path: Path) -> None:
    text = render(blocks_of(Scenario(name="t"), {}, "full", "en").blocks)
    assert "hauslm decide" in text and "hauslm train" in text
    assert "hauslm compare" in render(blocks_of(Scenario(name="t"), {}, "lab", "en").blocks)


@pytest.mark.parametrize("base", ["embedded", "mistral-7b-v0.1"])
def test_the_labs_script_is_python_with_the_labs_values(base: str, tmp_path: Path) -> None:
    scenario = Scenario.model_validate({"model": {"base": base}, "adapter": {"preset": "lab"}})
    made = build(scenario, ProjectFolder(tmp_path), records(), template="lab", formats=("md",))
    text = made["script"].read_text(encoding="utf-8")
    ast.parse(text)
    assert "r=8," in text and "lora_alpha=16," in text and "lora_dropout=0.05" in text
    assert ("BitsAndBytesConfig" in text) == (base != "embedded")


def test_the_labs_script_trains_without_hauslm(tmp_path: Path) -> None:
    """Run as a student would, on the embedded model: two steps, then the adapter loads and differs."""
    scenario = Scenario.model_validate(
        {"model": {"base": "embedded"}, "adapter": {"preset": "lab"}}
    )
    made = build(scenario, ProjectFolder(tmp_path), {}, template="lab", formats=("md",))
    command = [
        sys.executable, str(made["script"]), "--base", str(embedded.MODEL), "--documents",
        str(embedded.DOCUMENTS), "--out", str(tmp_path / "adapter"), "--max-steps", "2", "--seq-len", "128",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 16, 0.05)
    assert set(config["target_modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert (config["bias"], config["task_type"]) == ("none", "CAUSAL_LM")
    assert (tmp_path / "adapter" / "tokenizer.json").is_file()


@pytest.mark.parametrize("width", [72, 80, 110])
def test_a_terminal_cuts_no_figure_of_a_wide_table(width: int) -> None:
    """Heads and long texts fold; figures that fit stay whole, and no column is left out."""
    from rich.console import Console

    from hauslm.report.blocks import Table
    from hauslm.report.terminal import renderable

    heads = [
        "System",
        "Gewinn gegenüber der Basis",
        "Trefferquote",
        "Makro-F1",
        "Kalibrierungsfehler",
    ]
    rows = [["TF-IDF", "Trefferquote 0,100 (0,010 … 0,200)", "0,276", "0,086", "0,724"]]
    table = Table(tuple(heads), tuple(map(tuple, rows)), align="llrrr")
    console = Console(width=width, file=io.StringIO())
    console.print(renderable([table]))
    shown = console.file.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    for figure in ("0,276", "0,086", "0,724", "TF-IDF"):
        assert figure in shown
    for letter_run in ("0,100", "Gewinn", "…"):
        assert letter_run in shown
