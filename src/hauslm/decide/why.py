"""Why was this option chosen, cut, or ranked where it is? The answer from the record alone."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.words import Sentence, say
from hauslm.records import Decision, Option


def why(decision: Decision, option: str) -> list[Sentence]:
    """Sentences on one option; a group of cut options ('own-rtx-4090/qwen3-8b/*') answers for its
    members. `UsageError` H242 with the nearest ids if the decision knows no such option."""
    shown = {o.id: o for o in decision.options}
    if option in shown:
        return _shown(decision, shown[option])
    exact = decision.pruned.get(option)
    if exact is not None:
        return [exact.sentence()]
    groups = [name for name in decision.pruned if fnmatchcase(option, name)]
    if groups:
        # The longest pattern says most about this one.
        return [decision.pruned[max(groups, key=len)].sentence()]
    raise UsageError(
        "H242",
        say("The decision knows no option '{name}'.", name=option),
        next_step=did_you_mean(option, [*shown, *decision.pruned]),
    )


def _shown(decision: Decision, option: Option) -> list[Sentence]:
    found: list[Sentence] = []
    if option.id == decision.verdict.option:
        found.append(say("This is the verdict."))
    missing = option.criteria.get("missing")
    if missing is not None:
        found.append(missing.sentence())
    if option.cost is not None:
        ranked = sorted(o.cost.horizon.value for o in decision.options if o.cost and o.admissible)
        found.append(
            say(
                "It costs {horizon:EUR} over the horizon, {monthly:EUR} a month; {n:,} admissible options "
                "shown cost less.",
                horizon=option.cost.horizon.value, monthly=option.cost.monthly.value,
                n=sum(1 for v in ranked if v < option.cost.horizon.value),
            )
        )  # fmt: skip
    found += [
        say("{rule} ({effect}): {text}", rule=g.rule, effect=g.effect, text=g.why.sentence())
        for g in option.gates
    ]
    found += [s.sentence() for key, s in option.criteria.items() if key != "missing"]
    return found
