"""What does a stranger read first? The model card, written from the records, English and German."""

from __future__ import annotations

import json

from hauslm.base.words import say
from hauslm.records import Corpus, Evaluation, Run, Said
from hauslm.share.licence import Duties

MARK = "<!-- {code} -->"  # where a language begins; `verify` looks for both
LANGUAGES = ("en", "de")


def card(
    name: str, run: Run, corpus: Corpus, evaluation: Evaluation | None, duties: Duties,
    accepted: Said | None = None,
) -> str:  # fmt: skip
    """A Hugging Face model card (YAML front matter, then both languages). No training text.

    `accepted` is the memorisation that was measured and is shared on the user's word.
    """
    languages = sorted(set(corpus.documents.by_language) & {"en", "de"}) or ["en"]
    head = [
        "---",
        f"base_model: {json.dumps(run.base.get('id', ''))}",
        "library_name: peft",
        "tags: [lora, hauslm]",
        f"language: [{', '.join(languages)}]",
        *_licence_lines(duties),
        "---",
        "",
        f"# {json.dumps(name, ensure_ascii=False)[1:-1]}",
        *(["", f"**{duties.shown}**"] if duties.shown else []),
    ]
    return (
        "\n".join(head)
        + "\n"
        + "\n".join(_part(code, run, corpus, evaluation, duties, accepted) for code in LANGUAGES)
        + "\n"
    )


# The Hub's own words for licences (hf.co/docs/hub/repositories-licenses); others are "other" by name.
_HUB = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "Llama 3 Community License": "llama3",
    "Llama 3.1 Community License": "llama3.1",
    "Llama 3.2 Community License": "llama3.2",
    "Llama 3.3 Community License": "llama3.3",
    "Gemma Terms of Use": "gemma",
}


def _licence_lines(duties: Duties) -> list[str]:
    known = _HUB.get(duties.licence)
    if known:
        return [f"license: {known}"]
    return ["license: other", f"license_name: {json.dumps(duties.licence or 'unknown')}"]


def _memorisation(code: str, evaluation: Evaluation) -> list[str]:
    """What was measured of training text in the weights; said also where nothing was measured."""
    found = evaluation.memorisation
    if "exact_adapter" not in found:
        return [say("Memorisation of training text was not measured.").text(code), ""]
    return [
        say(
            "Memorisation: of {spans:,} training passages the adapter continued {adapter:.2%} word for word, the base model {base:.2%}; allowed above the base: {limit:.2%}.",
            spans=found.get("spans", 0), adapter=found["exact_adapter"],
            base=found.get("exact_base", 0.0), limit=found.get("limit", 0.0),
        ).text(code),
        say(
            "Secret-looking strings of the training text that the adapter knows by heart: {count:,} of {all:,}.",
            count=found.get("canaries_memorised", 0), all=len(found.get("canaries", ())),
        ).text(code),
        "",
    ]  # fmt: skip


def _accepted(code: str, accepted: Said | None) -> list[str]:
    if accepted is None:
        return []
    return [
        say(
            "Made although training text was found in the adapter (--accept-memorisation): {measured}",
            measured=accepted.sentence(),
        ).text(code),
        "",
    ]


def _part(
    code: str, run: Run, corpus: Corpus, evaluation: Evaluation | None, duties: Duties,
    accepted: Said | None,
) -> str:  # fmt: skip
    config = run.adapter.config
    lines = [
        "",
        MARK.format(code=code),
        say("## In English" if code == "en" else "## In German").text(code),
        "",
        say(
            "A LoRA adapter (r {r}, alpha {alpha}, {parameters:,} parameters) for the base model {base}, trained with hauslm on {documents:,} documents ({tokens:,} training tokens).",
            r=config.get("r", "?"), alpha=config.get("lora_alpha", "?"), parameters=run.adapter.parameters,
            base=run.base.get("id", ""), documents=corpus.documents_split.train, tokens=corpus.tokens.train,
        ).text(code),
        "",
        say(
            "Rights of the training documents: {rights}. Their fingerprint is {fingerprint}; no training text is in this bundle.",
            rights=", ".join(f"{k} {v}" for k, v in sorted(corpus.rights.items())) or "–",
            fingerprint=corpus.fingerprint[:16],
        ).text(code),
        "",
    ]  # fmt: skip
    if evaluation is not None:
        lines += [
            say("Evaluation: {verdict}", verdict=evaluation.verdict_text.say(code)).text(code),
            "",
        ]
        metrics = list(dict.fromkeys(m for s in evaluation.systems for m in s.metrics))
        lines.append("| " + " | ".join([say("System").text(code), *metrics]) + " |")
        lines.append("|" + "---|" * (len(metrics) + 1))
        for system in evaluation.systems:
            values = [system.metrics.get(m) for m in metrics]
            lines.append(
                f"| {system.name} | "
                + " | ".join("–" if v is None else f"{v:.3f}" for v in values)
                + " |"
            )
        lines.append("")
        lines += _memorisation(code, evaluation)
        lines += _accepted(code, accepted)
    else:
        lines += [say("This adapter was not evaluated.").text(code), ""]
    lines.append(say("Duties of the base model's licence:").text(code))
    lines += [f"- {d}" for d in duties.record(code)["duties"]]
    lines += ["", say("Check the bundle before loading it: hauslm verify FILE").text(code)]
    return "\n".join(lines)
