"""Deleting what keeps a promise makes a test fail: tried for each such line, on a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.campaign.mutations import MUTATIONS, ROOT, Mutation, first_failure


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_every_mutation_still_has_its_place(mutation: Mutation) -> None:
    text = Path(ROOT / "src" / "hauslm" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.what)
def test_a_test_fails_without_it(mutation: Mutation) -> None:
    assert first_failure(mutation), f"nothing notices that this is gone: {mutation.what}"


@pytest.mark.slow
def test_without_a_mutation_none_fails() -> None:
    assert first_failure(None) == ""
