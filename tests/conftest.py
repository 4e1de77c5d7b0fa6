"""What holds for every test: no network but loopback, English by default, the shared data if there.

`../shared` beside the checkout holds real articles and tasks; tests that use it skip with a reason
where it is absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hauslm.base import egress, words

# No test asserts seconds: an example that takes long on a busy machine is no failure.
settings.register_profile("hauslm", deadline=None)
settings.load_profile("hauslm")

egress.shut("loopback", kernel=False)  # the kernel's filter would end every client for good
os.environ.setdefault("LANGUAGE", "en")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    with words.speaking("en"):
        yield
