"""Works stay where they are, versions of a work stay together, no split is empty without need."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.data.split import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    Assignment,
    Member,
    assign,
    counts,
    home,
    position,
)


def run(
    members: list[Member], similar: list[tuple[str, str]] | None = None, **kwargs: float
) -> Assignment:
    shares = {"validation_share": 0.1, "test_share": 0.15} | kwargs
    return assign(members, similar or [], salt="s", **shares)


def members(count: int) -> list[Member]:
    return [Member(f"d{i}", sha256=f"{i:064x}") for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 60), st.integers(1, 40))
def test_growing_never_moves_a_work_except_one_that_was_lent(before: int, more: int) -> None:
    small, large = run(members(before)), run(members(before + more))
    moved = [m for m in small.split_of if small.split_of[m] != large.split_of[m]]
    lent = {*small.lent, *large.lent}
    assert all(small.work_of[m] in lent for m in moved)
    assert len(small.lent) <= 2


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 40), st.text(max_size=8))
def test_three_works_fill_three_splits(count: int, salt: str) -> None:
    found = assign(members(count), [], salt=salt, validation_share=0.1, test_share=0.15)
    assert all(counts(found.split_of, found.split_of)[s] >= 1 for s in SPLITS)


def test_shares_are_kept_on_many_works() -> None:
    found = run(members(5000))
    by_split = counts(found.split_of, found.split_of)
    assert (
        abs(by_split[TEST] / 5000 - 0.15) < 0.02 and abs(by_split[VALIDATION] / 5000 - 0.1) < 0.02
    )
    assert not found.lent


def test_no_share_no_split() -> None:
    found = run(members(40), test_share=0.0, validation_share=0.0)
    assert set(found.split_of.values()) == {TRAIN}


def test_doi_title_identity_text_and_likeness_make_one_work() -> None:
    title = "Ein Versuch über den Wind der Orgel"
    group = [
        Member("a", doi="10.1000/X"),
        Member("b", doi="https://doi.org/10.1000/x", title=title),
        Member("c", title=title.upper() + "!"),
        Member("d", identities=("pmc12345",)),
        Member("e", title=title, identities=("pmc12345",), sha256="f" * 64),
        Member("f", sha256="f" * 64),
        Member("g"),
    ]
    found = run([*group, *members(50)], [("g", "f")])
    assert len({found.work_of[m.id] for m in group}) == 1
    assert len({found.split_of[m.id] for m in group}) == 1
    assert found.work_of["a"] == "doi:10.1000/x"


def test_short_and_generic_titles_join_nothing() -> None:
    short = [Member("a", title="Introduction"), Member("b", title="Introduction")]
    many = [
        Member(f"m{i}", title="Editorial of the journal of organs", doi=f"10.1000/{i}")
        for i in range(6)
    ]
    found = run([*short, *many])
    assert len(found.works) == 8


def test_row_numbers_are_no_identity() -> None:
    found = run(
        [Member("1", identities=("1",)), Member("task\0001", identities=("1",), in_corpus=False)]
    )
    assert len(found.works) == 2


def test_a_test_file_keeps_its_documents_out_of_training() -> None:
    everything = [Member(f"d{i}", doi=f"10.1000/{i}") for i in range(200)]
    task = [Member(f"t{i}", doi=f"10.1000/{i}", forced=TEST, in_corpus=False) for i in range(50)]
    training = [
        Member(f"u{i}", doi=f"10.2000/{i}", forced=TRAIN, in_corpus=False) for i in range(200)
    ]
    found = run([*everything, *task, *training])
    assert all(found.split_of[f"d{i}"] == TEST for i in range(50))
    of_training = {found.split_of[m.id] for m in training}
    assert of_training == {TRAIN, VALIDATION}, (
        "validation is taken from the training file, test never"
    )


def test_a_document_in_both_files_counts_as_test_and_is_told() -> None:
    both = [
        Member("a", doi="10.1000/a", forced=TRAIN, in_corpus=False),
        Member("b", doi="10.1000/a", forced=TEST, in_corpus=False),
    ]
    found = run(both)
    assert found.split_of == {"a": TEST, "b": TEST} and found.clashes == ["doi:10.1000/a"]


def test_position_is_what_the_hash_says() -> None:
    assert position("k", "s") != position("k", "t")
    assert 0 <= position("k", "s") < 1
    assert home("k", "s", 0.0, 0.0) == TRAIN
