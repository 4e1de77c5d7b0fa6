"""The pages about speed, English and German, made from what the benchmarks measured.

    python scripts/performance.py page     make docs/performance.md and docs/performance.de.md from benchmarks/results
    python scripts/performance.py check    are they what the results give?

`make bench` measures again and makes the pages. A target that is missed is stated with the distance.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import performance_work as work
from performance_words import ROOT, _, machine, read, speak

PAGES = {"en": ROOT / "docs" / "performance.md", "de": ROOT / "docs" / "performance.de.md"}
BASES = ("embedded", "mistral-30m")
# What the ratio ours / it is to reach, on the embedded base and the random one alike.
TARGETS = {"dynamic": 2.5, "padded": 5.0, "trl": 1.3}
NAMES = {
    "padded": "Trainer + PEFT, padded to full length",
    "dynamic": "Trainer + PEFT, padded to the longest of the batch",
    "trl": "TRL SFTTrainer, packed",
    "trl-unpacked": "TRL SFTTrainer, not packed",
    "ours": "hauslm",
}
LOSS_TOLERANCE = 0.005  # relative: "equal" validation loss
TIME_TOLERANCE = 0.25  # of the plan's time
ENOUGH_ROUNDS = 3  # fewer have no spread
ENOUGH_LEARNED = 0.02  # of the loss before training; less, and equal losses prove nothing
LINEAR = 1.05  # exponent up to which growth is called linear


HEAD = """# How fast does it run?

<!-- Written by scripts/performance.py from benchmarks/results; do not edit. -->

*Deutsch: [performance.de.md](performance.de.md)*

Measured, with machine and versions; what was not reached says by how much. Tokens are real ones: padding
is not counted. "Ours / it" is the median over rounds in which all took their turn, with the lowest and the
highest; per processor second is the steadier figure on a machine that does other things as well, as these did.
In training all contenders learn the same LoRA (rank 16, all linear layers, dropout 0) on the same base (stored in
bfloat16, so nobody computes in float32 because of its file), the same documents, once, with as many documents
per optimizer step, the same learning rate and schedule. `make bench` measures again.
"""
NO_GPU = """
## On a GPU

