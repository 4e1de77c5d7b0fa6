"""Records as pages: headline figures, the chapter with its sources, tables that only pages have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hauslm import flow
from hauslm.base.errors import HauslmError
from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, say, speaking
from hauslm.plan.tables import Fit, fitting_gpus, fitting_models
from hauslm.records import RECORDS, Corpus, Evaluation, Plan, Record, Run
from hauslm.report import html
from hauslm.report.blocks import Heading, Writer
from hauslm.report.build import blocks_of, words_of
from hauslm.report.chapters import CHAPTERS

LETTERS_PER_ITEM = 420


@dataclass(frozen=True)
class Tile:
    """A headline figure: what, how much, and how it is known."""

    label: str
    value: str
    note: str = ""


def chapter(record: Record, language: str) -> str:
    """The record's chapter without its first heading, which the page has itself."""
    w = Writer(language, linked=True)
    with speaking(language):
        CHAPTERS[record.name](w, record)
    blocks = w.blocks[1:] if w.blocks and isinstance(w.blocks[0], Heading) else w.blocks
    body = html.fragment(blocks, words_of(language), w.sources)
    return body + html.source_list(w.sources, w.t(say("Sources of the figures")))


def whole_report(project: flow.Project, language: str) -> tuple[str, list[tuple[str, str]]]:
    """(the report as HTML for a page, its chapters as (anchor, title))."""
    records = sound_records(project)
    with speaking(language):
        w = blocks_of(project.scenario, records, "full", language, linked=True)
    chapters = [b.text for b in w.blocks if isinstance(b, Heading) and b.level == 2]
    body = html.fragment(w.blocks, words_of(language), w.sources)
    body += html.source_list(w.sources, w.t(say("Sources of the figures")))
    return body, [(html.anchor(c), c) for c in chapters]


def sound_records(project: flow.Project) -> dict[str, Record]:
    """The records that can be read; a damaged one counts as not there (its stage says so)."""
    found: dict[str, Record] = {}
    for name in RECORDS:
        try:
            record = flow.load_record(project, name)
        except HauslmError:
            continue
        if record is not None:
            found[name] = record
    return found


# ---------------------------------------------------------------- headline figures


def tiles(record: Record, language: str) -> list[Tile]:
    """Three or four figures that answer the page's question at a glance."""
    w = Writer(language)
    make = {"plan": _plan, "corpus": _corpus, "run": _run, "evaluation": _evaluation}.get(
        record.name
    )
    return make(w, record) if make else []


def _tile(w: Writer, label: Sentence, quantity: Quantity, spec: str = "") -> Tile:
    return Tile(w.t(label), w.quantity(quantity, spec, cite=False), w.provenance(quantity))


def _plan(w: Writer, plan: Any) -> list[Tile]:
    assert isinstance(plan, Plan)  # noqa: S101 - `tiles` asks by name
    return [
        _tile(w, say("Peak memory"), plan.memory.peak_gib, ".1f"),
        _tile(w, say("Speed"), plan.throughput.tokens_per_second),
        _tile(w, say("Duration"), plan.time.hours),
        _tile(w, say("Cost of the run"), plan.cost),
    ]


def _corpus(w: Writer, corpus: Any) -> list[Tile]:
    assert isinstance(corpus, Corpus)  # noqa: S101
    documents, examples = corpus.documents, corpus.examples
    return [
        Tile(w.t(say("Documents read")), w.number(documents.read)),
        Tile(w.t(say("Rejected")), w.number(len(documents.rejected))),
        Tile(w.t(say("Training examples")), w.number(examples.train)),
        Tile(w.t(say("Training tokens")), w.number(corpus.tokens.train)),
        Tile(w.t(say("Truncated")), w.number(corpus.truncated)),
    ]


