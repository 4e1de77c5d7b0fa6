"""How do the libraries keep quiet while they load and write? Bars off, warnings off, for the time being."""

from __future__ import annotations

import contextlib
import logging as standard_logging
import os
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries speak to their log, not to the user's terminal."""
    from transformers.utils import logging

    transformers_logging: Any = logging

    before = transformers_logging.get_verbosity()
    bars = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    bitsandbytes_log = standard_logging.getLogger("bitsandbytes")
    level = bitsandbytes_log.level
    bitsandbytes_log.setLevel(standard_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()
        bitsandbytes_log.setLevel(level)
        if bars is None:
            os.environ.pop("TQDM_DISABLE", None)
        else:
            os.environ["TQDM_DISABLE"] = bars
