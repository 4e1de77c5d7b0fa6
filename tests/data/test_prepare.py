"""The whole way: documents and a task in, a store, records and honest warnings out."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base.errors import DataError, Interrupted
from hauslm.base.files import ProjectFolder, canonical_json
from hauslm.base.progress import Silent
from hauslm.data import build
from hauslm.data.document import Document, Section
from hauslm.data.prepare import prepare
from hauslm.data.shards import ShardWork
from hauslm.data.split import SPLITS
from hauslm.data.spool import Shard, SpoolWriter, placed_lines, read_shard, to_row
from hauslm.data.store import ExampleStore
from hauslm.data.task import Task, TaskItem, task_messages
from hauslm.data.tokens import Tokenizer
from hauslm.embedded import DOCUMENTS, MODEL, TASKS
from hauslm.records import Corpus
from hauslm.scenario import Scenario

WORDS = [f"word{i}" for i in range(2000)]


def text(seed: int, sentences: int = 40) -> str:
    generator = random.Random(seed)
    return " ".join(
        " ".join(generator.choice(WORDS) for _ in range(12)).capitalize() + "."
        for _ in range(sentences)
    )


def write(folder: Path, documents: dict[str, str]) -> ProjectFolder:
    for name, content in documents.items():
        path = folder / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return ProjectFolder(folder)


def run(folder: ProjectFolder, **sections: Any) -> Corpus:
    return prepare(Scenario.model_validate(sections), folder, progress=Silent())


def rows(folder: ProjectFolder, name: str) -> list[dict[str, Any]]:
    path = folder.work / "prepared" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProjectFolder, Corpus]:
    folder = ProjectFolder(tmp_path_factory.mktemp("project"))
    task = {"file": str(TASKS / "roles.jsonl")}
    return folder, run(folder, documents={"paths": [str(DOCUMENTS)]}, evaluation={"task": task})


def test_the_embedded_project(embedded: tuple[ProjectFolder, Corpus]) -> None:
    folder, corpus = embedded
    assert corpus.documents.read == 28 and corpus.documents.by_language == {"de": 11, "en": 17}
    assert corpus.truncated == 0 and corpus.overlap_13gram < 0.01
    assert {r.file.rsplit("/", 1)[-1] for r in corpus.documents.rejected} == {
        "README.md",
        "glossary.yaml",
    }
    for split in SPLITS:
        store = ExampleStore.open(folder.root / corpus.files[split])
        assert len(store) == getattr(corpus.examples, split) > 0
        assert store.tokens == getattr(corpus.tokens, split)
        assert store.lengths().max() <= 512 and store.label_counts().min() > 0
    assert sum(corpus.token_histogram.values()) == 28
    assert len(corpus.samples) == 3 and all(
        any(flag for _, flag in s.pieces) for s in corpus.samples
    )
    assert corpus.tokenizer_sha256 == Tokenizer(MODEL).sha256


def test_documents_and_task_share_their_split(embedded: tuple[ProjectFolder, Corpus]) -> None:
    folder, corpus = embedded
    documents = {d["id"]: d for d in rows(folder, "documents.jsonl")}
    items = [TaskItem.from_json(r) for r in rows(folder, "task.jsonl")]
    assert len(items) == 774
    assert all(documents[i.document]["split"] == i.split for i in items)
    assert {d["split"] for d in documents.values()} == set(SPLITS)
    wanted = {
        "id",
        "split",
        "title",
        "language",
        "licence_class",
        "doi",
        "sha256",
        "format",
        "characters",
        "text",
        "sections",
    }
    assert all(wanted <= set(d) for d in documents.values())
    task = Task.from_json(corpus.task)
    assert task_messages(task, items[0]) and corpus.task["items"]["test"] == sum(
        i.split == "test" for i in items
    )


def test_no_example_crosses_its_split(embedded: tuple[ProjectFolder, Corpus]) -> None:
    folder, _ = embedded
    split_of = {d["id"]: d["split"] for d in rows(folder, "documents.jsonl")}
    for split in SPLITS:
        store = ExampleStore.open(folder.work / "prepared" / split)
        assert {split_of[e.meta["document"]] for e in store} == {split}
        assert {e.meta["kind"] for e in store} == {"text", "task"}


def test_every_character_of_every_document_is_in_the_store(
    embedded: tuple[ProjectFolder, Corpus],
) -> None:
    folder, _ = embedded
    tokenizer = Tokenizer(MODEL)
    found: dict[str, list[int]] = {}
    for split in SPLITS:
        for example in ExampleStore.open(folder.work / "prepared" / split):
            if example.meta["kind"] == "text":
                found.setdefault(example.meta["document"], []).extend(
                    example.tokens[example.trained].tolist()
                )
    for document in rows(folder, "documents.jsonl"):
        ids = found[document["id"]]
        assert tokenizer.decode(ids, skip_special=True) == document["text"]


def test_it_is_a_function_of_its_inputs(
    embedded: tuple[ProjectFolder, Corpus], tmp_path: Path
) -> None:
    first, corpus = embedded
    second = ProjectFolder(tmp_path)
    again = run(
        second,
        documents={"paths": [str(DOCUMENTS)]},
        evaluation={"task": {"file": str(TASKS / "roles.jsonl")}},
    )
    assert again.fingerprint == corpus.fingerprint
    for path in (first.work / "prepared").iterdir():
        assert (second.work / "prepared" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (second.work / "prepared" / ".build").exists()


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    documents = {f"train/t{i}.txt": text(i) for i in range(30)}
    documents["test/copy-under-another-name.txt"] = documents["train/t3.txt"]
    documents["test/near.txt"] = (
        documents["train/t4.txt"].replace("word7 ", "word8 ", 1) + " One more sentence here."
    )
    folder = write(tmp_path, documents)
    corpus = run(folder)
    assert corpus.documents.read == 31
    assert [r.file for r in corpus.documents.rejected] == ["documents/train/t3.txt (t3)"]
    pairs = {frozenset(p) for p in corpus.duplicates}
    assert pairs == {frozenset({"copy-under-another-name", "t3"}), frozenset({"near", "t4"})}
    split = {d["id"]: d["split"] for d in rows(folder, "documents.jsonl")}
    assert split["near"] == split["t4"]
    assert any("Exact copies" in c.text for c in corpus.checks)


def test_a_task_text_inside_a_document_is_the_same_work(tmp_path: Path) -> None:
    documents = {f"d{i}.txt": text(i) for i in range(40)}
    folder = write(tmp_path, documents)
    train = [
        {"text": text(1000 + i, 5), "label": "AB"[i % 2], "document": f"train-{i}"}
        for i in range(20)
    ]
    test = [
        {"text": text(i, 40)[200:900], "label": "AB"[i % 2], "document": f"test-{i}"}
        for i in range(10)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, train)))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, test)))
    corpus = run(
        folder, evaluation={"task": {"train_file": "train.jsonl", "test_file": "test.jsonl"}}
    )
    split = {d["id"]: d["split"] for d in rows(folder, "documents.jsonl")}
    assert all(split[f"d{i}"] == "test" for i in range(10)), (
        "what the test asks about is not trained on"
    )
    assert corpus.task["items"]["test"] == 10 and corpus.overlap_13gram == 0.0


def test_conversations_and_gate(tmp_path: Path) -> None:
    lines = [
        {
            "id": f"c{i}",
            "messages": [
                {"role": "user", "content": text(i, 1)},
                {"role": "assistant", "content": text(i + 99, 1)},
            ],
        }
        for i in range(6)
    ] + [
        {"id": "open", "text": text(7), "licence": "CC-BY-4.0"},
        {"id": "nc", "text": text(8), "licence": "CC-BY-NC-4.0"},
    ]
    folder = write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, lines))})
    corpus = run(folder, documents={"licence_gate": "open_only"})
    assert corpus.documents.read == 1 and corpus.rights == {"open": 1}
    corpus = run(folder)
    kinds = [
        e.meta["kind"] for s in SPLITS for e in ExampleStore.open(folder.work / "prepared" / s)
    ]
    assert kinds.count("chat") == 6 and corpus.rights == {"nc": 1, "open": 1, "unknown": 6}
    corpus = run(
        folder, scenario={"data": {"copyright": "own"}}, documents={"licence_gate": "open_only"}
    )
    assert corpus.rights == {"open": 1, "own": 6}


def test_use_text_off_keeps_documents_for_evaluation(tmp_path: Path) -> None:
    folder = write(tmp_path, {f"d{i}.txt": text(i) for i in range(5)})
    corpus = run(folder, training={"use_text": False})
    assert corpus.examples.train == 0 and len(rows(folder, "documents.jsonl")) == 5
    assert any("use_text" in n.text for n in corpus.notices)


def test_max_documents_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, {f"d{i}.txt": text(i) for i in range(9)})
    corpus = run(folder, documents={"max_documents": 4})
    assert corpus.documents.read == 4 and any("max_documents" in n.text for n in corpus.notices)


def test_nothing_usable_is_an_error_with_the_reason(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.txt": "short"})
    with pytest.raises(DataError) as error:
        run(folder)
    assert error.value.code == "H302" and "minimum_characters" in error.value.text("en")
    with pytest.raises(DataError) as error:
        run(ProjectFolder(tmp_path / "elsewhere"))
    assert error.value.code == "H301"


def test_only_a_task_is_enough(tmp_path: Path) -> None:
    corpus = run(ProjectFolder(tmp_path), evaluation={"task": {"file": str(TASKS / "roles.jsonl")}})
    assert corpus.documents.read == 0 and corpus.examples.train > 0


def test_an_interrupted_run_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = {f"d{i}.txt": text(i) for i in range(12)}
    whole = write(tmp_path / "whole", documents)
    broken = write(tmp_path / "broken", documents)
    monkeypatch.setattr("hauslm.data.gather.SHARD_BYTES", 6000)  # several shards
    expected = run(whole)
    real, calls = build.examples_of_shard, []

    def stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(build, "examples_of_shard", stops)
    with pytest.raises(Interrupted) as stopped:
        run(broken)
    assert stopped.value.exit_code == 75
    assert (broken.work / "prepared" / ".build" / "shard-00001.done.json").is_file()
    left = [p.name for p in (broken.work / "prepared").iterdir()]
    assert left == [".build"], "nothing half-made beside it"
    monkeypatch.setattr(build, "examples_of_shard", real)
    progress = Silent()
    again = prepare(Scenario(), broken, progress=progress)
    assert "interrupted" in str(progress.sentences[0])
    assert again.fingerprint == expected.fingerprint
    for split in SPLITS:
        for suffix in (".tokens.bin", ".meta.jsonl"):
            name = f"{split}{suffix}"
            assert (broken.work / "prepared" / name).read_bytes() == (
                whole.work / "prepared" / name
            ).read_bytes()


def test_worker_processes_give_the_same_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = {f"d{i}.txt": text(i) for i in range(8)}
    monkeypatch.setattr("hauslm.data.gather.SHARD_BYTES", 12000)
    one, many = write(tmp_path / "one", documents), write(tmp_path / "many", documents)
    run(one)
    work = watched(monkeypatch)
    run(many)
    assert [w.quick for w in work] == [True]
    same_files(many, one)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[ShardWork]:
    """From here on processes pay; what works on the shards is put into the list."""
    monkeypatch.setattr("hauslm.data.workers.PARALLEL_ABOVE", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    made: list[ShardWork] = []

    class Watched(ShardWork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("hauslm.data.prepare.ShardWork", Watched)
    return made


def same_files(one: ProjectFolder, other: ProjectFolder) -> None:
    names = sorted(p.name for p in (other.work / "prepared").iterdir() if p.is_file())
    assert len(names) > 12
    for name in names:
        paths = [folder.work / "prepared" / name for folder in (one, other)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name


KITOKEN = """
import os
from tokenizers import Tokenizer

