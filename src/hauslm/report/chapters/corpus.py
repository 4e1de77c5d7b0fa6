"""The documents: what was read, what was not and why, and what the model will see."""

from __future__ import annotations

from collections.abc import Mapping

from hauslm.base.words import Sentence, say
from hauslm.records import Corpus
from hauslm.report import plots
from hauslm.report.blocks import Writer

SHOWN_REJECTED = 12
UNKNOWN = {"unknown": say("unknown")}
RIGHTS = {
    **UNKNOWN,
    "open": say("open"),
    "own": say("own"),
    "sa": say("share alike"),
    "nc": say("non-commercial"),
    "nd": say("no derivatives"),
    "nc+nd": say("non-commercial, no derivatives"),
    "nc+sa": say("non-commercial, share alike"),
    "restricted": say("restricted"),
    "conflicting": say("contradicting itself"),
}  # the names of `data.rights.CLASSES`


def write(w: Writer, corpus: Corpus) -> None:
    w.heading(say("The documents"))
    documents, parts = corpus.documents, corpus.documents_split
    w.text(
        say(
            "{read:,} documents were read and {rejected:,} rejected; nothing was truncated.",
            read=documents.read, rejected=len(documents.rejected),
        )
    )  # fmt: skip
    w.table(
        [say("Part"), say("Documents"), say("Examples"), say("Tokens")],
        [
            (
                w.t(title),
                w.number(getattr(parts, p)),
                w.number(getattr(corpus.examples, p)),
                w.number(getattr(corpus.tokens, p)),
            )
            for p, title in (
                ("train", say("Training")),
                ("validation", say("Validation")),
                ("test", say("Test")),
            )
        ],
        align="lrrr",
        caption=say("Split by work, never by passage"),
    )
    if not w.brief and corpus.token_histogram:
        rows = list(corpus.token_histogram.items())
        table = w.make_table(
            [say("Tokens"), say("Documents")], [(k, w.number(v)) for k, v in rows], align="lr"
        )
        svg = plots.histogram(
            rows,
            w.t(say("Length of the documents")),
            w.t(say("Tokens")),
            w.t(say("Documents")),
            language=w.language,
        )
        w.figure(
            svg,
            say("Length of the documents"),
            say("Counted with the base model's own tokenizer."),
            table,
        )
    facts = [
        w.t(say("Languages: {list}", list=_counts(w, documents.by_language, UNKNOWN))),
        w.t(say("Formats: {list}", list=_counts(w, documents.by_format))),
        w.t(say("Rights: {list}", list=_counts(w, corpus.rights, RIGHTS))),
        w.t(
            say(
                "Pairs of documents with the same or nearly the same text: {count:,}",
                count=len(corpus.duplicates),
            )
        ),
        w.t(
            say(
                "13-grams of the test that also stand in training: {share:.2%}",
                share=corpus.overlap_13gram,
            )
        ),
        w.t(say("Fingerprint: {hash}", hash=corpus.fingerprint[:16])),
    ]
    w.bullets(facts)
    if corpus.checks:
        w.heading(say("Looked at before spending"), 3)
        w.bullets(list(corpus.checks))
    if documents.rejected:
        w.heading(say("Rejected files"), 3)
        shown = documents.rejected[:SHOWN_REJECTED]
        w.table([say("File"), say("Why")], [(r.file, w.t(r.reason)) for r in shown])
        if len(shown) < len(documents.rejected):
            w.text(
                say(
                    "{count:,} more are listed in records/corpus.json.",
                    count=len(documents.rejected) - len(shown),
                )
            )
    if corpus.samples and not w.brief:
        w.heading(say("What the model sees"), 3)
        w.text(say("Marked text counts in the loss; the rest is context."))
        for sample in corpus.samples:
            w.masked(sample.id, sample.pieces)
    for notice in corpus.notices:
        w.callout("note", notice)


def _counts(w: Writer, counts: dict[str, int], names: Mapping[str, Sentence] | None = None) -> str:
    """The counts, most first, each with its name in the reader's language where it has one."""
    named = {k: w.t(names[k]) if names and k in names else k for k in counts}
    parts = [f"{named[k]} {w.number(v)}" for k, v in sorted(counts.items(), key=lambda i: -i[1])]
    return ", ".join(parts) or "–"
