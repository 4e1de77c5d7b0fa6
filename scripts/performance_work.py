"""The sections of the page of figures about preparing and analysing. Used by performance.py."""

from __future__ import annotations

from typing import Any

from performance_words import _, machine

from hauslm.data.quick import CHECKED_ONE_IN
from hauslm.data.workers import PARALLEL_ABOVE

ANALYSE_TARGET = 4.0  # times the loop of `generate`
PREPARE_TARGET = 0.8  # of the tokenizer library's own batch speed
NAMES = {
    "ours": "hauslm",
    "loop": "`model.generate`, one prompt after the other",
    "batches": "transformers in padded batches",
    "loop_bfloat16": "the loop in bfloat16",
    "llama_float32": "llama.cpp, float32",
    "llama_q8_0": "llama.cpp, q8_0, flash attention",
}
WORK = {
    "rows": "Answers bound to a JSON Schema, with one of the section's sentences as quote (as `hauslm analyse` asks)",
    "text": "Free summaries of at most 48 tokens",
}


def _outcome(found: float, wanted: float) -> str:
    return _("reached") if found >= wanted else _("missed by {share:.0%}", share=1 - found / wanted)


def analyse(result: dict[str, Any]) -> str:
    """Both kinds of work, who took how long, and whether the target is reached."""
    lines = [_("\n## How fast does analysing run?\n")]
    for kind in ("rows", "text"):
        found = result[kind]
        prompt, answer = found["prompt_tokens"], found["answer_tokens"]
        lines += [
            _(
                "{what}: {rows} sections of the sample documents, prompts of {prompt_low} to {prompt_high:,} tokens (mean {prompt}), answers of {answer_low} to {answer_high} (mean {answer}); embedded model, greedy, batch {batch}, {rounds} rounds in turn.",
                what=_(WORK[kind]),
                rows=str(found["ours"]["rows"]),
                prompt_low=prompt[0],
                prompt_high=prompt[2],
                prompt=prompt[1],
                answer_low=answer[0],
                answer_high=answer[2],
                answer=answer[1],
                batch=str(result["setting"]["batch_size"]),
                rounds=str(result["setting"]["rounds"]),
            ),
            "",
            _(
                "| | rows/h | it / ours, by the clock | range | it / ours, processor seconds | range | same answers |"
            ),
            "|---|---|---|---|---|---|---|",
        ]
        for name in (n for n in NAMES if n in found):
            r = found[name]
            wall, cpu = r["ours_faster_wall"], r["ours_faster_cpu"]
            lines.append(
                _(
                    "| {name} | {rate:,} | {wall:.2f} | {wall_low:.2f} - {wall_high:.2f} | {cpu:.2f} | {cpu_low:.2f} - {cpu_high:.2f} | {same} of {rows} |",
                    name=_(NAMES[name]),
                    rate=r["rows_per_hour"],
                    wall=wall["median"],
                    wall_low=wall["low"],
                    wall_high=wall["high"],
                    cpu=cpu["median"],
                    cpu_low=cpu["low"],
                    cpu_high=cpu["high"],
                    same=r["same_answers"],
                    rows=r["rows"],
                )
            )
        loop = found["loop"]
        lines += [
            "",
            _(
                "- Target {wanted:g} times the loop by the clock: {outcome} ({wall:.2f}; {cpu:.2f} per processor second).",
                wanted=ANALYSE_TARGET,
                outcome=_outcome(loop["ours_faster_wall"]["median"], ANALYSE_TARGET),
                wall=loop["ours_faster_wall"]["median"],
                cpu=loop["ours_faster_cpu"]["median"],
            ),
        ]
        if "llama_version" not in found:
            lines.append(_("- llama.cpp was not measured on this work."))
        lines.append("")
    lines.append(_(WHY))
    load = _("Load after: {load:.1f}.", load=result["machine"]["load_after"])
    return "\n".join([*lines, f"{machine(result['machine'])} {load}", ""])


