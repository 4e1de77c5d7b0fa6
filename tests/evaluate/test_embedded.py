"""The whole stage on the embedded model with a real (random) adapter: no stand-in anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hauslm import embedded
from hauslm.base.errors import RefusedError
from hauslm.base.files import sha256_file
from hauslm.base.words import speaking
from hauslm.data.task import Task, TaskItem, task_messages
from hauslm.evaluate.run import evaluate
from hauslm.lm.interface import Message
from hauslm.records import Corpus, Evaluation, Run

from .conftest import Prepared, run_of
from .test_run import scenario

pytestmark = pytest.mark.skipif(
    not (embedded.MODEL / "config.json").is_file(),
    reason="the embedded model is not in the package",
)

PROJECT = """
name: test
evaluation:
  max_items: 12
  glossary: glossary.yaml
  canaries: ["The code of the vault is 7391-XK42."]
"""


def save_adapter(folder: Path, size: float) -> str:
    """A LoRA adapter whose effect is `size`; returns its sha256."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(embedded.MODEL, dtype=torch.float32),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, size)
    model.save_pretrained(folder)
    return sha256_file(folder / "adapter_model.safetensors")


def project(root: Path, size: float) -> tuple[Prepared, Corpus, Run]:
    """Three held-out and three training documents of the samples, two test items of each."""
    made = Prepared(root)
    rows = map(
        json.loads, (embedded.TASKS / "roles.jsonl").read_text(encoding="utf-8").splitlines()
    )
    names = sorted(embedded.DOCUMENTS.glob("en-0*.md"))[:6]
    split = {p.stem: "test" if n % 2 else "train" for n, p in enumerate(names)}
    made.labels = ("BACKGROUND", "CONCLUSIONS", "METHODS", "OBJECTIVE", "RESULTS")
    for path in names:
        made.document(path.stem, path.read_text(encoding="utf-8")[:1500], split[path.stem])
    for row in rows:
        if row["document"] in split and row["id"].endswith(("s02", "s10", "s17", "s20")):
            made.item(row["id"], row["document"], row["text"], row["label"], split[row["document"]])
    made.folder.root.mkdir(parents=True)
    (made.folder.root / "glossary.yaml").write_bytes(
        (embedded.DOCUMENTS / "glossary.yaml").read_bytes()
    )
    corpus, _ = made.write()
    return made, corpus, run_of(save_adapter(made.folder.adapter, size))


def bits_of(text: str) -> float:
    """Straight from transformers: bits of a text after the begin token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded.MODEL)
    model = AutoModelForCausalLM.from_pretrained(embedded.MODEL, dtype=torch.float32)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1) / math.log(2)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Corpus, Run, Evaluation]:
    made, corpus, run = project(tmp_path_factory.mktemp("embedded") / "project", 0.3)
    with speaking("en"):
        result = evaluate(scenario(PROJECT), made.folder, corpus=corpus, run=run)
    return made, corpus, run, result


def metrics(result: Evaluation, system: str) -> dict[str, Any]:
    return next(s.metrics for s in result.systems if s.name == system)


def test_figures_are_those_of_the_model(
    evaluated: tuple[Prepared, Corpus, Run, Evaluation],
) -> None:
    made, _, _, result = evaluated
    texts = [d["text"] for d in made.documents if d["split"] == "test"]
    expected = sum(map(bits_of, texts)) / sum(len(t.encode()) for t in texts)
    assert metrics(result, "base")["bits_per_byte"] == pytest.approx(expected, rel=1e-3)
    assert metrics(result, "adapter")["bits_per_byte"] != pytest.approx(expected, rel=1e-5)
    assert result.forgetting["kl_nats_per_token"] > 0
    assert result.memorisation["spans"] > 0 and result.memorisation["canaries"]
    assert result.verdict == "no_evidence"  # three documents can show nothing
    assert metrics(result, "base")["terminology"] is not None
    for system in result.systems[:2]:
        assert system.tokens > 1000 and system.seconds > 0


def test_the_same_again_is_read_from_the_journal(
    evaluated: tuple[Prepared, Corpus, Run, Evaluation],
) -> None:
    made, corpus, run, result = evaluated
    again = evaluate(scenario(PROJECT), made.folder, corpus=corpus, run=run)
    kept = {"created", "task", "systems"}
    assert again.model_dump(exclude=kept) == result.model_dump(exclude=kept)
    assert [s.metrics for s in again.systems[:2]] == [s.metrics for s in result.systems[:2]]


def test_an_exchanged_adapter_is_refused(
    evaluated: tuple[Prepared, Corpus, Run, Evaluation],
) -> None:
    made, corpus, run, _ = evaluated
    other = run.model_copy(update={"adapter": run.adapter.model_copy(update={"sha256": "1" * 64})})
    with pytest.raises(RefusedError) as caught:
        evaluate(scenario(PROJECT), made.folder, corpus=corpus, run=other)
    assert caught.value.code == "H660"
    moved = run.model_copy(update={"base": {"sha256": "2" * 64}})
    with pytest.raises(RefusedError) as caught:
        evaluate(scenario(PROJECT), made.folder, corpus=corpus, run=moved)
    assert "trained on" in caught.value.text("en")


def test_the_prompt_is_the_one_of_training() -> None:
    """What evaluation scores is token by token what `prepare` writes for training."""
    from hauslm.data.examples import task_examples
    from hauslm.data.tokens import Tokenizer
    from hauslm.evaluate.task import continuations, messages_of
    from hauslm.lm.local import LocalModel

    task = Task(labels=("METHODS", "RESULTS"), sequence=True)
    item = TaskItem(
        "i", "d", "Leather was heated.", "METHODS", 0.25, "train", "en", {"before": "B."}
    )
    tokenizer = Tokenizer(embedded.MODEL)
    (example,) = task_examples(task, [item], tokenizer, 512)
    model = LocalModel.load(embedded.MODEL)
    messages = messages_of(task, item)
    assert [m.content for m in messages] == [m["content"] for m in task_messages(task, item)]
    asked = model.render([Message(m.role, m.content) for m in messages])
    scored = asked + continuations(model, messages, task.labels)[0]
    trained = tokenizer.decode(example.tokens, skip_special=False)
    assert trained.startswith(scored)
    assert tokenizer.encode_rendered(scored) == example.tokens[:-1].tolist()
