"""PDF text put back together: columns, hyphens, running heads, references; and real PDFs against JATS."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from hauslm.data.document import Document
from hauslm.data.reading import read_documents

from . import making

BODY = "The reservoir keeps the pressure steady while the player changes from one chord to the next one,"


def read(folder: Path, pages: list[list[tuple[float, float, float, str]]]) -> Document:
    (folder / "a.pdf").write_bytes(making.pdf(pages))
    documents, rejected = read_documents(["a.pdf"], folder)
    (document,) = list(documents)
    assert not rejected
    return document


def test_running_heads_and_page_numbers_go(tmp_path: Path) -> None:
    pages = [
        [
            (50, 30, 9, f"Journal of Organs {n}"),
            *making.column(50, 200, [f"{BODY} {n}."] * 20),
            (290, 815, 9, str(n)),
        ]
        for n in range(1, 6)
    ]
    document = read(tmp_path, pages)
    assert "Journal of Organs" not in document.text
    assert document.left_out["running heads and page numbers"] == 10
    assert document.text.count("The reservoir") == 100


def test_hyphens_join_words_but_stay_where_they_belong(tmp_path: Path) -> None:
    lines = [
        "The measurement of the windchest was repeated. A measure-",
        "ment with the long-term sensor of the mea-",
        "surement group gave Literatur-",
        "und Quellenangaben for the long-",
        "term record of the CD-",
        "ROM edition.",
    ]
    document = read(tmp_path, [making.column(50, 200, [*lines, *[f"{BODY} x."] * 9])])
    assert "A measurement with" in document.text and "the measurement group" in document.text
    assert "Literatur- und" in document.text
    assert "the long-term record" in document.text and "CD-ROM" in document.text


def test_two_columns_stay_in_reading_order(tmp_path: Path) -> None:
    left = [f"left column line {n} is about the bellows and its leather" for n in range(30)]
    right = [f"right column line {n} is about the pipes and their mouths" for n in range(30)]
    document = read(
        tmp_path, [[*making.column(40, 150, left, 8), *making.column(310, 150, right, 8)]]
    )
    order = re.findall(r"(left|right) column line (\d+)", document.text)
    assert order == [("left", str(n)) for n in range(30)] + [("right", str(n)) for n in range(30)]


def test_references_are_cut_off_with_a_notice_and_an_appendix_stays(tmp_path: Path) -> None:
    lines = [
        *[f"{BODY} n."] * 30,
        "References",
        *[f"{n}. Miller A. A title that nobody needs. 2001." for n in range(10)],
        "Appendix A",
        "The appendix stays in the text.",
    ]
    document = read(tmp_path, [making.column(50, 60, lines)])
    assert "nobody needs" not in document.text and "appendix stays" in document.text
    assert "reference list was cut off" in document.notices[0].text()


def test_title_headings_doi_and_licence(tmp_path: Path) -> None:
    page = [
        (50, 100, 18, "On the wind of small organs"),
        (50, 130, 10, "doi: 10.1234/abc.5"),
        (
            50,
            150,
            10,
            "This is licensed under the Creative Commons Attribution 4.0 License (CC BY 4.0).",
        ),
        (50, 200, 13, "1. Introduction"),
        *making.column(50, 220, [f"{BODY} n."] * 20),
        (50, 500, 13, "2. Methods"),
        *making.column(50, 520, [f"{BODY} m."] * 10),
    ]
    document = read(tmp_path, [page])
    assert document.title == "On the wind of small organs"
    assert document.doi == "10.1234/abc.5"
    assert document.licence_class == "open"
    assert [s.title for s in document.sections] == ["1. Introduction", "2. Methods"]
    for section in document.sections:
        assert document.text[section.start : section.end].startswith(section.title)


def test_pages_without_text_are_told(tmp_path: Path) -> None:
    document = read(tmp_path, [making.column(50, 100, [f"{BODY} n."] * 20), []])
    assert "1 of 2" in document.notices[0].text()


def similarity(left: str, right: str) -> tuple[float, float]:
    """Share of the characters of each text that stand in the other, in the same order (by words)."""
    a, b = (re.findall(r"\w+|[^\w\s]", t) for t in (left, right))
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    same = sum(len(w) for m in blocks for w in a[m.a : m.a + m.size])
    return same / sum(map(len, a)), same / sum(map(len, b))


@pytest.mark.parametrize("name", ["PMC4945999", "PMC4930629"])
def test_a_real_article_reads_like_its_xml(shared_data: Path, name: str) -> None:
    paths = [f"articles_pdf/{name}.pdf", f"articles_pdf/{name}.xml"]
    documents, rejected = read_documents(paths, shared_data)
    pdf, xml = sorted(documents, key=lambda d: d.format != "pdf")
    assert not rejected
    assert pdf.doi == xml.doi and pdf.licence_class in ("open", "unknown")
    # A printed page puts its tables elsewhere than the XML does: the running text is compared in its
    # order, the tables by their words.
    lines = xml.text.splitlines()
    running = "\n".join(line for line in lines if " | " not in line)
    precision, recall = similarity(pdf.text, running)
    assert recall > 0.95 and precision > 0.8
    words = re.findall(r"\w+", " ".join(line for line in lines if " | " in line))
    printed = set(re.findall(r"\w+", pdf.text))
    assert bool(words) == (name == "PMC4945999")  # the other one has no tables
    assert sum(w in printed for w in words) >= 0.9 * len(words)