class Kitoken:
    @classmethod
    def from_tokenizers_file(cls, path):
        made = cls()
        made.library = Tokenizer.from_file(path)
        made.library.encode_special_tokens = True
        return made

    def encode(self, text, specials):
        ids = self.library.encode(text, add_special_tokens=False).ids
        %s
"""


def ends() -> None:
    os.abort()


def test_processes_that_end_by_themselves_are_an_error_with_a_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before kitoken has been asked, so that there is nothing to do otherwise."""
    folder = write(tmp_path, {"a.txt": text(1)})
    watched(monkeypatch)
    monkeypatch.setattr("hauslm.data.quick._TRIAL", "")
    monkeypatch.setattr(
        "hauslm.data.workers.Team.begin",
        lambda team, *_, **__: team._pool.submit(ends),
    )
    with pytest.raises(DataError) as error:
        run(folder)
    assert error.value.code == "H351" and "memory" in error.value.text("en")
    assert "Speicher" in error.value.text("de")


def test_where_kitoken_will_not_do_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = {f"d{i}.txt": text(i) for i in range(8)}
    plain, many = write(tmp_path / "plain", documents), write(tmp_path / "many", documents)
    run(plain)
    monkeypatch.setattr("hauslm.data.quick._TRIAL", "import there_is_no_such_module")
    told: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda _, sentence: told.append(sentence.text("en")))
    work = watched(monkeypatch)
    run(many)
    assert [w.quick for w in work] == [False]
    assert sum("kitoken does not do" in t for t in told) == 1
    same_files(many, plain)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("return ids[::-1]", "library differ on 'd"),
        ("os.abort()", "A process of the preparation ended"),
    ],
    ids=["other tokens", "a crash"],
)
def test_where_kitoken_fails_the_library_does_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    """In the processes that tokenize another kitoken is found than the one that passed the trial."""
    documents = {f"d{i}.txt": text(i) for i in range(8)}
    monkeypatch.setattr("hauslm.data.gather.SHARD_BYTES", 12000)
    plain, many = write(tmp_path / "plain", documents), write(tmp_path / "many", documents)
    wanted = run(plain)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kitoken.py").write_text(KITOKEN % end)
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    work = watched(monkeypatch)
    found = run(many)
    assert [w.quick for w in work] == [True, False]
    same_files(many, plain)
    notices = [n.text for n in found.notices]
    assert [n for n in notices if said in n] and len(notices) == len(wanted.notices) + 1
    assert not (many.work / "prepared" / ".build").exists()


