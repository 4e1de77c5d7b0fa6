"""The lab's scenario, one answer changed at a time, and what cannot be decided."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.words import speaking
from hauslm.decide.verdict import decide, situation
from hauslm.records import Decision, Run
from hauslm.scenario import Scenario

Decided = Callable[..., Decision]
Lab = Callable[..., Scenario]


def test_the_lab_goes_local_on_its_24_gb_card_with_lora_in_4_bit(decided: Decided) -> None:
    decision = decided()
    chosen = {o.id: o for o in decision.options}[decision.verdict.option]
    assert decision.verdict.kind == "local"
    assert (chosen.hardware, chosen.quantisation, chosen.adaptation) == ("rtx-4090", "nf4", "lora")
    assert chosen.admissible and chosen.complete
    assert chosen.cost is not None
    assert chosen.cost.horizon.value == pytest.approx(
        sum(f.quantity.value for f in chosen.cost.lines)
    )


def test_the_sheets_models_are_among_the_options(decided: Decided) -> None:
    ids = {o.id for o in decided().options}
    assert {
        f"own-rtx-4090/{m}/nf4/lora" for m in ("mistral-7b-v0.1", "mistral-7b-v0.3", "llama-3-8b")
    } <= ids
    assert "api/openai/gpt-4-turbo/standard" in ids
    assert {"api/openai/gpt-6-luna/standard", "api/openai/gpt-6-luna/batch"} <= ids


def test_it_says_that_the_cloud_is_cheaper_and_why_local_all_the_same(decided: Decided) -> None:
    decision = decided()
    cost = " ".join(r.text for r in decision.verdict.reasons if r.criterion == "cost")
    assert "The cloud is cheaper" in cost and "Local all the same, because of the rules" in cost
    assert "GPT-4 Turbo" in cost
    assert decision.verdict.cheaper_option
    assert decision.switching_value is not None and decision.switching_value.value > 0
    with speaking("de"):
        german = " ".join(r.say("de") for r in decision.verdict.reasons)
    assert "C4" in german


def test_reasons_come_in_the_labs_order(decided: Decided) -> None:
    order = list(dict.fromkeys(r.criterion for r in decided().verdict.reasons))
    assert order == [
        "cost", "adaptability", "privacy", "resources", "upkeep", "permanence", "performance",
    ]  # fmt: skip


def test_cloud_options_wait_for_a_release_and_counsel(decided: Decided) -> None:
    for option in decided().options:
        if option.kind in ("cloud", "hosted", "rented"):
            assert not option.admissible
            assert {"C4", "D2"} <= {g.rule for g in option.gates if g.effect == "REQUIRE"}


def test_missing_prices_are_listed_and_never_ranked(decided: Decided) -> None:
    decision = decided()
    incomplete = [o for o in decision.options if not o.complete]
    assert "hosted/institution/unnamed" in {o.id for o in incomplete}
    assert all(o.cost is None for o in incomplete)
    notice = next(n.text for n in decision.notices if "price was not found" in n.text)
    assert all(o.title.text in notice for o in incomplete)


# ---------------------------------------------------------------- one answer at a time


def test_public_data_goes_to_the_cloud_and_the_flip_table_said_so(decided: Decided) -> None:
    flip = next(f for f in decided().flips if f.parameter == "data.copyright" and f.to == "open")
    changed = decided(data={"copyright": "open"})
    assert changed.verdict.kind in ("cloud", "hosted")
    assert changed.verdict.option == flip.becomes


def test_fifty_documents_a_month_do_not_change_what_the_rules_decide(decided: Decided) -> None:
    decision = decided(workload={"documents_per_month": 50, "backlog_documents": 0})
    assert decision.verdict.kind == "local"
    assert not any(f.parameter == "documents_per_month" for f in decided().flips)
    assert decision.switching_value is not None and decision.switching_value.value > 0


def test_without_a_gpu_one_is_bought(decided: Decided) -> None:
    flip = next(f for f in decided().flips if f.parameter == "hardware.gpu")
    changed = decided(hardware={"gpu": "none"})
    assert changed.verdict.option.startswith("buy-")
    assert changed.verdict.option == flip.becomes


def test_without_staff_only_a_conditional_service_is_left(decided: Decided) -> None:
    flip = next(f for f in decided().flips if f.parameter == "people.staff_available")
    changed = decided(people={"staff_available": False})
    assert changed.verdict.kind in ("cloud", "hosted")
    assert changed.verdict.option == flip.becomes
    assert any("until then no document may be sent" in n.text for n in changed.notices)


def test_every_flip_of_an_answer_comes_true(decided: Decided, lab: Lab) -> None:
    """The flip table is a prediction: re-deciding with the answer gives what it says."""
    for flip in decided().flips:
        if "." not in flip.parameter or "+" in flip.parameter:
            continue
        section, field = flip.parameter.split(".")
        scenario = lab(**{section: {field: flip.to}})
        if flip.becomes:
            assert decide(scenario).verdict.option == flip.becomes
        else:
            with pytest.raises(RefusedError):
                decide(scenario)


def test_open_questions_answered_in_favour_open_the_cloud_together(decided: Decided) -> None:
    flip = next(f for f in decided().flips if "+" in f.parameter)
    assert flip.parameter == "data.may_leave + data.publisher_forbids_third_parties"
    changed = decided(data={"may_leave": "yes", "publisher_forbids_third_parties": "no"})
    assert changed.verdict.option == flip.becomes
    cheaper = {o.id: o for o in changed.options}.get(changed.verdict.cheaper_option)
    assert cheaper is None or "P9" in {g.rule for g in cheaper.gates}  # terms nobody looked up


def test_documents_that_may_not_leave_and_no_machine_is_refused_by_name(lab: Lab) -> None:
    scenario = lab(
        data={"may_leave": "no"}, hardware={"gpu": "none"}, people={"staff_available": False}
    )
    with pytest.raises(RefusedError) as caught:
        decide(scenario)
    assert caught.value.exit_code == 4
    assert "D1" in str(caught.value)
    assert "may_leave" in caught.value.where


def test_no_budget_for_a_machine_counts_as_none(lab: Lab) -> None:
    with pytest.raises(RefusedError) as caught:
        decide(
            lab(data={"may_leave": "no"}, hardware={"gpu": "none"}, budget={"max_purchase_eur": 0})
        )
    assert "D1" in str(caught.value) and "budget" in str(caught.value)


def test_sensitive_code_stays_on_premise(lab: Lab) -> None:
    """Fares and Herbold, arXiv 2511.11125: sensitive industrial code, one A100, Llama 3.1 70B q4."""
    decision = decide(
        lab(data={"may_leave": "no", "copyright": "own"}, hardware={"gpu": "a100-80-sxm"})
    )
    assert decision.verdict.kind == "local"
    assert decision.verdict.option.startswith("own-a100-80-sxm/")
    assert not any("llama-3.1-70b" in name for name in decision.pruned if "fit" in name)


def test_personal_data_under_contract_may_go_to_europe_only(decided: Decided, lab: Lab) -> None:
    answers = {
        "data": {
            "personal": "yes", "legal_basis": "yes", "processor_contract": "yes", "may_leave": "yes",
            "copyright": "own", "eu_residency_required": "yes",
        },
        "people": {"staff_available": False},
    }  # fmt: skip
    decision = decided(**answers)
    assert {o.id: o for o in decision.options}[decision.verdict.option].admissible
    judged = situation(lab(**answers)).context.judged

    def rules(option: str) -> set[str]:
        return {g.rule for g in judged.gates(judged.candidates[judged.row[option]])}

    assert {"P5", "P7"} <= rules("api/anthropic/claude-sonnet-4-6/batch")
    assert "P4" in rules("api/openai/gpt-6-luna/batch")
    assert not {"P4", "P5", "P7"} & rules("hosted/mistral/mistral-small-2603/batch")


def test_more_documents_than_one_card_can_do_need_more_cards(decided: Decided, lab: Lab) -> None:
    answers = {"workload": {"documents_per_month": 400_000}}
    judged = situation(lab(**answers)).context.judged
    row = judged.row["own-rtx-4090/mistral-small-3.2-24b/nf4/lora"]
    assert "capacity" in {g.rule for g in judged.gates(judged.candidates[row])}
    assert any(c.setting.startswith("buy-2x-") for c in judged.candidates)
    chosen = decided(**answers)
    assert chosen.verdict.option != decided().verdict.option


def test_a_quality_floor_cuts_what_scores_less_or_nothing(decided: Decided) -> None:
    decision = decided(quality={"floor": 70, "benchmark": "MMLU"})
    for option in decision.options:
        if option.admissible:
            assert not any(g.rule == "quality" for g in option.gates)
    assert any(g.rule == "quality" for o in decision.options for g in o.gates)


# ---------------------------------------------------------------- user's own figures, bad input


OWN_SERVICE = {
    "id": "uni", "kind": "hosted", "title": "Service of the university", "fixed_eur_per_month": 20,
    "under_own_contract": True, "eu": "yes", "processor_contract": "yes",
}  # fmt: skip


def test_an_institution_under_own_contract_is_in_house(decided: Decided) -> None:
    decision = decided(options=[OWN_SERVICE])
    option = {o.id: o for o in decision.options}["user/uni"]
    assert option.admissible and option.complete
    assert decision.verdict.option == "user/uni"


def test_an_own_option_without_a_price_is_incomplete(decided: Decided) -> None:
    decision = decided(options=[{"id": "odd", "kind": "cloud", "price_input_eur_per_mtok": 0.1}])
    option = {o.id: o for o in decision.options}["user/odd"]
    assert not option.complete and option.cost is None and "missing" in option.criteria


def test_a_price_of_the_project_file_counts(decided: Decided) -> None:
    price = {
        "model": "gpt-6-luna", "input_usd_per_mtok": 7.0, "output_usd_per_mtok": 9.0,
        "source": "our contract", "date": "2026-11-01",
    }  # fmt: skip
    decision = decided(prices=[price])
    option = {o.id: o for o in decision.options}["api/openai/gpt-6-luna/standard"]
    figures = {f.label.template: f.quantity for f in option.facts}
    assert figures["Price of input"].value == 7.0
    assert figures["Price of input"].known == "given"
    assert "our contract" in figures["Price of input"].source


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"hardware": {"gpu": "rtx-4091"}}, "H120"),
        ({"hardware": {"region": "XX"}}, "H231"),
        ({"prices": [{"model": "gpt-6-lunar", "source": "x", "date": "2026-11-01"}]}, "H243"),
        ({"horizon": {"decision_date": "2019-01-01"}}, "H241"),
        ({"horizon": {"decision_date": "2026-02-31"}}, "H241"),
        ({"horizon": {"decision_date": "2099-01-01"}}, "H241"),
    ],
)
def test_bad_input_is_a_sentence(answers: dict[str, object], code: str, lab: Lab) -> None:
    with pytest.raises(UsageError) as caught:
        decide(lab(**answers))
    assert caught.value.code == code
    assert caught.value.next_step


def test_a_run_on_the_processor_is_not_taken_for_the_gpu(decided: Decided, lab: Lab) -> None:
    run = Run.model_validate(
        {
            "adapter": {"path": "a", "sha256": "0", "parameters": 1},
            "base": {"id": "mistral-7b-v0.3", "path": "", "sha256": ""},
            "method": "qlora", "steps": 1, "epochs": 1, "tokens": 10, "seconds": 1,
            "tokens_per_second": {"value": 3, "unit": "tokens/s", "known": "measured", "date": "2026-11-01"},
            "peak_memory_gib": {"value": 1, "unit": "GiB", "known": "measured", "date": "2026-11-01"},
            "loss": {"first": 1, "last": 1}, "determinism": "bitwise", "device": "cpu",
        }
    )  # fmt: skip
    decision = decide(lab(), measured={"run": run})
    assert any("ran on the processor" in n.text for n in decision.notices)
    fast = run.model_copy(update={"device": "cuda:0"})
    measured = decide(lab(), measured=[fast])
    assert any("measured on this machine replaces" in n.text for n in measured.notices)
    before = {o.id: o for o in decided().options}["own-rtx-4090/mistral-7b-v0.3/nf4/lora"]
    after = {o.id: o for o in measured.options}["own-rtx-4090/mistral-7b-v0.3/nf4/lora"]
    assert after.cost is not None and before.cost is not None
    assert after.cost.horizon.value > before.cost.horizon.value  # 3 tokens a second are slow


def test_the_record_survives_its_file(decided: Decided, tmp_path) -> None:  # type: ignore[no-untyped-def]
    decision = decided()
    decision.save(tmp_path)
    assert Decision.load(tmp_path / "decision.json") == decision


def test_the_same_scenario_gives_the_same_decision(decided: Decided, lab: Lab) -> None:
    again = decide(lab())
    assert again.model_copy(update={"created": decided().created}) == decided()


def test_a_decision_loads_no_tensor_library() -> None:
    """What keeps a cold decision quick; how quick it is, `benchmarks/decide.py` measures."""
    code = (
        "import sys\n"
        "from hauslm.scenario import Scenario\n"
        "from hauslm.decide.verdict import decide\n"
        "decide(Scenario())\n"
        "heavy = [m for m in ('torch', 'transformers', 'scipy', 'sklearn', 'matplotlib') if m in sys.modules]\n"
        "print(*heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


@pytest.mark.parametrize("base", ["mistral-7b-v0.1", "mistral-7b-v0.3"])
def test_the_model_of_the_project_file_is_taken_where_costs_tie(base: str) -> None:
    scenario = Scenario.model_validate(
        {"model": {"base": base}, "scenario": {"horizon": {"decision_date": "2026-11-23"}}}
    )
    decision = decide(scenario)
    assert decision.verdict.option == f"own-rtx-4090/{base}/nf4/lora"
    assert any("project file" in r.text for r in decision.verdict.reasons)


def test_a_base_model_by_its_hub_name_is_the_catalogs(lab: Lab) -> None:
    def of(base: str) -> str:
        scenario = lab()
        model = scenario.model.model_copy(update={"base": base})
        return decide(scenario.model_copy(update={"model": model})).verdict.option

    assert of("mistralai/Mistral-7B-v0.3") == of("mistral-7b-v0.3")


def test_an_own_folder_as_base_model_is_no_option_and_that_is_said(lab: Lab) -> None:
    scenario = lab()
    model = scenario.model.model_copy(update={"base": "models/our-own"})
    decision = decide(scenario.model_copy(update={"model": model}))
    assert any("models/our-own" in n.text for n in decision.notices)
