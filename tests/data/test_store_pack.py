"""Examples come back as they were written; packing loses nothing and is a pure function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hauslm.base.errors import DataError
from hauslm.base.files import canonical_json
from hauslm.data.pack import batches_in_order, fill, pack, unpacked
from hauslm.data.store import (
    SUFFIXES,
    Example,
    Examples,
    ExampleStore,
    Run,
    StoreWriter,
    deal,
    with_suffix,
    write_store,
)


def examples(lengths: list[int], name: str = "e") -> list[Example]:
    generator = np.random.default_rng(0)
    return [
        Example(
            generator.integers(0, 2**32 - 1, n, dtype=np.uint32),
            generator.integers(0, 2, n).astype(bool),
            {"id": f"{name}{i}", "document": "d", "kind": "text", "language": "de", "title": "Ü\n"},
        )
        for i, n in enumerate(lengths)
    ]


def same(a: Example, b: Example) -> bool:
    return bool(
        (a.tokens == b.tokens).all() and (a.trained == b.trained).all() and a.meta == b.meta
    )


def test_round_trip_and_counts(tmp_path: Path) -> None:
    written = examples([3, 0, 7, 1])
    assert write_store(tmp_path / "train", iter(written)) == 4
    store = ExampleStore.open(tmp_path / "train")
    assert len(store) == 4 and store.lengths().tolist() == [3, 0, 7, 1] and store.tokens == 11
    assert all(same(a, b) for a, b in zip(store, written, strict=True))
    assert same(store[-1], written[-1])
    assert store[0].tokens.dtype == np.uint32 and store[0].trained.dtype == np.bool_
    assert store.trained_tokens() == sum(int(e.trained.sum()) for e in written)
    assert store.label_counts().tolist() == [int(e.trained[1:].sum()) for e in written]
    with pytest.raises(IndexError):
        store[4]


def test_the_files_are_what_the_contract_says(tmp_path: Path) -> None:
    write_store(tmp_path / "x", examples([2, 3]))
    assert np.fromfile(tmp_path / "x.tokens.bin", "<u4").shape == (5,)
    assert np.fromfile(tmp_path / "x.trained.bin", "u1").shape == (5,)
    assert np.fromfile(tmp_path / "x.offsets.bin", "<i8").tolist() == [0, 2, 5]
    assert len((tmp_path / "x.meta.jsonl").read_text().splitlines()) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"x{s}" for s in SUFFIXES)


def test_an_empty_store_is_a_store(tmp_path: Path) -> None:
    write_store(tmp_path / "x", [])
    store = ExampleStore.open(tmp_path / "x")
    assert (
        len(store) == 0 and store.lengths().tolist() == [] and store.label_counts().tolist() == []
    )


def test_concatenated_stores_are_one(tmp_path: Path) -> None:
    parts = [examples([2, 5], "a"), [], examples([1], "b")]
    for i, part in enumerate(parts):
        write_store(tmp_path / f"p{i}", part)
    with StoreWriter(tmp_path / "all") as writer:
        for i in range(3):
            writer.append_store(tmp_path / f"p{i}")
        assert len(writer) == 3
    whole = ExampleStore.open(tmp_path / "all")
    assert all(same(a, b) for a, b in zip(whole, [*parts[0], *parts[2]], strict=True))


def in_one_piece(several: list[Example]) -> Examples:
    return Examples(
        np.concatenate([e.tokens for e in several]),
        np.concatenate([e.trained for e in several]),
        np.array([len(e.tokens) for e in several], dtype=np.int64),
        b"".join(canonical_json(e.meta) + b"\n" for e in several),
    )


def test_examples_in_one_piece_are_stored_as_one_by_one(tmp_path: Path) -> None:
    several, more = examples([3, 1, 7], "a"), examples([0, 2], "b")
    write_store(tmp_path / "each", [*several, *more])
    with StoreWriter(tmp_path / "pieces") as writer:
        writer.extend(in_one_piece(several))
        writer.extend(in_one_piece(more))
        assert len(writer) == 5 and writer.tokens == 13
    for suffix in SUFFIXES:
        each, piece = (with_suffix(tmp_path / n, suffix) for n in ("each", "pieces"))
        assert each.read_bytes() == piece.read_bytes()
    assert all(same(a, b) for a, b in zip(in_one_piece(several), several, strict=True))


def test_pieces_that_do_not_fit_are_not_stored(tmp_path: Path) -> None:
    whole = in_one_piece(examples([3, 1]))
    for wrong in (
        replace(whole, trained=whole.trained[:-1]),
        replace(whole, lengths=whole.lengths[:-1]),
        replace(whole, meta=whole.meta.splitlines(keepends=True)[0]),
    ):
        with pytest.raises(ValueError), StoreWriter(tmp_path / "x") as writer:
            writer.extend(wrong)
    assert not list(tmp_path.iterdir())


def test_a_store_is_dealt_out_run_by_run(tmp_path: Path) -> None:
    made = examples([2, 5, 1, 3], "a")
    with StoreWriter(tmp_path / "all") as writer:
        ends = [0]
        for one in made:
            writer.append(one)
            ends.append(writer.meta_bytes)
    with StoreWriter(tmp_path / "x") as left, StoreWriter(tmp_path / "y") as right:
        runs = [(Run(0, 1, 0, ends[1]), left), (Run(1, 3, ends[1], ends[3]), right)]
        deal(tmp_path / "all", [*runs, (Run(3, 4, ends[3], ends[4]), left)])
    for name, wanted in (("x", [made[0], made[3]]), ("y", made[1:3])):
        store = ExampleStore.open(tmp_path / name)
        assert all(same(a, b) for a, b in zip(store, wanted, strict=True))


def test_dealing_out_a_shortened_store_is_an_error(tmp_path: Path) -> None:
    write_store(tmp_path / "all", examples([2, 5]))
    (tmp_path / "all.tokens.bin").write_bytes(b"\0" * 8)
    with pytest.raises(DataError) as error, StoreWriter(tmp_path / "x") as writer:
        deal(tmp_path / "all", [(Run(0, 2, 0, 1), writer)])
    assert error.value.code == "H330" and "tokens.bin" in error.value.text("en")


def test_a_store_is_staged_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "made").mkdir()
    with StoreWriter(tmp_path / "made" / "x", staging=tmp_path / "staging") as writer:
        writer.append(examples([2])[0])
        assert not list((tmp_path / "made").iterdir())
    assert len(list((tmp_path / "made").iterdir())) == 4
    assert not list((tmp_path / "staging").iterdir())


def test_an_exception_leaves_the_old_store(tmp_path: Path) -> None:
    write_store(tmp_path / "x", examples([2]))
    with pytest.raises(RuntimeError), StoreWriter(tmp_path / "x") as writer:
        writer.append(examples([9])[0])
        raise RuntimeError
    assert ExampleStore.open(tmp_path / "x").lengths().tolist() == [2]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_damage_is_an_error_with_a_next_step(tmp_path: Path, suffix: str, damage: str) -> None:
    write_store(tmp_path / "x", examples([20, 30]))
    path = with_suffix(tmp_path / "x", suffix)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError) as error:
        ExampleStore.open(tmp_path / "x").meta(1) if suffix == ".meta.jsonl" else ExampleStore.open(
            tmp_path / "x"
        )
    assert error.value.code == "H330" and "prepare" in error.value.text("en")


LENGTHS = st.lists(st.integers(1, 100), max_size=200)


@settings(deadline=None)
@given(LENGTHS, st.integers(100, 400), st.integers(0, 2**31 - 1), st.integers(0, 5))
def test_packing_holds_every_example_once(
    lengths: list[int], capacity: int, seed: int, epoch: int
) -> None:
    rows = pack(lengths, capacity, seed, epoch)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= capacity for row in rows)
    assert rows == pack(np.array(lengths, dtype=np.int64), capacity, seed, epoch), "a pure function"
    assert sorted(i for row in unpacked(lengths, seed, epoch) for i in row) == list(
        range(len(lengths))
    )


def test_packing_is_dense_and_differs_between_epochs() -> None:
    lengths = np.random.default_rng(1).integers(20, 512, 5000)
    first, second = pack(lengths, 512, 7, 0), pack(lengths, 512, 7, 1)
    assert fill(first, lengths, 512) > 0.97
    assert first != second
    longest_first = [max(int(lengths[i]) for i in row) for row in first[:50]]
    assert longest_first != sorted(longest_first, reverse=True)


def test_an_example_that_is_too_long_is_never_cut() -> None:
    with pytest.raises(DataError) as error:
        pack([5, 600], 512, 0, 0)
    assert error.value.code == "H331"


def test_batches_start_anywhere() -> None:
    rows = unpacked([1] * 10, 0, 0)
    assert list(batches_in_order(rows, 4))[1:] == list(batches_in_order(rows, 4, start_batch=1))
    assert [len(b) for b in batches_in_order(rows, 4)] == [4, 4, 2]
