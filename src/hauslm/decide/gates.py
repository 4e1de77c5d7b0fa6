"""May this option be used at all? Rules, then floors; an unknown answer is the stricter case.

The rules are data (`catalog/facts/rules`): each names the answers under which it applies. Beside the
scenario's answers ("scenario.data.personal") a rule may ask about the option itself: "option.
third_party", "option.eu", "option.retention", ... (`traits`). What a rule does to an option:

* BLOCK: the option is out.
* REQUIRE, severity high: somebody else's permission is missing (a release, legal counsel). The
  option is *conditional*: not admissible until it is given, better than nothing if all else is out.
* REQUIRE of lower severity, WARN: a duty or a warning that comes along; the option stays admissible.
* ALLOW, FAVOUR: the rule speaks for the option.

Floors are not law: whether the model fits, holds an article, meets the quality floor, is still sold.
They use the same form under the area "floor", so that every cut has an id and a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hauslm.base.words import Sentence, language, say
from hauslm.catalog import load
from hauslm.catalog.schema import Rule
from hauslm.decide.choice import ADMISSIBLE, BLOCKED, CONDITIONAL
from hauslm.records import Gate, Said

Traits = Mapping[str, str]


def answer(scenario: Any, traits: Traits, path: str) -> str:
    """The answer that a rule's condition asks for; `KeyError` for a path that does not exist."""
    head, _, rest = path.partition(".")
    if head == "option":
        return traits[rest]
    node: Any = scenario
    for part in (rest if head == "scenario" else path).split("."):
        node = getattr(node, part)
    if isinstance(node, bool):
        return "yes" if node else "no"
    return str(node)


def applies(rule: Rule, kind: str, scenario: Any, traits: Traits) -> bool:
    """Whether every condition of the rule is met by the scenario's answers and the option."""
    if kind not in rule.applies_to:
        return False
    return all(answer(scenario, traits, path) in wanted for path, wanted in rule.when.items())


def rule_gates(
    rules: Sequence[Rule], kind: str, scenario: Any, traits: Traits, on: str
) -> tuple[Gate, ...]:
    """The gates that the rules put before an option, in the order of severity of their effect.

    `scenario` is the answers' section (`Scenario.scenario`), `on` the decision date (ISO): a rule
    whose source should have been checked again by then still applies and is marked.
    """
    found = [gate_of(r, on) for r in rules if applies(r, kind, scenario, traits)]
    order = ("BLOCK", "REQUIRE", "WARN", "FAVOUR", "ALLOW")
    return tuple(sorted(found, key=lambda g: (order.index(g.effect), g.rule)))


def gate_of(rule: Rule, on: str) -> Gate:
    """A rule as it stands before an option, said in all its languages."""
    return _gate_of(rule.id, on, language())


@lru_cache(maxsize=256)
def _gate_of(identity: str, on: str, _language: str) -> Gate:
    rule = load.rule(identity)
    return Gate(
        rule=rule.id,
        effect=rule.effect,
        severity=rule.severity,
        why=Said.of(rule_text(rule)),
        source=f"{rule.source.title}, {rule.source.url} ({rule.source.date})",
        source_expired=rule.expired(on),
    )


PLAIN = "{text}"  # a sentence that stands elsewhere: in a rule's file, in another room's error


def rule_text(rule: Rule) -> Sentence:
    """The rule's own sentence; rendered in the language of whoever reads it."""
    return Sentence(PLAIN, {"text": dict(rule.text.languages)})


def floor(name: str, why: Sentence) -> Gate:
    """A floor that an option misses: `name` is fit, context, quality, deadline, budget, ..."""
    return Gate(rule=name, effect="BLOCK", severity="high", why=Said.of(why))


def warning(name: str, why: Sentence) -> Gate:
    return Gate(rule=name, effect="WARN", severity="medium", why=Said.of(why))


def standing(gates: Iterable[Gate]) -> int:
    """ADMISSIBLE, CONDITIONAL (a permission is missing) or BLOCKED."""
    worst = ADMISSIBLE
    for gate in gates:
        if gate.effect == "BLOCK":
            return BLOCKED
        if gate.effect == "REQUIRE" and gate.severity == "high":
            worst = CONDITIONAL
    return worst


def standing_by_rules(rules: Sequence[Rule], kind: str, scenario: Any, traits: Traits) -> int:
    """The standing that the rules alone give, without making gates of them."""
    worst = ADMISSIBLE
    for rule in rules:
        if rule.effect not in ("BLOCK", "REQUIRE"):
            continue
        if rule.effect == "REQUIRE" and (rule.severity != "high" or worst == CONDITIONAL):
            continue
        if applies(rule, kind, scenario, traits):
            if rule.effect == "BLOCK":
                return BLOCKED
            worst = CONDITIONAL
    return worst


def obstacles(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """The gates that keep an option from being admissible."""
    return tuple(
        g for g in gates if g.effect == "BLOCK" or (g.effect == "REQUIRE" and g.severity == "high")
    )


def unknown_answers(rules: Sequence[Rule], scenario: Any) -> tuple[str, ...]:
    """Paths of scenario answers that are 'unknown' where that makes a rule apply: all its other
    questions about the team are answered so that it would."""
    found: set[str] = set()
    for rule in rules:
        given = {p: answer(scenario, {}, p) for p in rule.when if p.startswith("scenario.")}
        if all(given[p] in rule.when[p] for p in given) and rule.effect in ("BLOCK", "REQUIRE"):
            found |= {p for p, value in given.items() if value == "unknown"}
    return tuple(sorted(found))


def legal_notice() -> Sentence:
    return say(
        "This is no legal advice: the rules state what the tool's authors read in the sources named, "
        "on the dates named. Ask the data protection officer or legal counsel where it matters."
    )