Not measured: there was no GPU. `benchmarks/gpu/train.py` is written and goes through in a dry run on the
processor: Mistral-7B and Llama-3.1-8B with random weights, 2,048 and 4,096 tokens, bfloat16, nf4 and fp8, with
and without a cap of 24 GiB, ours beside Trainer + PEFT, TRL and Unsloth. The targets (0.70 of the limit in
bfloat16 on an H200, 1.3 times that with an 8-bit base, 1.2 times Unsloth under the cap) are neither reached
nor missed yet.
"""


def page() -> str:
    """The whole page."""
    parts = [_head()]
    for base in BASES:
        result = read(f"train_cpu_{base}.json")
        name = f"train_cpu_{base}.json"
        parts.append(_comparison(result) if result is not None else _missing(name))
    learning = read("train_cpu_learning.json")
    parts.append(
        _learning(learning) if learning is not None else _missing("train_cpu_learning.json")
    )
    for name, make in (
        ("train_profile.json", _profile),
        ("scaling.json", _scaling),
        ("train_time.json", _time),
    ):
        result = read(name)
        parts.append(make(result) if result is not None else _missing(name))
    for name, make in (
        ("analyse_speed.json", work.analyse),
        ("analyse_corpus.json", work.corpus),
        ("prepare.json", work.prepare),
        ("prepare_large.json", work.large),
    ):
        result = read(name)
        parts.append(make(result) if result is not None else _missing(name))
    gpu = read("gpu_train.json")
    parts.append(_gpu(gpu) if gpu is not None else _(NO_GPU))
    return "\n".join(parts)


def _head() -> str:
    return _(HEAD)


def _missing(name: str) -> str:
    what = {
        "train_cpu_learning.json": "Do all learn the same from the same tokens?",
        "train_cpu_embedded.json": "On a CPU: the embedded model",
        "train_cpu_mistral-30m.json": "On a CPU: a random Mistral of 31 million parameters",
        "train_profile.json": "Where a step of ours goes",
        "scaling.json": "Does it stay linear?",
        "train_time.json": "Does the plan know how long it takes?",
        "analyse_speed.json": "How fast does analysing run?",
        "analyse_corpus.json": "Does a whole corpus go through, killed on the way?",
        "prepare.json": "How fast does preparing run?",
        "prepare_large.json": "Does a corpus go through that memory does not hold?",
    }[name]
    return _(
        "\n## {what}\n\nNot measured yet: `benchmarks/results/{name}` is not there, and no target counts as reached.\n",
        what=_(what),
        name=name,
    )


def _comparison(result: dict[str, Any]) -> str:
    d, quartiles = result["documents"], result["documents"]["length_quartiles"]
    title = {
        "embedded": "the embedded model (6 million parameters)",
        "mistral-30m": "a random Mistral of 31 million parameters",
    }[result["base"]]
    lines = [
        _("\n## On a CPU: {title}\n", title=_(title)),
        _(
            "{count} documents, {tokens:,} tokens, {labels:,} of them with a label; lengths (quartiles) {quartiles}, full length {full}, {per_step} documents per step; {rounds} rounds. {name}.",
            count=str(d["count"]),
            tokens=d["tokens"],
            labels=d["labels"],
            quartiles=" / ".join(f"{q:.0f}" for q in quartiles),
            full=str(d["seq_len"]),
            per_step=str(d["per_step"]),
            rounds=str(result["rounds"]),
            name=_(d["name"]),
        ),
        "",
        _(
            "| | tokens/s | ours / it | range | tokens per processor second | ours / it | range | peak GiB | of it for training | validation loss |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, c in result["contenders"].items():
        low, high = c["tokens_per_second_ours_over_it_range"]
        cpu_low, cpu_high = c["tokens_per_cpu_second_ours_over_it_range"]
        lines.append(
            _(
                "| {name} | {rate:,.0f} | {ratio:.2f} | {low:.2f} - {high:.2f} | {cpu_rate:,.0f} | {cpu_ratio:.2f} | {cpu_low:.2f} - {cpu_high:.2f} | {peak:.2f} | {working:.2f} | {loss:.4f} |",
                name=_(NAMES[name]),
                rate=c["tokens_per_second"],
                ratio=c["tokens_per_second_ours_over_it"],
                low=low,
                high=high,
                cpu_rate=c["tokens_per_cpu_second"],
                cpu_ratio=c["tokens_per_cpu_second_ours_over_it"],
                cpu_low=cpu_low,
                cpu_high=cpu_high,
                peak=c["peak_rss_gib"],
                working=c["working_gib"],
                loss=c["validation_loss"],
            )
        )
    lines += [
        "",
        _(
            "Validation loss before training: {loss:.4f}.",
            loss=result["untrained_validation_loss"],
        ),
        "",
    ]
    lines += _limits(result)
    lines += _verdicts(result["contenders"])
    lines += [
        _("- {name} was not measured: {why}.", name=name, why=_(why))
        for name, why in result["absent"].items()
    ]
    lines += ["", machine(result["machine"]), ""]
    return "\n".join(lines)


def _learning(result: dict[str, Any]) -> str:
    """Do all learn alike from the same tokens? A run long and quick enough to learn something."""
    before = result["untrained_validation_loss"]
    found = {n: c["validation_loss"] for n, c in result["contenders"].items()}
    learned = 1 - found["ours"] / before
    best = min(found.values())
    off = found["ours"] / best - 1
    lines = [
        _("\n## Do all learn the same from the same tokens?\n"),
        _(
            "{count:,} documents, {tokens:,} tokens, peak learning rate {rate:g}, once through; validation loss in nats per label, before training {before:.4f}.",
            count=result["documents"]["count"],
            tokens=result["documents"]["tokens"],
            rate=result["learning_rate"],
            before=before,
        ),
        "",
        _("| | validation loss after it | fell by |"),
        "|---|---|---|",
    ]
    lines += [
        _(
            "| {name} | {loss:.4f} | {fell:.1%} |",
            name=_(NAMES[name]),
            loss=loss,
            fell=1 - loss / before,
        )
        for name, loss in found.items()
    ]
    lines += ["", ""]
    if learned < ENOUGH_LEARNED:
        lines[-1] = _(
            "Too little was learned for equal losses to show anything ({learned:.2%}).",
            learned=learned,
        )
    elif off <= LOSS_TOLERANCE:
        lines[-1] = _(
            "Ours is equal or better: {off:+.2%} against the lowest, {allowed:.1%} is called equal.",
            off=off,
            allowed=LOSS_TOLERANCE,
        )
    else:
        lines[-1] = _("Ours is higher than the lowest by {off:.2%}: missed.", off=off)
    return "\n".join([*lines, "", machine(result["machine"]), ""])


def _limits(result: dict[str, Any]) -> list[str]:
    """What this comparison is too small to show."""
    lines = []
    if result["rounds"] < ENOUGH_ROUNDS:
        lines.append(
            _(
                "- Only {rounds} round(s) were measured: the ratios have no spread to speak of, and `reached` below is provisional.",
                rounds=str(result["rounds"]),
            )
        )
    before = result["untrained_validation_loss"]
    learned = 1 - result["contenders"]["ours"]["validation_loss"] / before
    if learned < ENOUGH_LEARNED:
        lines.append(
            _(
                "- Training this little lowered the validation loss by {learned:.2%}: that the losses are equal shows nothing about learning; a run of its own does, below.",
                learned=learned,
            )
        )
    return lines


def _verdicts(contenders: dict[str, Any]) -> list[str]:
    """What was to be reached, and whether it was."""
    lines = []
    for name, wanted in TARGETS.items():
        if name not in contenders:
            lines.append(
                _(
                    "- {name}: target {wanted:g} times, not measured.",
                    name=_(NAMES[name]),
                    wanted=wanted,
                )
            )
            continue
        c = contenders[name]
        wall, cpu = c["tokens_per_second_ours_over_it"], c["tokens_per_cpu_second_ours_over_it"]
        outcome = (
            _("reached") if wall >= wanted else _("missed by {share:.0%}", share=1 - wall / wanted)
        )
        lines.append(
            _(
                "- {name}: target {wanted:g} times, measured {wall:.2f} by the clock: {outcome} ({cpu:.2f} per processor second).",
                name=_(NAMES[name]),
                wanted=wanted,
                wall=wall,
                outcome=outcome,
                cpu=cpu,
            )
        )
    ours = contenders["ours"]
    others = {n: c for n, c in contenders.items() if n != "ours"}
    for key, word, allowed in (
        ("peak_rss_gib", "memory", 1.0),
        ("validation_loss", "validation loss", 1 + LOSS_TOLERANCE),
    ):
        worse = [n for n, c in others.items() if ours[key] > c[key] * allowed]
        outcome = (
            _("no higher than any other's")
            if not worse
            else _("higher than that of ")
            + ", ".join(
                _("{name} by {share:.1%}", name=_(NAMES[n]), share=ours[key] / others[n][key] - 1)
                for n in worse
            )
        )
        within = _(" (equal within {share:.1%})", share=LOSS_TOLERANCE) if allowed > 1 else ""
        lines.append(
            _("- Our {word} is {outcome}{within}.", word=_(word), outcome=outcome, within=within)
        )
    return lines


def _profile(result: dict[str, Any]) -> str:
    lines = [
        _("\n## Where a step of ours goes\n"),
        _(
            "torch.profiler over a whole run on {base}, share of the operators' own time.",
            base=result["base"],
        ),
        "",
        _("| operator | share |"),
        "|---|---|",
        *(
            _("| `{name}` | {share:.1%} |", name=name, share=share)
            for name, share in result["operators"].items()
        ),
        "",
        machine(result["machine"]),
        "",
    ]
    return "\n".join(lines)


def _scaling(result: dict[str, Any]) -> str:
    slope, memory = result["size_exponent_cpu"], result["memory_growth"]
    lines = [
        _("\n## Does it stay linear?\n"),
        _(
            "A model of two narrow layers, so that the loop's own cost shows (`benchmarks/scaling.py`)."
        ),
        "",
        _(
            "| tokens | longest document | steps | processor seconds | seconds | memory above start, GiB |"
        ),
        "|---|---|---|---|---|---|",
    ]
    lines += [
        _(
            "| {tokens:,} | {longest} | {steps} | {cpu:.1f} | {seconds:.1f} | {working:.2f} |",
            tokens=r["tokens"],
            longest=r["longest"],
            steps=r["steps"],
            cpu=r["cpu_seconds"],
            seconds=r["seconds"],
            working=r["working_gib"],
        )
        for r in (*result["sizes"], *result["lengths"])
    ]
    lines += [
        "",
        _(
            "Processor time grows with the corpus to the power {slope:.2f} ({outcome}; by the clock {wall:.2f}); 16 times the corpus takes {memory:.2f} times the memory. Time per token grows with the length to the power {length:.2f} from 256 to 4,096 tokens: attention.",
            slope=slope,
            outcome=_("linear") if slope <= LINEAR else _("more than linear"),
            wall=result["size_exponent_wall"],
            memory=memory,
            length=result["length_exponent_cpu"],
        ),
        "",
        machine(result["machine"]),
        "",
    ]
    return "\n".join(lines)


def _time(result: dict[str, Any]) -> str:
    values = result["values"]
    lines = [
        _("\n## Does the plan know how long it takes?\n"),
        _(result["what"], **values),
        "",
        _("| | tokens/s | hours for the run |"),
        "|---|---|---|",
    ]
    lines += [
        _(
            "| {what} | {rate:,.0f} | {hours:.2f} |",
            what=_(row["what"], **values),
            rate=row["tokens_per_second"],
            hours=row["hours"],
        )
        for row in result["rows"]
    ]
    off = result["error"]
    outcome = _("within") if abs(off) <= TIME_TOLERANCE else _("outside")
    lines += [
        "",
        _(
            "The plan's time is {off:+.0%} of the measured one: {outcome} {allowed:.0%}. {note}",
            off=off,
            outcome=outcome,
            allowed=TIME_TOLERANCE,
            note=_(result["note"], **values),
        ),
        "",
        _by_the_clock(result),
        "",
        machine(result["machine"]),
        "",
    ]
    return "\n".join(lines)


def _by_the_clock(result: dict[str, Any]) -> str:
    """What the clock says of the plan's time; a whole run shows it, a few steps do not."""
    off = result["error_by_the_clock"]
    if not result["whole"]:
        return _(
            "By the clock it is {off:+.0%}. That a whole run completes within {allowed:.0%} of the plan's time on idle cores is therefore not shown yet.",
            off=off,
            allowed=TIME_TOLERANCE,
        )
    return _(
        "By the clock of the whole run it is {off:+.0%}: {outcome} {allowed:.0%}.",
        off=off,
        outcome=_("within") if abs(off) <= TIME_TOLERANCE else _("outside"),
        allowed=TIME_TOLERANCE,
    )


