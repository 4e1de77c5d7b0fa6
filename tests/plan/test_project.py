"""The plan of a project: what the user fixed is honoured, the rest is chosen and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hauslm.base.errors import UsageError
from hauslm.plan import here
from hauslm.plan.search import plan
from hauslm.records import Corpus, Documents, Plan, Split
from hauslm.scenario import parse

SETTINGS = {
    "method", "quantisation", "seq_len", "micro_batch_size", "gradient_accumulation_steps",
    "activation_checkpointing", "checkpointed_layers", "loss", "learning_rate", "packing",
    "optimizer", "r", "lora_alpha", "target_modules", "precision",
}  # fmt: skip


def made(text: str, root: Path, **more: object) -> Plan:
    return plan(parse(text), None, more.pop("corpus", None), project_root=root, **more)  # type: ignore[arg-type]


def value(record: Plan, key: str) -> object:
    return record.settings[key].value


def corpus(histogram: dict[str, int], tokens: int = 2_000_000) -> Corpus:
    return Corpus(
        documents=Documents(read=sum(histogram.values())),
        documents_split=Split(train=80, validation=10, test=10),
        examples=Split(train=400, validation=50, test=50),
        tokens=Split(train=tokens, validation=10, test=10),
        fingerprint="x",
        token_histogram=histogram,
    )


def test_mistral_on_the_team_card(tmp_path):
    record = made("model: mistral-7b-v0.3\n", tmp_path)
    assert set(record.settings) >= SETTINGS
    assert all(s.reason.text for s in record.settings.values())
    assert next(iter(record.fits)) == "rtx-4090" and record.fits["rtx-4090"]
    assert record.memory.peak_gib.highest <= 24 * 0.97
    assert record.evidence == "formula" and not record.suggestions
    assert set(record.fits) == {"rtx-4090", *(f"{n} GB" for n in (8, 12, 16, 24, 32, 40, 48, 80))}
    steps = value(record, "micro_batch_size") * value(record, "gradient_accumulation_steps")
    assert 8 <= steps <= 32
    assert record.time.hours.value > 0 and record.energy.kwh.value > 0 and record.cost.unit == "EUR"


def test_what_is_chosen_is_the_fastest_of_what_fits(tmp_path):
    record = made("model: mistral-7b-v0.3\ntraining: {seq_len: 2048}\n", tmp_path)
    rivals = [c["tokens_per_second"] for c in record.candidates if c["fits_with_margin"]]
    assert record.throughput.tokens_per_second.value >= 0.89 * max(rivals)


def test_the_user_is_honoured(tmp_path):
    text = """
model: {base: mistral-7b-v0.3, quantisation: nf4}
adapter: {preset: lab}
training: {method: qlora, seq_len: 1024, micro_batch_size: 2, gradient_accumulation_steps: 5,
  activation_checkpointing: "on", learning_rate: 0.0001}
"""
    record = made(text, tmp_path)
    assert (value(record, "method"), value(record, "quantisation")) == ("qlora", "nf4")
    assert (value(record, "seq_len"), value(record, "micro_batch_size")) == (1024, 2)
    assert value(record, "gradient_accumulation_steps") == 5
    assert value(record, "checkpointed_layers") == 32
    assert value(record, "r") == 8 and value(record, "learning_rate") == 0.0001
    for key in ("method", "quantisation", "seq_len", "micro_batch_size", "learning_rate"):
        assert record.settings[key].reason.text == "Given by you."


def test_the_global_batch_is_kept(tmp_path):
    text = "model: mistral-7b-v0.3\ntraining: {seq_len: 2048}\nscenario: {hardware: {gpu: %s}}\n"
    batches = set()
    for gpu in ("rtx-5080", "rtx-4090", "h100-sxm"):
        record = made(text % gpu, tmp_path)
        batches.add(
            value(record, "micro_batch_size") * value(record, "gradient_accumulation_steps")
        )
    assert batches == {16}


def test_fixed_settings_that_do_not_fit_bring_suggestions(tmp_path):
    text = """
