"""How is the decision written down? A note in the form of MADR 4 (adr.github.io/madr), de or en.

Context, drivers, options with their standing, outcome with its reasons, consequences, what would
overturn it, when to look again. Everything comes from the record: the note adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from hauslm.base.quantity import Quantity
from hauslm.base.words import Sentence, language, say
from hauslm.decide.criteria import criteria
from hauslm.records import Decision, Fact, Option

MOST_FLIPS = 12


def note(decision: Decision, code: str | None = None) -> str:
    """The decision as a Markdown text in the language `code` (default: the one in force)."""
    return "\n".join(_Writer(decision, code or language()).lines()) + "\n"


class _Writer:
    def __init__(self, decision: Decision, code: str) -> None:
        self.decision = decision
        self.code = code

    def say(self, sentence: Sentence | str) -> str:
        return sentence if isinstance(sentence, str) else sentence.text(self.code)

    def figure(self, quantity: Quantity) -> str:
        return quantity.text(language=self.code)

    def lines(self) -> Iterable[str]:
        yield from self._head()
        yield from self._drivers()
        yield from self._options()
        yield from self._outcome()
        yield from self._turning()
        yield from self._assumptions()
        yield from self._again()

    def _head(self) -> Iterable[str]:
        d = self.decision
        yield "---"
        yield "status: accepted"
        yield f"date: {d.decision_date}"
        yield f"revisit: {d.revisit_on}"
        yield "---"
        yield ""
        yield "# " + self.say(
            say("Where our language model runs: {title}", title=d.verdict.title.sentence())
        )
        yield ""
        yield "## " + self.say(say("Context and problem"))
        yield ""
        yield self.say(
            say("Texts are to be analysed by a language model. The question is whether an API or a "
                "machine of our own does it. {considered:,} combinations of model, place and way of "
                "paying were considered; prices are those of {day:date}.",
                considered=d.considered, day=d.decision_date)
        )  # fmt: skip
        yield ""
        for said in d.notices:
            yield "> " + said.say(self.code)
            yield ">"
        yield ""

    def _drivers(self) -> Iterable[str]:
        yield "## " + self.say(say("Decision drivers"))
        yield ""
        for criterion in sorted(criteria(), key=lambda c: c.place_in_verdict):
            yield "* " + self.say(Sentence(criterion.title))
        yield ""

    def _options(self) -> Iterable[str]:
        yield "## " + self.say(say("Considered options"))
        yield ""
        head = (say("Option"), say("a month"), say("per document"), say("admissible"),
                say("obstacles"))  # fmt: skip
        yield "| " + " | ".join(self.say(h) for h in head) + " |"
        yield "|---|---:|---:|---|---|"
        for option in self.decision.options:
            yield self._row(option)
        yield ""

    def _row(self, option: Option) -> str:
        chosen = option.id == self.decision.verdict.option
        name = f"**{option.id}** ✔" if chosen else option.id
        money = ["–", "–"]
        if option.cost is not None:
            money = [
                self.say(say("{x:EUR}", x=option.cost.monthly.value)),
                self.say(say("{x:.4f} EUR", x=option.cost.per_document.value)),
            ]
        hard = [g for g in option.gates if g.effect in ("BLOCK", "REQUIRE")]
        marks = sorted({g.rule + (" ⚠" if g.source_expired else "") for g in hard})
        if not option.complete:
            marks.append(self.say(say("price missing")))
        yes = self.say(say("yes") if option.admissible else say("no"))
        return f"| {name} | {money[0]} | {money[1]} | {yes} | {', '.join(marks)} |"

    def _outcome(self) -> Iterable[str]:
        d = self.decision
        yield "## " + self.say(say("Decision outcome"))
        yield ""
        yield self.say(say("Chosen: {title}.", title=d.verdict.title.sentence()))
        yield ""
        titles = {c.id: c.title for c in criteria()}
        last = ""
        for reason in d.verdict.reasons:
            if reason.criterion != last:
                last = reason.criterion
                yield f"### {self.say(Sentence(titles.get(last, last)))}"
                yield ""
            yield "* " + reason.say(self.code) + self._sources(reason.facts)
        yield ""

    def _sources(self, facts: tuple[Fact, ...]) -> str:
        """The figures behind a sentence that come from somewhere else than the formula."""
        named = [
            f"{f.label.say(self.code)}: {self.figure(f.quantity)} ({f.quantity.source}, {f.quantity.date})"
            for f in facts
            if f.quantity.known in ("sourced", "measured")
        ]
        return f" [{'; '.join(named)}]" if named else ""

    def _turning(self) -> Iterable[str]:
        d = self.decision
        yield "## " + self.say(say("What would overturn it"))
        yield ""
        even = d.break_even
        if even.documents_per_month is not None:
            yield "* " + self.say(
                say("Break-even with {name} at {documents:,} documents a month.",
                    name=even.against, documents=even.documents_per_month)
            )  # fmt: skip
        elif even.reason is not None:
            yield "* " + even.reason.say(self.code)
        if d.switching_value is not None:
            yield "* " + self.say(_price_of_the_gate(d.switching_value.value))
        yield "* " + self.say(
            say("The verdict holds in {p:.0%} of the draws over the assumed ranges, with the answers "
                "as they stand.", p=d.probability_verdict_holds.value)
        )  # fmt: skip
        for flip in d.flips[:MOST_FLIPS]:
            becomes = flip.becomes or self.say(say("no option"))
            if flip.becomes_title is not None:
                becomes = flip.becomes_title.say(self.code)
            yield "* " + self.say(
                say("{title}: {old} → {new} {unit}: {becomes}",
                    title=flip.title.say(self.code).rstrip(".?"), old=_shown(flip.from_), new=_shown(flip.to),
                    unit="" if flip.unit == "1" else flip.unit, becomes=becomes)
            )  # fmt: skip
        yield ""

    def _assumptions(self) -> Iterable[str]:
        yield "## " + self.say(say("Assumptions"))
        yield ""
        for fact in self.decision.assumptions:
            q = fact.quantity
            ends = ""
            if q.low is not None and q.high is not None:
                ends = self.say(say(" ({low:g} to {high:g})", low=float(q.low), high=float(q.high)))
            yield f"* {fact.label.say(self.code)}: {self.figure(q)}{ends}"
        yield ""

    def _again(self) -> Iterable[str]:
        d = self.decision
        yield "## " + self.say(say("When to revisit"))
        yield ""
        yield self.say(say("On {day:date} at the latest, or as soon as:", day=d.revisit_on))
        yield ""
        for trigger in d.triggers:
            yield "* " + trigger.say(self.code)
        yield ""
        yield "## " + self.say(say("Confirmation"))
        yield ""
        yield self.say(
            say("The own evaluation (hauslm evaluate) and the measured speed (hauslm plan --evidence "
                "probe) replace benchmarks and estimates; hauslm decide --diff shows what that changes.")
        )  # fmt: skip


def _price_of_the_gate(value: float) -> Sentence:
    if value > 0:
        return say("The choice costs {value:EUR} a month more than the best option of another kind that only a rule "
                   "keeps out: that much privacy and adaptability have to be worth.", value=value)  # fmt: skip
    return say("The best option of another kind costs {value:EUR} a month more.", value=-value)


def _shown(value: object) -> object:
    if value is None:
        return say("none")
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return float(value) if isinstance(value, (int, float)) else value
