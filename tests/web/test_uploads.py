"""multipart/form-data comes apart as it was put together, whatever the file contains."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hauslm.base.errors import UsageError
from hauslm.web.uploads import parts_of


@given(
    st.binary(max_size=400),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30),
)
def test_any_bytes_come_back(data: bytes, name: str) -> None:
    request = httpx.Request("POST", "http://x/", files={"file": (name, data)}, data={"a": "b"})
    parts = {p.name: p for p in parts_of(request.headers["content-type"], request.read())}
    assert parts["file"].data == data and parts["a"].data == b"b"
    assert parts["file"].filename


@given(st.binary(max_size=200), st.text(max_size=60))
def test_nonsense_is_refused_with_a_sentence(body: bytes, kind: str) -> None:
    for content_type in (kind, "multipart/form-data; boundary=xyz"):
        try:
            parts_of(content_type, body)
        except UsageError as error:
            assert error.code == "H248"


def test_a_body_that_was_cut_off_is_refused() -> None:
    request = httpx.Request("POST", "http://x/", files={"file": ("a.txt", b"0123456789")})
    with pytest.raises(UsageError):
        parts_of(request.headers["content-type"], request.read()[:-20])