WHY = """Why not more on free text: both must read the same prompts, and of ours four fifths of the processor time are
matrix products and attention (profile: 51% products, 25% attention, 5% softmax). What is not computed: a shared
beginning is read once, forced tokens of a schema cost no step, the last layer works for the asked position only,
attention never meets a slot that nobody may see, and only the last position goes through the vocabulary. The
answers are short here (the base ends early), so most of the loop's time is the prompts' as well. Tried and
left out: bfloat16 (the loop is slower in it here, and answers change), packing without padding (2 to 4% of the
tokens were padding). By the clock a small model has one batch for each core, so the ratio by the clock needs
cores that are free, and falls to that of the processor seconds on a busy machine.
"""


def corpus(result: dict[str, Any]) -> str:
    """A real corpus in one go and killed on the way."""
    whole, kills = result["whole"], result["killed"]
    lines = [
        _("\n## Does a whole corpus go through, killed on the way?\n"),
        _(
            "{files} real articles (JATS and PDF) and {abstracts:,} real abstracts, classified section by section on the embedded model (`benchmarks/analyse_corpus.py`): {rows:,} rows of {sections:,} sections.",
            files=str(result["files"]),
            abstracts=result["abstracts"],
            rows=whole["rows"],
            sections=whole["sections"],
        ),
        "",
        _(
            "- Rows that are not valid: {invalid}; cut off: {cut}; twice: {twice}; quotes that do not stand in their article: {unfound} of {quotes:,}.",
            invalid=whole["not_valid"],
            cut=whole["cut_off"],
            twice=whole["twice"],
            unfound=whole["quotes_not_found"],
            quotes=whole["quotes_found"] + whole["quotes_not_found"],
        ),
        _(
            "- Killed {count} times with SIGKILL and started again: all rows but their seconds {outcome}.",
            count=len(kills),
            outcome=_("the same") if result["rows_identical"] else _("NOT the same"),
        ),
        _(
            "- {rate:,.0f} articles an hour, abstracts among them ({seconds:,.0f} s), at a load of {load:.0f} at the end: other work ran beside it.",
            rate=result["articles_per_hour"],
            seconds=whole["seconds"],
            load=result["machine"]["load"],
        ),
        "",
        _("Commit {commit}, {date}.", commit=result["commit"], date=result["date"]),
        "",
    ]
    return "\n".join(lines)


def prepare(result: dict[str, Any]) -> str:
    """Against the tokenizer library's own batch speed, on generated and on real articles."""
    whole, resumed = result["whole"], result["resumed"]
    c, rounds = result["corpus"], result["rounds"]
    lines = [
        _("\n## How fast does preparing run?\n"),
        _(
            "{documents:,} generated articles, {size:,.0f} MB, {tokens:,} tokens. The measure is the tokenizer library's `encode_batch_fast` over the same texts, all cores, nothing kept: {rate:.2f} MB/s (`benchmarks/prepare.py`).",
            documents=c["documents"],
            size=c["bytes"] / 1e6,
            tokens=c["tokens"],
            rate=result["library_mb_per_s"],
        ),
        "",
        _(
            "| | of the library's speed, by the clock | range of {rounds} rounds | of its processor seconds | MB/s |",
            rounds=str(len(rounds)),
        ),
        "|---|---|---|---|---|",
        _(
            "| tokenizing to sealed, mapped examples | {ratio:.2f} | {low:.2f} - {high:.2f} | | {rate:.2f} |",
            ratio=result["ratio_median"],
            low=min(r["ratio"] for r in rounds),
            high=max(r["ratio"] for r in rounds),
            rate=result["prepare_mb_per_s"],
        ),
        _(
            "| all of `hauslm prepare` | {ratio:.2f} | {low:.2f} - {high:.2f} | {cpu:.2f} | {rate:.2f} |",
            ratio=whole["ratio_median"],
            low=min(r["whole"]["ratio"] for r in rounds),
            high=max(r["whole"]["ratio"] for r in rounds),
            cpu=whole["processor_ratio_median"],
            rate=whole["mb_per_s"],
        ),
        *([_real_articles(result["articles"])] if "articles" in result else []),
        "",
        _(
            "- Target {wanted:g} of the library's speed for the whole: {outcome}; for the step: {step}. The whole also reads, finds near-duplicates, 13-grams, languages, licences and hints of personal data, splits, and writes the corpus.",
            wanted=PREPARE_TARGET,
            outcome=_outcome(whole["ratio_median"], PREPARE_TARGET),
            step=_outcome(result["ratio_median"], PREPARE_TARGET),
        ),
        _(
            "- Texts are tokenized by kitoken {version}, which makes the same tokens from the same tokenizer.json; one text in {one_in} is tokenized by the tokenizer library as well and compared. Corpora below {small:.0f} MB, and vocabularies whose tokens do not tell how many bytes they are, are the library's.",
            version=result["kitoken"],
            one_in=CHECKED_ONE_IN,
            small=PARALLEL_ABOVE / 1e6,
        ),
        _(
            "- Memory of all its processes at its peak: {peak:,} MiB. Killed after {killed:.0f} s and started again it took {again:.0f} s more.",
            peak=whole["peak_mib"],
            killed=resumed["killed_after_s"],
            again=resumed["seconds"],
        ),
        "",
        _(
            "{cores} cores, load at the end {load:.1f}; {date}.",
            cores=str(result["machine"]["cores"]),
            load=result["machine"]["load_at_end"][0],
            date=result["date"],
        ),
        "",
    ]
    return "\n".join(lines)


