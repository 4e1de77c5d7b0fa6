"""Does the whole stage say the right thing: of a gain, of none, of shuffled labels, of leaks?"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hauslm.base.errors import DataError
from hauslm.evaluate.run import evaluate
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import Request
from hauslm.records import Evaluation
from hauslm.scenario import Scenario, parse

from .conftest import Belief, Knowing, Prepared, indifferent

LABELS = ("FRUIT", "TOOL", "RIVER")
WORDS = {
    "FRUIT": "apple pear plum cherry quince medlar",
    "TOOL": "hammer chisel plane saw rasp gimlet",
    "RIVER": "Danube Isar Lech Inn Iller Naab",
}


def scenario(text: str = "") -> Scenario:
    return parse(text or "name: test\n")


def labelled(prepared: Prepared, *, shuffled: bool = False, documents: int = 30) -> None:
    """Ten items per document, a third of the documents for the test; FRUIT is the most frequent."""
    draw = random.Random(4)
    prepared.labels = LABELS
    rows = []
    for d in range(documents):
        split = "test" if d % 3 == 0 else "train"
        for n in range(10):
            label = draw.choice(("FRUIT", "FRUIT", "TOOL", "RIVER"))
            word = draw.choice(WORDS[label].split())
            rows.append((f"d{d}-{n}", f"d{d}", f"number {n} of {d} is a {word}", label, split))
    labels = [r[3] for r in rows]
    if shuffled:
        draw.shuffle(labels)
    for (id_, document, text, _, split), label in zip(rows, labels, strict=True):
        prepared.item(id_, document, text, label, split)


def told(prompt: str) -> str:
    """The label that the last word of the prompt belongs to; '' for other text."""
    word = (prompt.rstrip().removesuffix("<assistant>").split() or [""])[-1]
    return next((label for label, words in WORDS.items() if word in words.split()), "")


def learned(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    """The adapter knows the label of nine words in ten; the base always says RIVER."""
    known = told(prompt) if adapter == "adapter" and hash_of(prompt) % 10 else "RIVER"
    return (0.01 if continuation.strip() == known else 1.0), False


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def only_frequent(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    """What is left to learn where labels are shuffled: the most frequent one."""
    wanted = "FRUIT" if adapter == "adapter" else "RIVER"
    return (0.01 if continuation.strip() == wanted else 1.0), False


def judged(prepared: Prepared, belief: Belief, text: str = "", **more: Any) -> Evaluation:
    corpus, run = prepared.write()
    return evaluate(
        scenario(text), prepared.folder, corpus=corpus, run=run, model=Knowing(belief), **more
    )


def notices(result: Evaluation) -> str:
    return " ".join(n.say("en") for n in result.notices)


def metrics(result: Evaluation, system: str) -> dict[str, float | None]:
    return next(s.metrics for s in result.systems if s.name == system)


def test_a_real_gain_is_found_and_shown(prepared: Prepared) -> None:
    labelled(prepared)
    result = judged(prepared, learned)
    assert result.verdict == "better"
    assert result.n == 100 and result.documents == 10
    accuracy = next(d for d in result.differences if d.metric == "accuracy" and d.against == "base")
    assert accuracy.low > 0 and accuracy.p < 0.05 and accuracy.value > accuracy.detectable
    assert accuracy.p_holm is not None and accuracy.p_holm >= accuracy.p
    assert {s.name for s in result.systems} == {"base", "adapter", "majority", "tfidf_logistic"}
    assert len(result.examples) == 10
    assert all(e["base"] != e["adapter"] for e in result.examples)
    mine, theirs = metrics(result, "adapter"), metrics(result, "tfidf_logistic")
    assert (mine["accuracy"] or 0) < (theirs["accuracy"] or 0)  # the words say it all
    assert "does not beat TF-IDF" in notices(result)
    assert mine["calibration_error"] is not None and theirs.get("calibration_error") is None


def test_shuffled_labels_are_no_evidence(prepared: Prepared) -> None:
    """The adapter is far above a base that always errs, but knows no more than the frequencies."""
    labelled(prepared, shuffled=True, documents=90)
    result = judged(prepared, only_frequent)
    accuracy = next(d for d in result.differences if d.metric == "accuracy" and d.against == "base")
    assert accuracy.low > 0  # base and adapter do differ
    assert result.verdict == "no_evidence"
    assert "most frequent label" in result.verdict_text.say("en")


def test_the_same_model_twice_is_no_evidence_and_said(prepared: Prepared) -> None:
    labelled(prepared)
    prepared.document("t1", "Some held-out text of a few words.", "test")
    result = judged(prepared, indifferent)
    assert result.verdict == "no_evidence"
    assert "changes nothing" in notices(result)
    assert result.examples == ()


def test_losing_what_the_base_knew_is_worse(prepared: Prepared) -> None:
    labelled(prepared)
    result = judged(
        prepared, lambda p, c, a: learned(p, c, "base" if a == "adapter" else "adapter")
    )
    assert result.verdict == "worse"


def text_of(number: int, words: int = 400) -> str:
    """Words without repetition: nothing in it is shared with another document."""
    return " ".join(f"w{number}x{n}" for n in range(words))


def held_out(prepared: Prepared, train: int = 12, test: int = 8) -> None:
    for n in range(train):
        prepared.document(f"train-{n}", text_of(n), "train")
    for n in range(test):
        prepared.document(f"test-{n}", text_of(100 + n), "test")


def fluent(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    """The adapter needs a quarter less for everything, a little differently from text to text."""
    return (0.75 if adapter == "adapter" else 1.0) + 0.01 * (len(continuation) % 7), False


def test_without_a_task_bits_per_byte_decide(prepared: Prepared) -> None:
    held_out(prepared)
    result = judged(prepared, fluent)
    assert result.verdict == "better"
    row = next(d for d in result.differences if d.metric == "bits_per_byte")
    assert row.value < 0 and not row.higher_is_better
    base = metrics(result, "base")["bits_per_byte"]
    assert base == pytest.approx(1.0 / 0.6931, abs=0.1)
    assert result.forgetting["difference_en"] < 0 and result.forgetting["difference_de"] < 0
    assert all(e["base"] != e["adapter"] for e in result.examples)


def test_forgetting_is_told(prepared: Prepared) -> None:
    held_out(prepared)
    result = judged(
        prepared,
        lambda p, c, a: (fluent(p, c, a)[0] + (0.6 if a != "base" and "w1" not in c else 0), False),
    )
    assert result.verdict == "better"
    assert "Forgetting: general text (German)" in notices(result)


def test_a_planted_leak_shows_and_stops_a_good_verdict(prepared: Prepared) -> None:
    """Test documents are training documents under other names; only on them is there a gain."""
    held_out(prepared)
    for document in prepared.documents:
        if document["split"] == "test" and document["id"] != "test-7":
            document["text"] = text_of(int(document["id"].split("-")[1]))
    result = judged(prepared, fluent)
    assert "stands in 7 of 8 test documents (at least 20% of" in notices(result)
    assert set(result.task["shared_wording"]) == {f"test-{n}" for n in range(7)}
    assert result.verdict == "no_evidence"
    assert "wording also stands in the training text" in result.verdict_text.say("en")


def test_a_leak_in_the_task_is_found_too(prepared: Prepared) -> None:
    labelled(prepared)
    for item in [i for i in prepared.items if i["document"] == "d0"]:
        prepared.item(f"copy-{item['id']}", "another", item["text"], item["label"], "train")
    assert "stands in 1 of 10 test documents" in notices(judged(prepared, learned))


def test_interrupted_and_resumed_gives_the_same_record(prepared: Prepared) -> None:
    labelled(prepared)
    held_out(prepared, 3, 3)
    whole = judged(prepared, learned_and_fluent)
    journal = prepared.folder.work / "evaluate" / "items.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    # A kill in the middle of a write: half of the rows, the last one torn.
    journal.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:40])
    model = Knowing(learned_and_fluent)
    corpus, run = prepared.write()
    again = evaluate(scenario(), prepared.folder, corpus=corpus, run=run, model=model)
    assert model.scored > 0
    left_out = {"created", "task", "systems"}
    assert again.model_dump(exclude=left_out) == whole.model_dump(exclude=left_out)
    for first, second in zip(whole.systems, again.systems, strict=True):
        assert first.metrics == second.metrics and first.tokens == second.tokens
    third = Knowing(learned_and_fluent)
    evaluate(scenario(), prepared.folder, corpus=corpus, run=run, model=third)
    assert third.scored == 0


def learned_and_fluent(prompt: str, continuation: str, adapter: str) -> tuple[float, bool]:
    if continuation.strip() in LABELS:
        return learned(prompt, continuation, adapter)
    return fluent(prompt, continuation, adapter)


def test_another_adapter_is_measured_anew_and_the_base_is_not(prepared: Prepared) -> None:
    labelled(prepared)
    corpus, run = prepared.write()
    first = Knowing(learned)
    evaluate(scenario(), prepared.folder, corpus=corpus, run=run, model=first)
    other = run.model_copy(update={"adapter": run.adapter.model_copy(update={"sha256": "1" * 64})})
    second = Knowing(learned)
    evaluate(scenario(), prepared.folder, corpus=corpus, run=other, model=second)
    assert 0 < second.scored < first.scored


def test_texts_of_documents_do_not_enter_the_journal(prepared: Prepared) -> None:
    held_out(prepared)
    labelled(prepared)
    judged(prepared, learned_and_fluent)
    kept = (prepared.folder.work / "evaluate" / "items.jsonl").read_text(encoding="utf-8")
    assert "w100x5" not in kept and "is a apple" not in kept
    assert {json.loads(row)["part"] for row in kept.splitlines()} >= {
        "task",
        "language",
        "memorisation",
    }


def test_a_larger_test_set_is_sampled_by_document_and_said(prepared: Prepared) -> None:
    labelled(prepared)
    result = judged(prepared, learned, "evaluation:\n  max_items: 35\n")
    assert result.n == 30 and result.documents == 3
    assert "30 of 100 test items are used" in notices(result)
    assert result.verdict == "no_evidence"
    assert "too few" in result.verdict_text.say("en")


def test_nothing_held_out_is_an_error_with_a_next_step(prepared: Prepared) -> None:
    prepared.document("a", "text", "train")
    with pytest.raises(DataError) as caught:
        judged(prepared, indifferent)
    assert caught.value.code == "H663" and "test_share" in caught.value.text("en")


def test_switched_off_parts_are_marked_so(prepared: Prepared) -> None:
    held_out(prepared, 2, 2)
    text = "evaluation:\n  forgetting: false\n  memorisation: false\n"
    result = judged(prepared, fluent, text)
    assert result.forgetting == {"measured": False} == result.memorisation


def test_a_cloud_model_answers_the_same_items_in_words(prepared: Prepared) -> None:
    """Then everybody does: base and adapter are judged by what they say, as the cloud is."""
    labelled(prepared)
    corpus, run = prepared.write()
    seen: list[Request] = []

    def right(request: Request) -> str:
        seen.append(request)
        return f"{told(request.messages[-1].content)}."

    local = Knowing(learned, answer=lambda r: "TOOL" if r.adapter == "adapter" else "no idea")
    result = evaluate(
        scenario(),
        prepared.folder,
        corpus=corpus,
        run=run,
        model=local,
        cloud=EchoModel(answer=right),
    )
    assert len(seen) == 100
    assert metrics(result, "cloud")["accuracy"] == 1
    assert metrics(result, "base")["accuracy"] == 0
    assert "100 of 100 answers (Base) name no label" in notices(result)
    assert any(d.against == "cloud" and d.value < 0 for d in result.differences)
    assert result.task["method"] == "generation"


def test_extraction_is_scored_by_entities(prepared: Prepared) -> None:
    prepared.kind = "extraction"
    prepared.labels = ("SPECIES",)
    gold = [{"text": "mice", "type": "SPECIES"}]
    for d in range(12):
        split = "test" if d < 8 else "train"
        prepared.item(f"i{d}", f"d{d}", f"Sentence {d} is about mice.", gold, split)
    corpus, run = prepared.write()
    model = Knowing(
        indifferent, answer=lambda r: json.dumps(gold) if r.adapter == "adapter" else "mice"
    )
    result = evaluate(scenario(), prepared.folder, corpus=corpus, run=run, model=model)
    assert metrics(result, "adapter")["entity_f1"] == 1
    assert metrics(result, "base")["json_valid"] == 0
    assert metrics(result, "dictionary")["entity_f1"] == 1
    assert result.verdict == "better"
    assert "does not beat the dictionary" in notices(result)


def test_the_record_goes_to_disk_and_back(prepared: Prepared, tmp_path: Path) -> None:
    labelled(prepared)
    result = judged(prepared, learned)
    result.save(tmp_path)
    assert Evaluation.load(tmp_path / "evaluation.json") == result


def test_versions_of_one_work_count_once(prepared: Prepared) -> None:
    for number in range(8):
        for version in ("pdf", "xml"):
            prepared.document(f"{version}{number}", f"A text about organ {number}. " * 20, "test")
            prepared.documents[-1]["work"] = f"doi:10.1/{number}"
    found = judged(prepared, fluent)
    assert (found.n, found.documents) == (16, 8)
    bits = next(d for d in found.differences if d.metric == "bits_per_byte")
    assert bits.documents == 8
    assert "count as 8 works" in notices(found)


def test_a_glossary_with_a_mistake_stops_before_anything_is_measured(prepared: Prepared) -> None:
    held_out(prepared)
    with pytest.raises(DataError) as caught:
        judged(prepared, fluent, "name: test\nevaluation:\n  glossary: none.yaml\n")
    assert caught.value.code == "H345"
    assert not (prepared.folder.work / "evaluate" / "items.jsonl").exists()


def test_a_metric_of_one_document_is_told_and_one_label_leaves_no_tfidf(prepared: Prepared) -> None:
    labelled(prepared)
    for item in prepared.items:
        item["label"] = "FRUIT" if item["split"] == "train" else item["label"]
    prepared.document("d", "The windchest leaks. " * 40, "test")
    prepared.folder.root.mkdir(parents=True, exist_ok=True)
    (prepared.folder.root / "g.yaml").write_text("[windchest]\n", encoding="utf-8")
    result = judged(prepared, learned, "name: test\nevaluation:\n  glossary: g.yaml\n")
    told = notices(result)
    assert "TF-IDF with logistic regression could not be fitted" in told
    assert "in one document only" in told and "bits per byte of the terms" in told
    assert not any(d.metric == "term_bits_per_byte" for d in result.differences)
