"""What does a stranger read first? The model card, written from the records, English and German."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Corpus, Evaluation, Run
from hauslm.share.licence import Duties


def card(name: str, run: Run, corpus: Corpus, evaluation: Evaluation | None, duties: Duties) -> str:
    """A Hugging Face model card (YAML front matter, then both languages). No training text."""
    languages = sorted(set(corpus.documents.by_language) & {"en", "de"}) or ["en"]
    head = [
        "---",
        f"base_model: {run.base.get('id', '')}",
        "library_name: peft",
        "tags: [lora, hauslm]",
        f"language: [{', '.join(languages)}]",
        f"license: {duties.licence.lower() or 'other'}",
        "---",
        "",
        f"# {name}",
    ]
    return (
        "\n".join(head)
        + "\n"
        + "\n".join(_part(code, run, corpus, evaluation, duties) for code in ("en", "de"))
    )


def _part(
    code: str, run: Run, corpus: Corpus, evaluation: Evaluation | None, duties: Duties
) -> str:
    config = run.adapter.config
    lines = [
        "",
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
    else:
        lines += [say("This adapter was not evaluated.").text(code), ""]
    lines.append(say("Duties of the base model's licence:").text(code))
    lines += [f"- {d}" for d in duties.record(code)["duties"]]
    lines += ["", say("Check the bundle before loading it: hauslm verify FILE").text(code)]
    return "\n".join(lines)