def _real_articles(result: dict[str, Any]) -> str:
    each, whole = [r["whole"]["ratio"] for r in result["rounds"]], result["whole"]
    return _(
        "| all of `hauslm prepare` on {documents:,} real articles, {size:,.0f} MB | {ratio:.2f} | {low:.2f} - {high:.2f} | {cpu:.2f} | {rate:.2f} |",
        documents=result["corpus"]["documents"],
        size=result["corpus"]["bytes"] / 1e6,
        ratio=whole["ratio_median"],
        low=min(each),
        high=max(each),
        cpu=whole["processor_ratio_median"],
        rate=whole["mb_per_s"],
    )


def large(result: dict[str, Any]) -> str:
    """A corpus larger than memory should have to hold."""
    c, found = result["corpus"], result["checked"]
    killed = sum(a["killed"] for a in result["attempts"])
    lines = [
        _("\n## Does a corpus go through that memory does not hold?\n"),
        _(
            "{documents:,} generated articles, {size:.2f} GB (`benchmarks/prepare_large.py`), killed {count} time(s) with SIGKILL and started again: {seconds:,.0f} s in all, {rate:.2f} MB/s, load at the end {load:.1f}.",
            documents=c["documents"],
            size=c["bytes"] / 1e9,
            count=killed,
            seconds=result["seconds"],
            rate=result["mb_per_s"],
            load=result["machine"]["load_after"],
        ),
        "",
        _(
            "- Memory of all processes together at their peak: {peak:,} MiB. Disk at the most: {disk:.1f} GB, of it prepared in the end: {kept:.1f} GB.",
            peak=result["peak_mib"],
            disk=result["disk_mib"] / 953.7,
            kept=result["prepared_mib"] / 953.7,
        ),
        _(
            "- Every document is there once, {rejected} rejected, {truncated} truncated; {tokens:,} tokens in {examples:,} examples; of {compared} documents drawn by lot the labels are exactly the library's tokens.",
            rejected=found["rejected"],
            truncated=found["truncated"],
            tokens=found["tokens"],
            examples=sum(found["examples"].values()),
            compared=found["labels_compared_with_the_library_documents"],
        ),
        "",
        _(
            "{cores} cores; {date}.",
            cores=str(result["machine"]["cores"]),
            date=result["date"],
        ),
        "",
    ]
    return "\n".join(lines)
