"""The rules: complete, sourced, said in both languages, and never opened by a restriction."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.catalog import load
from hauslm.catalog.schema import Rule
from hauslm.decide import gates
from hauslm.decide.providers import all_terms, terms
from hauslm.scenario import ScenarioAnswers

RULES = load.rules()

# From the least to the most restrictive answer; the order that the rules must respect.
ORDER: dict[str, tuple[str, ...]] = {
    "personal": ("no", "unknown", "yes"),
    "special_category": ("no", "unknown", "yes"),
    "legal_basis": ("yes", "unknown", "no"),
    "processor_contract": ("yes", "unknown", "no"),
    "may_leave": ("yes", "unknown", "no"),
    "copyright": ("open", "own", "unknown", "third_party"),
    "lawful_access": ("yes", "unknown", "no"),
    "research_purpose": ("non_commercial", "unknown", "commercial"),
    "reservation": ("no", "unknown", "yes"),
    "publisher_forbids_third_parties": ("no", "unknown", "yes"),
    "eu_residency_required": ("no", "unknown", "yes"),
}
TRAITS = {
    "third_party": ("no", "unknown", "yes"), "us_provider": ("no", "unknown", "yes"),
    "eu": ("yes", "unknown", "no"), "transfer_ground": ("yes", "unknown", "no"),
    "trains_on_inputs": ("no", "unknown", "yes"), "retention": ("within", "unknown", "beyond"),
    "commercial_licence": ("yes", "unknown", "no"), "tuned": ("no", "yes"),
    "over_third_of_compute": ("no", "unknown", "yes"), "licence": ("apache-2.0", "llama", "gemma"),
}  # fmt: skip

answers = st.fixed_dictionaries({k: st.sampled_from(v) for k, v in ORDER.items()})
traits = st.fixed_dictionaries({k: st.sampled_from(v) for k, v in TRAITS.items()})
kinds = st.sampled_from(["local", "rented", "cloud", "hosted"])


def scenario(**data: str) -> ScenarioAnswers:
    return ScenarioAnswers.model_validate({"data": data})


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_every_rule_is_complete(rule: Rule) -> None:
    assert set(rule.text.languages) >= {"de", "en"}
    assert set(rule.question.languages) >= {"de", "en"}
    assert rule.text.text("de") != rule.text.text("en")
    assert rule.source.title and rule.source.url and rule.source.date
    assert rule.source.checked_on <= rule.expires_on
    datetime.date.fromisoformat(rule.expires_on)
    assert rule.disclaimer is not None


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_every_condition_can_be_asked_and_met(rule: Rule) -> None:
    """A path that does not exist, or an answer nobody can give, would be a rule that never applies."""
    sample = {k: v[0] for k, v in TRAITS.items()}
    for path, wanted in rule.when.items():
        gates.answer(ScenarioAnswers(), sample, path)
        name = path.rpartition(".")[2]
        possible = ORDER.get(name) or TRAITS.get(name) or ("no", "team", "public")
        assert set(wanted) <= set(possible), path


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.id)
def test_unknown_counts_as_the_stricter_case(rule: Rule) -> None:
    """Where a BLOCK or REQUIRE lists the strict answer, it lists 'unknown' too, unless another rule
    of the same question takes care of it."""
    if rule.effect not in ("BLOCK", "REQUIRE"):
        return
    for path, wanted in rule.when.items():
        name = path.rpartition(".")[2]
        order = ORDER.get(name)
        if order is None or order[-1] not in wanted or "unknown" in wanted:
            continue
        others = [
            r for r in RULES if path in r.when and "unknown" in r.when[path] and r is not rule
        ]
        assert any(r.effect in ("BLOCK", "REQUIRE") for r in others), (rule.id, path)


@given(answers, traits, kinds, st.sampled_from(sorted(ORDER)))
def test_a_stricter_answer_never_opens_a_gate(
    given_answers: dict[str, str], given_traits: dict[str, str], kind: str, name: str
) -> None:
    order = ORDER[name]
    place = order.index(given_answers[name])
    before = gates.standing_by_rules(RULES, kind, scenario(**given_answers), given_traits)
    for stricter in order[place + 1 :]:
        changed = scenario(**{**given_answers, name: stricter})
        assert gates.standing_by_rules(RULES, kind, changed, given_traits) >= before


@given(answers, traits, kinds, st.sampled_from(sorted(set(TRAITS) - {"licence"})))
def test_a_worse_provider_never_opens_a_gate(
    given_answers: dict[str, str], given_traits: dict[str, str], kind: str, name: str
) -> None:
    order = TRAITS[name]
    place = order.index(given_traits[name])
    asked = scenario(**given_answers)
    before = gates.standing_by_rules(RULES, kind, asked, given_traits)
    for worse in order[place + 1 :]:
        changed = {**given_traits, name: worse}
        assert gates.standing_by_rules(RULES, kind, asked, changed) >= before


@given(answers, traits, kinds)
def test_an_additional_rule_never_opens_a_gate(
    given_answers: dict[str, str], given_traits: dict[str, str], kind: str
) -> None:
    asked = scenario(**given_answers)
    standing = [
        gates.standing_by_rules(RULES[:k], kind, asked, given_traits) for k in range(len(RULES) + 1)
    ]
    assert all(a <= b for a, b in itertools.pairwise(standing))


@given(answers, traits, kinds)
def test_the_quick_standing_is_that_of_the_gates(
    given_answers: dict[str, str], given_traits: dict[str, str], kind: str
) -> None:
    asked = scenario(**given_answers)
    found = gates.rule_gates(RULES, kind, asked, given_traits, "2026-11-23")
    assert gates.standing(found) == gates.standing_by_rules(RULES, kind, asked, given_traits)


def test_an_expired_source_still_applies_and_is_marked() -> None:
    sample = {k: v[-1] for k, v in TRAITS.items()}
    asked = scenario(may_leave="no", copyright="third_party")
    fresh = gates.rule_gates(RULES, "cloud", asked, sample, "2026-11-23")
    later = gates.rule_gates(RULES, "cloud", asked, sample, "2030-01-01")
    assert [g.rule for g in fresh] == [g.rule for g in later]
    assert not any(g.source_expired for g in fresh)
    assert {g.rule for g in later if g.source_expired} >= {"C4"}


def test_a_gate_speaks_both_languages() -> None:
    gate = gates.gate_of(load.rule("C4"), "2026-11-23")
    assert "Verlag" in gate.why.say("de") and "publisher" in gate.why.say("en")


def test_providers_have_sources_and_strangers_are_unknown() -> None:
    for provider in all_terms():
        assert provider.source and provider.date and provider.training in ("yes", "no", "unknown")
    assert terms("nobody").training == "unknown" and terms("nobody").retention_days is None
