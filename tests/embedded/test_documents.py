"""Checks of the sample articles, their glossary and the sentence-role task."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from defusedxml import ElementTree

EMBEDDED = Path(__file__).resolve().parents[2] / "src" / "hauslm" / "embedded"
DOCUMENTS = EMBEDDED / "documents"
TASKS = EMBEDDED / "tasks"
LABELS = {"BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS"}
SECTIONS = {
    "en": ["Abstract", "Background", "Methods", "Results", "Conclusions"],
    "de": ["Zusammenfassung", "Hintergrund", "Methoden", "Ergebnisse", "Schlussfolgerungen"],
}
FRONT_MATTER = {"id", "title", "language", "year", "licence", "authors", "note"}
ARTICLES = sorted(
    p for p in DOCUMENTS.iterdir() if p.suffix in {".md", ".txt", ".xml"} and p.stem != "README"
)
MARKDOWN = [p for p in ARTICLES if p.suffix == ".md"]


def language(path: Path) -> str:
    return path.name[:2]


def front_matter(path: Path) -> tuple[dict[str, Any], str]:
    opening, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(head), body


def running_text(path: Path) -> str:
    """The article's title, headings and paragraphs, without metadata."""
    if path.suffix == ".md":
        return front_matter(path)[1]
    if path.suffix == ".txt":
        parts = path.read_text(encoding="utf-8").split("\n\n")
        return "\n\n".join([parts[0], *parts[2:]])
    root = ElementTree.parse(path).getroot()
    wanted = [*root.iter("article-title"), *root.iter("title"), *root.iter("p")]
    return "\n\n".join("".join(element.itertext()) for element in wanted)


def contains(text: str, form: str) -> bool:
    first = f"[{form[0]}{form[0].upper()}]"
    return bool(re.search(rf"(?<![\w-]){first}{re.escape(form[1:])}(?![\w-])", text))


TEXTS = {p.stem: running_text(p) for p in ARTICLES}
ITEMS: list[dict[str, Any]] = [
    json.loads(line) for line in (TASKS / "roles.jsonl").read_text(encoding="utf-8").splitlines()
]
TERMS: list[dict[str, Any]] = yaml.safe_load(
    (DOCUMENTS / "glossary.yaml").read_text(encoding="utf-8")
)["terms"]


def test_counts() -> None:
    assert len(MARKDOWN) >= 26
    assert Counter(language(p) for p in ARTICLES) == {"en": 17, "de": 11}
    assert [p.suffix for p in ARTICLES if p.suffix != ".md"] == [".txt", ".xml"]
    assert len(TEXTS) == len(ARTICLES)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda p: p.stem)
def test_front_matter_and_sections(path: Path) -> None:
    meta, body = front_matter(path)
    assert set(meta) == FRONT_MATTER
    assert meta["id"] == path.stem
    assert meta["language"] == language(path)
    assert type(meta["year"]) is int and 2000 <= meta["year"] <= 2030
    assert meta["licence"] == "Apache-2.0"
    assert meta["authors"] == ["hauslm sample writers"]
    assert re.search("[Ii]nvented|erfunden", meta["note"])
    assert re.findall(r"^# (.+)$", body, re.M) == [meta["title"]]
    assert re.findall(r"^## (.+)$", body, re.M) == SECTIONS[meta["language"]]


def test_jats_article() -> None:
    (path,) = (p for p in ARTICLES if p.suffix == ".xml")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "article"
    assert root.get("{http://www.w3.org/XML/1998/namespace}lang") == language(path)
    assert root.findtext("front/article-meta/article-id") == path.stem
    assert root.find("front/article-meta/abstract/p") is not None
    titles = [element.text for element in root.findall("body/sec/title")]
    assert titles == SECTIONS[language(path)][1:]
    assert "Apache-2.0" in (root.findtext(".//license-p") or "")


def test_plain_text_article() -> None:
    (path,) = (p for p in ARTICLES if p.suffix == ".txt")
    text = path.read_text(encoding="utf-8")
    assert "Apache-2.0" in text.split("\n\n")[1]
    assert [p for p in text.split("\n\n") if p in SECTIONS["de"]] == SECTIONS["de"]


@pytest.mark.parametrize("path", ARTICLES, ids=lambda p: p.stem)
def test_length(path: Path) -> None:
    assert 350 <= len(TEXTS[path.stem].split()) <= 900


def test_readme_says_the_articles_are_invented() -> None:
    text = (DOCUMENTS / "README.md").read_text(encoding="utf-8")
    assert "These articles are invented" in text
    assert all(f"`{path.name}`" in text for path in ARTICLES)


def test_no_near_duplicates() -> None:
    shingles = {}
    for stem, text in TEXTS.items():
        words = re.findall(r"\w+", text.lower())
        shingles[stem] = set(zip(words, words[1:], words[2:], strict=False))
    for a, b in combinations(shingles, 2):
        jaccard = len(shingles[a] & shingles[b]) / len(shingles[a] | shingles[b])
        assert jaccard < 0.5, (a, b, jaccard)