def _run(w: Writer, run: Any) -> list[Tile]:
    assert isinstance(run, Run)  # noqa: S101
    found = [
        Tile(
            w.t(say("Loss, first and last step")),
            f"{w.number(run.loss.first, '.2f')} → {w.number(run.loss.last, '.2f')}",
        )
    ]
    if run.loss.validation is not None:
        first = run.loss.validation_first
        before = f"{w.number(first, '.2f')} → " if first is not None else ""
        found.append(
            Tile(w.t(say("Validation loss")), before + w.number(run.loss.validation, ".2f"))
        )
    found += [
        _tile(w, say("Speed"), run.tokens_per_second),
        _tile(w, say("Peak memory"), run.peak_memory_gib, ".2f"),
        Tile(w.t(say("Duration")), duration(run.seconds, w.language)),
    ]
    return found


def _evaluation(w: Writer, evaluation: Any) -> list[Tile]:
    assert isinstance(evaluation, Evaluation)  # noqa: S101
    verdict = {
        "better": say("better"),
        "no_evidence": say("no demonstrable gain"),
        "worse": say("worse"),
    }[evaluation.verdict]
    return [
        Tile(w.t(say("The adapter is")), w.t(verdict)),
        Tile(w.t(say("Items")), w.number(evaluation.n)),
        Tile(w.t(say("Held-out documents")), w.number(evaluation.documents)),
    ]


def duration(seconds: float, language: str) -> str:
    """'2 h 05 min', '3 min 20 s' or '12 s'."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return say("{h:,} h {m} min", h=hours, m=f"{minutes:02d}").text(language)
    if minutes:
        return say("{m} min {s} s", m=str(minutes), s=f"{rest:02d}").text(language)
    return say("{s} s", s=str(rest)).text(language)


# ---------------------------------------------------------------- which model, which card


def fit_tables(project: flow.Project, gpu: str, language: str) -> str:
    """Which models fit the card, and which cards the project's model needs."""
    w = Writer(language)
    with speaking(language):
        if gpu and gpu != "none":
            _fits(w, say("Which models fit on {gpu}", gpu=gpu), fitting_models(gpu), "model")
        model = project.scenario.model.base
        try:
            found = fitting_gpus(model, root=project.folder.root)
        except HauslmError as error:
            w.callout("note", error.text(language))
        else:
            _fits(w, say("Which GPU {model} needs", model=model), found, "gpu")
    return html.fragment(w.blocks, words_of(language))


def _fits(w: Writer, title: Sentence, fits: tuple[Fit, ...], by: str) -> None:
    ways = {
        "lora": say("fits as LoRA"),
        "qlora": say("fits in 4 bit (QLoRA)"),
        "": say("does not fit"),
    }
    w.heading(title, 3)
    w.table(
        [say("Model") if by == "model" else say("GPU"), say("Training"), say("Peak memory"),
         say("of"), say("Tokens per second")],
        [
            (
                getattr(f, by),
                w.t(ways[f.method]),
                f"{w.number(f.peak_gib, '.1f')} GiB",
                f"{w.number(f.memory_gib, '.0f')} GiB",
                w.number(f.tokens_per_second, ",") if f.method else "–",
            )
            for f in fits
        ],
        caption=say(
            "By formula, for sequences of 4,096 tokens (or the model's longest); where a model does not fit, the peak of the smallest way."
        ),
        align="llrrr",
    )  # fmt: skip


# ---------------------------------------------------------------- side by side


@dataclass(frozen=True)
class Item:
    """One held-out item with what the systems answered."""

    text: str
    expected: str
    answers: tuple[tuple[str, str, bool | None], ...]  # (system, answer, right or wrong)


def items(evaluation: Evaluation) -> list[Item]:
    """The items where base and adapter differ, as the evaluation kept them."""
    found = []
    for row in evaluation.examples:
        expected = str(row.get("label", ""))
        answers = tuple(
            (name, str(row[name]), (str(row[name]) == expected) if expected else None)
            for name in ("base", "adapter")
            if name in row
        )
        text = str(row.get("text", ""))
        if len(text) > LETTERS_PER_ITEM:
            text = text[:LETTERS_PER_ITEM].rstrip() + " …"
        found.append(Item(text, expected, answers))
    return found


def states(project: flow.Project) -> Mapping[str, str]:
    return {s.name: flow.state(project, s) for s in flow.STAGES.values()}