def test_a_finished_shard_counts_only_for_its_own_documents(tmp_path: Path) -> None:
    """Reading again may give other documents: a PDF that took too long the first time."""
    job = build.Job(tmp_path / "spool.jsonl", tmp_path, MODEL, 512, use_text=True)

    def spooled(seed: int) -> Shard:
        writer = SpoolWriter(job.spool, 1 << 20)
        body = text(seed)
        writer.append(Document(f"d{seed}", f"d{seed}", body, format="text").with_hash())
        return writer.close()[0]

    first = build.examples_of_shard(job, spooled(1))
    made = (tmp_path / "shard-00000.tokens.bin").stat()
    assert build.examples_of_shard(job, spooled(1)) == first
    assert (tmp_path / "shard-00000.tokens.bin").stat().st_ino == made.st_ino, "not made again"
    other = build.examples_of_shard(job, spooled(2))
    assert other["digest"] != first["digest"]
    assert ExampleStore.open(tmp_path / "shard-00000").meta(0)["document"] == "d2"
    (tmp_path / "shard-00000.tokens.bin").write_bytes(b"")  # a disk that forgets
    assert build.examples_of_shard(job, spooled(2)) == other
    assert ExampleStore.open(tmp_path / "shard-00000").tokens > 0


@given(
    st.text(st.characters(codec="utf-8"), max_size=60).map(lambda t: t + ',"text":"' + t),
    st.sampled_from(["train", 'a"b', "}"]),
)
@settings(max_examples=60, deadline=None)
def test_documents_are_placed_without_taking_their_rows_apart(
    tmp_path_factory: pytest.TempPathFactory, odd: str, work: str
) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool.jsonl"
    documents = [
        Document(odd, odd, odd, licence=odd, source_file=odd, doi=odd, sections=(Section(odd, 0, 1),)),
        Document("b", "", odd, messages=({"role": "user", "content": odd},)),
        Document("c", odd, "c", metadata={"authors": [odd, "B"], "invisible_text": 3}),
    ]  # fmt: skip
    writer = SpoolWriter(path, 1 << 20)
    for document in documents:
        writer.append(document)
    (shard,) = writer.close()
    found = list(placed_lines(path, shard, [("test", work)] * 3))
    assert found == [
        canonical_json(to_row(one) | {"split": "test", "work": work}) + b"\n"
        for one in read_shard(path, shard)
    ]