def test_task_fields() -> None:
    assert len(ITEMS) >= 400
    assert len({item["id"] for item in ITEMS}) == len(ITEMS)
    for item in ITEMS:
        assert set(item) == {"id", "document", "language", "position", "text", "label"}
        assert item["document"] in TEXTS
        assert item["language"] == item["document"][:2]
        assert 0.0 <= item["position"] <= 1.0
        assert item["label"] in LABELS


def test_task_sentences_are_verbatim() -> None:
    raw = {p.stem: p.read_text(encoding="utf-8") for p in ARTICLES}
    for item in ITEMS:
        assert "\n" not in item["text"]
        assert item["text"] in raw[item["document"]], item["id"]
        assert item["text"] in TEXTS[item["document"]], item["id"]


def test_task_order_follows_the_article() -> None:
    for stem, text in TEXTS.items():
        items = [item for item in ITEMS if item["document"] == stem]
        offsets = [text.index(item["text"]) for item in items]
        assert offsets == sorted(offsets), stem
        positions = [item["position"] for item in items]
        assert positions == sorted(set(positions)), stem
        assert (positions[0], positions[-1]) == (0.0, 1.0)


def test_task_covers_every_article_and_label() -> None:
    per_document = Counter(item["document"] for item in ITEMS)
    assert set(per_document) == set(TEXTS)
    assert min(per_document.values()) >= 12
    for code in ("en", "de"):
        assert {item["label"] for item in ITEMS if item["language"] == code} == LABELS
    for stem in TEXTS:
        assert {item["label"] for item in ITEMS if item["document"] == stem} == LABELS


def test_task_sentences_are_unique() -> None:
    assert len({item["text"] for item in ITEMS}) == len(ITEMS)


def test_task_readme_counts() -> None:
    readme = (TASKS / "README.md").read_text(encoding="utf-8")
    count = Counter((item["language"], item["label"]) for item in ITEMS)
    for label in LABELS:
        en, de = count["en", label], count["de", label]
        assert f"| `{label}` | {en} | {de} | {en + de} |" in readme


def test_task_readme_baseline() -> None:
    """The text-and-position baseline reproduces the stated macro F1."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    fold = {stem: number % 5 for number, stem in enumerate(sorted(TEXTS))}
    truth: list[str] = []
    predicted: list[str] = []
    for held_out in range(5):
        train = [item for item in ITEMS if fold[item["document"]] != held_out]
        test = [item for item in ITEMS if fold[item["document"]] == held_out]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        vectorizer.fit([item["text"] for item in train])

        def features(items: list[dict[str, Any]], fitted: TfidfVectorizer = vectorizer) -> Any:
            tenths = [min(int(item["position"] * 10), 9) for item in items]
            indicator = csr_matrix([[float(t == k) for k in range(10)] for t in tenths])
            return hstack([fitted.transform([i["text"] for i in items]), indicator]).tocsr()

        model = LogisticRegression(C=10, class_weight="balanced", max_iter=5000)
        model.fit(features(train), [item["label"] for item in train])
        predicted += list(model.predict(features(test)))
        truth += [item["label"] for item in test]
    readme = (TASKS / "README.md").read_text(encoding="utf-8")
    stated = re.search(
        r"^\| TF-IDF and position \+ logistic regression \| [\d.]+ \| ([\d.]+)", readme, re.M
    )
    assert stated is not None
    score = f1_score(truth, predicted, average="macro")
    assert score == pytest.approx(float(stated.group(1)), abs=0.02)


def test_glossary_structure() -> None:
    assert 15 <= len(TERMS) <= 30
    assert len({term["id"] for term in TERMS}) == len(TERMS)
    for code in ("en", "de"):
        allowed: list[str] = []
        forbidden: list[str] = []
        for term in TERMS:
            entry = term[code]
            assert set(entry) == {"canonical", "variants", "forbidden", "definition"}
            assert entry["definition"].endswith(".")
            allowed += [entry["canonical"], *entry["variants"]]
            forbidden += entry["forbidden"]
        assert len(set(allowed)) == len(allowed)
        assert not set(allowed) & set(forbidden)


@pytest.mark.parametrize("code", ["en", "de"])
@pytest.mark.parametrize("term", TERMS, ids=lambda t: t["id"])
def test_glossary_term_occurs_in_two_articles(term: dict[str, Any], code: str) -> None:
    forms = [term[code]["canonical"], *term[code]["variants"]]
    hits = [
        stem
        for stem, text in TEXTS.items()
        if stem[:2] == code and any(contains(text, form) for form in forms)
    ]
    assert len(hits) >= 2, hits


@pytest.mark.parametrize("code", ["en", "de"])
def test_forbidden_forms_do_not_occur(code: str) -> None:
    for term in TERMS:
        for form in term[code]["forbidden"]:
            pattern = re.compile(rf"(?<![\w-]){re.escape(form)}(?![\w-])")
            found = [s for s, text in TEXTS.items() if s[:2] == code and pattern.search(text)]
            assert not found, (form, found)