model: {base: mistral-7b-v0.1, quantisation: none}
adapter: {preset: lab}
training: {method: lora, seq_len: 8192, micro_batch_size: 2, activation_checkpointing: "off"}
"""
    record = made(text, tmp_path)
    assert not record.fits["rtx-4090"]
    assert "does not fit" in record.margin.text.lower()
    assert record.suggestions
    assert any("checkpointing" in s.text.lower() for s in record.suggestions)
    assert record.suggestions[-1].text.startswith("As it is")
    assert "passt nicht" in record.margin.say("de").lower()


def test_the_demo_runs_on_this_processor(tmp_path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("Wort " * 20_000)
    record = made("model: embedded\n", tmp_path)
    assert next(iter(record.fits)) == "cpu" and record.fits["cpu"]
    assert value(record, "seq_len") == 512
    assert value(record, "micro_batch_size") * 512 <= 2048
    assert value(record, "quantisation") == "none" and value(record, "method") == "lora"
    batch = value(record, "micro_batch_size") * value(record, "gradient_accumulation_steps")
    assert batch == 4  # a small corpus must still give enough updates


def test_the_context_is_checked_against_the_team_s_documents(tmp_path):
    articles = {"2048-4095": 2, "4096-8191": 30, "8192-16383": 60, "16384-": 3}
    short = made("model: olmo-2-7b\n", tmp_path, corpus=corpus(articles))
    assert any("longer than the 4,096" in n.text for n in short.notices)
    long = made("model: mistral-7b-v0.3\n", tmp_path, corpus=corpus(articles))
    assert not any("longer than" in n.text for n in long.notices)
    for record, context, longer in ((short, 4096, 0.979), (long, 32768, 0.0)):
        assert record.context is not None and record.context.counted
        assert record.context.context == context and record.context.documents == 95
        assert record.context.longer_than_context == pytest.approx(longer, abs=0.01)
        assert 8192 < record.context.median_tokens < 16384
    assert "16,384" in short.context.text.text or "32,768" in short.context.text.text


def test_before_anything_is_prepared_the_stated_length_counts(tmp_path):
    record = made("model: olmo-2-7b\n", tmp_path)
    assert record.context is not None and not record.context.counted
    assert record.context.median_tokens == pytest.approx(9333, rel=0.01)
    assert any("By the scenario" in n.text for n in record.notices)


def test_the_tables_of_a_plan_are_about_its_card_and_model(tmp_path):
    record = made("model: mistral-7b-v0.3\n", tmp_path)
    assert {r["gpu"] for r in record.tables["models"]} == {"rtx-4090"}
    assert {r["model"] for r in record.tables["gpus"]} == {"mistral-7b-v0.3"}
    assert all(r["method"] in ("lora", "qlora") for t in record.tables.values() for r in t)
    memory = [r["memory_gib"] for r in record.tables["gpus"]]
    assert memory == sorted(memory) and memory[0] <= 16


@pytest.mark.parametrize(
    ("cards", "says"),
    [((), "H171"), (("NVIDIA L4",), "H172"), (("NVIDIA GeForce RTX 4090",), None)],
)
def test_a_plan_for_another_machine_says_so(tmp_path, monkeypatch, cards, says):
    monkeypatch.setattr(here, "cards_here", lambda: cards)
    record = made("model: mistral-7b-v0.3\n", tmp_path)
    coded = [n.text for n in record.notices if "[H17" in n.text]
    assert bool(coded) == (says is not None) and all(says in text for text in coded)


def test_cards_are_known_by_their_drivers_names():
    for catalog, driver in (
        ("H100 SXM5 80 GB", "NVIDIA H100 80GB HBM3"),
        ("A100 SXM4 80 GB", "NVIDIA A100-SXM4-80GB"),
        ("GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada Generation"),
        ("L40S", "NVIDIA L40S"),
    ):
        assert here.is_card(catalog, driver), catalog
    for catalog, driver in (
        ("GeForce RTX 4090", "NVIDIA GeForce RTX 3090"),
        ("A100 SXM4 80 GB", "NVIDIA A100-SXM4-40GB"),
        ("A100 SXM4 80 GB", "NVIDIA A10"),
        ("RTX 6000 Ada Generation", "Quadro RTX 6000"),
    ):
        assert not here.is_card(catalog, driver), catalog


def test_variants_keep_to_the_bases_they_can_start_from(tmp_path):
    from hauslm.plan.question import VARIANTS
    from hauslm.train.adapters import variants

    pissa = made("model: mistral-7b-v0.3\nadapter: {variant: pissa}\n", tmp_path)
    assert {c["quantisation"] for c in pissa.candidates} == {"none"}
    assert set(VARIANTS) == set(variants())
    for name, bases in VARIANTS.items():
        assert set(bases) - {"fp8", "int8_mm"} == set(variants()[name].BASES), name


def test_full_fine_tuning_of_a_quantised_base_is_exit_2(tmp_path):
    text = "model: {base: mistral-7b-v0.3, quantisation: nf4}\ntraining: {method: full}\n"
    with pytest.raises(UsageError) as caught:
        made(text, tmp_path)
    assert caught.value.code == "H152" and caught.value.exit_code == 2


def test_too_long_sequences_are_exit_2(tmp_path):
    with pytest.raises(UsageError) as caught:
        made("model: olmo-2-7b\ntraining: {seq_len: 100000}\n", tmp_path)
    assert caught.value.code == "H156"


def test_unknown_names_are_exit_2_with_the_nearest(tmp_path):
    with pytest.raises(UsageError) as caught:
        made("model: mistral-7b-v03\n", tmp_path)
    assert "mistral-7b-v0.3" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        made("model: mistral-7b-v0.3\nscenario: {hardware: {gpu: rtx-4900}}\n", tmp_path)
    assert "rtx-4090" in str(caught.value)


def test_two_cards_share_the_batch(tmp_path):
    text = "model: mistral-7b-v0.3\ntraining: {seq_len: 2048}\nscenario: {hardware: {count: 2}}\n"
    record = made(text, tmp_path)
    one = made(text.replace("2}", "1}"), tmp_path)
    batch = value(record, "micro_batch_size") * value(record, "gradient_accumulation_steps")
    assert batch == 8
    assert record.throughput.tokens_per_second.value > 1.5 * one.throughput.tokens_per_second.value


def test_a_probe_recalibrates(tmp_path):
    profile = tmp_path / "machine.json"
    profile.write_text(
        '{"version": 1, "machines": {"rtx-4090": {"memory_factor": 1.2, "speed_factor": 0.5,'
        ' "date": "2026-11-01"}}}'
    )
    plain = made("model: mistral-7b-v0.3\n", tmp_path)
    measured = made("model: mistral-7b-v0.3\n", tmp_path, machine_profile=profile)
    half = plain.throughput.tokens_per_second.value / measured.throughput.tokens_per_second.value
    assert half == pytest.approx(2, rel=0.3)
    assert any("2026-11-01" in n.text for n in measured.notices)


def test_saved_and_read_again_in_german(tmp_path):
    record = made("model: mistral-7b-v0.3\n", tmp_path)
    record.save(tmp_path)
    again = Plan.load(tmp_path / "plan.json")
    assert again == record
    assert "Passt" in again.margin.say("de")
    assert all("{" not in s.reason.say("de") for s in again.settings.values())


def test_before_anything_is_read_the_time_has_the_range_of_an_estimate(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("word " * 20_000)
    text = "model: mistral-7b-v0.3\ndocuments: {paths: [texts]}\n"
    alone = made(text, tmp_path)
    assert "estimated from the size of the files" in alone.time.hours.source
    assert alone.time.hours.high / alone.time.hours.value > 2
    (tmp_path / "task.jsonl").write_text('{"text": "word word", "label": "A"}\n' * 4_000)
    more = made(
        f"{text}evaluation: {{task: {{file: task.jsonl, kind: classification}}}}\n", tmp_path
    )
    assert more.time.hours.value > 1.5 * alone.time.hours.value
    without = made(
        f"{text}evaluation: {{task: {{file: task.jsonl, kind: classification}}}}\n"
        "training: {use_task: false}\n",
        tmp_path,
    )
    assert without.time.hours.value == alone.time.hours.value