def test_growing_the_corpus_keeps_documents_where_they_were(tmp_path: Path) -> None:
    folder = write(tmp_path, {f"d{i}.txt": text(i) for i in range(30)})
    run(folder)
    before = {d["id"]: d["split"] for d in rows(folder, "documents.jsonl")}
    write(tmp_path, {f"e{i}.txt": text(100 + i) for i in range(20)})
    run(folder)
    after = {d["id"]: d["split"] for d in rows(folder, "documents.jsonl")}
    moved = [k for k in before if before[k] != after[k]]
    assert len(moved) <= 1, "at most a work that was lent goes home"


def test_checks_speak_of_data_and_of_labels(tmp_path: Path) -> None:
    documents = {
        f"d{i}.txt": text(i) + " Write to ada@example.org or +49 30 1234567." for i in range(4)
    }
    folder = write(tmp_path, documents)
    items = [{"text": text(50 + i, 1), "label": "A", "document": f"x{i}"} for i in range(20)]
    items.append({"text": text(99, 1), "label": "B", "document": "x99"})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, items)))
    corpus = run(
        folder,
        evaluation={"task": {"file": "t.jsonl"}},
        scenario={"workload": {"languages": ["de"]}},
    )
    said = " ".join(c.text for c in corpus.checks)
    for expected in (
        "documents is 4",
        "personal data",
        "e-mail addresses: 4",
        "without a licence",
        "Some labels have fewer",
        "misle",
        "language",
    ):
        assert expected in said, expected
    assert np.array([c.say("de") != "" for c in corpus.checks]).all()