def _gpu(result: dict[str, Any]) -> str:
    lines = [
        _("\n## On a GPU\n"),
        _(
            "{gpu}, products measured at {rate:,.0f} TFLOP/s in bfloat16. The limit counts 4N + attention operations per token; the fraction is what is commonly called MFU.",
            gpu=result["machine"]["gpu"],
            rate=result["product_tflops"],
        ),
        "",
        _("| model | length | cap GiB | base | contender | tokens/s | peak GiB | of the limit |"),
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        start = f"| {r['model']} | {r['length']} | {r['cap_gib']:g} | {r['format']} | {r['contender']} |"
        if "tokens_per_second" in r:
            lines.append(
                start
                + _(
                    " {rate:,.0f} | {peak:.1f} | {share:.2f} |",
                    rate=r["tokens_per_second"],
                    peak=r["peak_gib"],
                    share=r["fraction_of_limit"],
                )
            )
        else:
            lines.append(f"{start} {r.get('absent') or r.get('failed')} | | |")
    return "\n".join([*lines, "", machine(result["machine"]), ""])


def main() -> None:
    if sys.argv[1:] not in (["page"], ["check"]):
        sys.exit((__doc__ or "").strip())
    for language, path in PAGES.items():
        speak(language)
        text = page()
        if sys.argv[1] == "page":
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(
                f"docs/{path.name} is not what benchmarks/results give: run scripts/performance.py page"
            )


if __name__ == "__main__":
    main()
