"""What would another answer change? Each answer of the team in turn, and the open ones together.

An answer is replaced, the same candidates are judged again, and where another kind of place wins the
flip is written down. Answers that are still 'unknown' are also tried all together in their permissive
reading: often no single one of them opens the door.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.decide.context import Context
from hauslm.decide.gates import unknown_answers
from hauslm.decide.judge import answered
from hauslm.records import Flip, Said
from hauslm.scenario import ScenarioAnswers

# path -> (title, the answers to try, which of them is the permissive one)
ANSWERS: Mapping[str, tuple[str, tuple[Any, ...], Any]] = {
    "data.may_leave": (N_("May the documents leave the house at all?"), ("yes", "no"), "yes"),
    "data.copyright": (N_("Whose works are the documents?"), ("open", "own", "third_party"), "open"),
    "data.publisher_forbids_third_parties": (
        N_("Do publisher terms forbid access by third parties?"), ("no", "yes"), "no",
    ),
    "data.personal": (N_("Do the documents contain personal data?"), ("no", "yes"), "no"),
    "data.legal_basis": (
        N_("Is there a legal basis for the processing (GDPR 6)?"), ("yes", "no"), "yes",
    ),
    "data.processor_contract": (
        N_("Is there a processor contract with the provider (GDPR 28)?"), ("yes", "no"), "yes",
    ),
    "data.special_category": (
        N_("Health, religion or other special categories of personal data?"), ("no", "yes"), "no",
    ),
    "data.lawful_access": (N_("Is the access to the documents lawful?"), ("yes", "no"), "yes"),
    "data.research_purpose": (
        N_("Purpose of the text and data mining (UrhG 44b, 60d)."),
        ("non_commercial", "commercial"), "non_commercial",
    ),
    "data.reservation": (
        N_("Did the rightholders reserve text and data mining in machine-readable form?"),
        ("no", "yes"), "no",
    ),
    "data.eu_residency_required": (
        N_("Must the processing stay in the EU?"), ("no", "yes"), "no",
    ),
    "data.max_retention_days": (
        N_("Longest retention by a provider that is acceptable, in days."), (None, 0.0), None,
    ),
    "people.staff_available": (
        N_("Somebody can look after a local machine."), (True, False), True,
    ),
    "hardware.owned": (N_("The GPU is already paid for."), (True, False), True),
    "hardware.gpu": (N_("Catalog id of the GPU, or none."), ("none",), None),
    "adaptation.needed": (
        N_("Domain terms or house style call for fine-tuning."), (True, False), False,
    ),
    "workload.batch_possible": (
        N_("Answers may wait up to a day (batch prices apply)."), (True, False), True,
    ),
}  # fmt: skip


def read(scenario: ScenarioAnswers, path: str) -> Any:
    node: Any = scenario
    for part in path.split("."):
        node = getattr(node, part)
    return node


def with_answer(scenario: ScenarioAnswers, path: str, value: Any) -> ScenarioAnswers:
    """The scenario with one answer replaced (section.field)."""
    section, name = path.split(".")
    changed = getattr(scenario, section).model_copy(update={name: value})
    return scenario.model_copy(update={section: changed})


def answer_flips(context: Context) -> list[Flip]:
    """Every single answer, and all open ones together, under which another kind of place wins."""
    if context.chosen is None:
        return []
    scenario = context.judged.scenario
    setting = context.candidate(context.chosen).setting
    found = []
    for path, value in _alternatives(scenario):
        flip = _try(context, setting, path, value, with_answer(scenario, path, value))
        if flip is not None:
            found.append(flip)
    together = _all_open(context, setting)
    return [*found, *together]


def _alternatives(scenario: ScenarioAnswers) -> Iterator[tuple[str, Any]]:
    for path, (_, values, _) in ANSWERS.items():
        now = read(scenario, path)
        for value in values:
            if value != now:
                yield path, value


def _try(
    context: Context, setting: str, path: str, value: Any, changed: ScenarioAnswers
) -> Flip | None:
    judged = answered(context.judged, changed)
    row = judged.choose()
    if row is not None and judged.candidates[row].setting == setting:
        return None
    return _flip(context, path, value, judged.candidates[row].id if row is not None else "")


def _flip(context: Context, path: str, value: Any, becomes: str) -> Flip:
    now = read(context.judged.scenario, path)
    return Flip(
        parameter=path,
        title=Said.of(Sentence(ANSWERS[path][0], {})),
        **{"from": now},
        to=value,
        becomes=becomes,
        known="given",
    )


def _all_open(context: Context, setting: str) -> list[Flip]:
    """All unknown answers in their permissive reading at once, if no single one was enough."""
    scenario = context.judged.scenario
    known = [p.removeprefix("scenario.") for p in unknown_answers(load.rules(), scenario)]
    paths = [p for p in known if p in ANSWERS]
    if len(paths) < 2:
        return []
    changed = scenario
    for path in paths:
        changed = with_answer(changed, path, ANSWERS[path][2])
    judged = answered(context.judged, changed)
    row = judged.choose()
    becomes = judged.candidates[row].id if row is not None else ""
    if row is None or judged.candidates[row].setting == setting:
        return []
    needed = _smallest(context, setting, paths)
    values = ", ".join(str(ANSWERS[p][2]) for p in needed)
    return [
        Flip(
            parameter=" + ".join(needed),
            title=Said.of(Sentence(TOGETHER, {"names": asked(needed)})),
            **{"from": "unknown"},
            to=values,
            becomes=becomes,
            known="given",
        )
    ]


def asked(paths: Sequence[str]) -> list[Sentence]:
    """Each answer as its question with the field's name, by which it is found in the project file."""
    return [
        say("{question} ({field})", question=Sentence(ANSWERS[p][0], {}), field=p)
        if p in ANSWERS
        else say("{text}", text=p)
        for p in paths
    ]


TOGETHER = N_("Open questions answered in favour of it: {names}")


def _smallest(context: Context, setting: str, paths: list[str]) -> list[str]:
    """Those of the open answers without which it would not flip."""
    needed = list(paths)
    for path in paths:
        fewer = [p for p in needed if p != path]
        changed = context.judged.scenario
        for name in fewer:
            changed = with_answer(changed, name, ANSWERS[name][2])
        judged = answered(context.judged, changed)
        row = judged.choose()
        if row is not None and judged.candidates[row].setting != setting:
            needed = fewer
    return needed
