"""Where a figure comes from, in the reader's language.

A record keeps the origin of a figure as one English text, as `interface.md` promises; some origins are
put together from others ("35,502 tokens / (GeForce RTX 4090: 165.2 TFLOP/s x 0.80 ...)"). `said` knows
the patterns of which they are made, takes the text apart and says it anew. A citation (an address, a
title) matches nothing and stays as its author wrote it. A new pattern is one line here and one in the
catalogue; `tests/base/test_origin.py` fails on an origin that no line knows.
"""

from __future__ import annotations

import re
from functools import lru_cache

from hauslm.base.words import FALLBACK_LANGUAGE, N_, language, number, translate

# Whole texts that stand in facts and settings. What the code says itself is marked where it says it.
FIXED = (
    N_("a glossary of some 100 terms with a few worked examples"),
    N_("a listed price stays until the vendor changes it; successors have been cheaper"),
    N_("a task description of one page"),
    N_("data, start, evaluation"),
    N_("default of hauslm.yaml (the lab's research team)"),
    N_("desktop parts; Lenovo counts 12 % for servers (LP2225)"),
    N_("five years are usual"),
    N_("generation is bound by memory and rarely draws the rated power"),
    N_("half of the power under load"),
    N_("institutions seldom sell"),
    N_("list prices are net; a public research body in Germany pays 19 % itself"),
    N_("list prices move"),
    N_("lowest effort; paid for like an answer"),
    N_("offers vary by provider and day"),
    N_("on during working hours"),
    N_("others use it too, and it is serviced"),
    N_("processor, memory, drives"),
    N_("prompts, tests, comparison of results"),
    N_("several web pages; no price directory carries training prices"),
    N_("several web pages; they also print 0.03, 1 and 25 USD for this model"),
    N_("start, loading of weights, time until somebody stops it (15 % also in induwara.lk, 2026-06)"),
    N_("street prices vary"),
    N_("the speed formula is held to 30 % of published measurements"),
    N_("tokenizers in use differ by about 25 % on the same text"),
    N_("tower for a 450 W card"),
    N_("up to one answer in ten is asked for again"),
    N_("used prices of earlier cards"),
    N_("what a cost estimate can tell apart"),
    N_("formula, estimate.memory"),
    N_("speed formula of the planner"),
    N_("a computer whose processor is busy"),
)  # fmt: skip

# Patterns: the more particular first. A field is said anew itself, so that origins nest.
COMPOSED = (
    N_("{memory} GB on the box x {count}; {source}"),
    N_("{tokens} tokens ({known}) / ({speed}) x {power}; {price}"),
    N_("{tokens} tokens ({known}) / ({speed}) x {power}"),
    N_("{tokens} tokens ({known}) / ({speed})"),
    N_("{tokens} tokens / ({speed}) x {power}; {price}"),
    N_("{tokens} tokens / ({speed}) x {power}"),
    N_("{tokens} tokens / ({speed})"),
    N_("{draws} draws, seed {seed}, {figures} figures with a range; answers as they stand; the same machine in {share} of the draws"),
    N_("{speed}, adapter beside the base"),
    N_("{device}, {engine}, {sequences} sequences at once"),
    N_("{device}: {peak} TFLOP/s x {share} ({why})"),
    N_("no published LoRA run with full settings; GEMM efficiency assumed"),
    N_("fitted to {source}"),
    N_("{cores} otherwise idle CPU cores, {precision}, measured on {machine}"),
    N_("{tokenizer}: characters per token of the real tokenizer on articles (scripts/measure_tokenizers.py)"),
    N_("no offline tokenizer of {model}; {stand_in}"),
    N_("like {tokenizer} (vocabulary of similar size)"),
    N_("like {tokenizer} on the team's own documents"),
    N_("like {tokenizer}"),
    N_("price list of {model} in both currencies"),
    N_("probe on {device}"),
    N_("read and written, mean over {count}"),
    N_("asked one at a time, {count} of them"),
    N_("{count} requests, up to {most} at once, network included"),
    N_("{seconds} s of model time (measured) at {watts} W ({known}: {source}); this machine offers no counter; {price}"),
    N_("{seconds} s of model time (measured) at {watts} W ({known}: {source}); this machine offers no counter"),
    N_("{read} tokens read at {input} and {written} written at {output} EUR/Mtok ({source})"),
)  # fmt: skip
_FIELD = re.compile(r"\\\{(\w+)\\\}")
_NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})*(?:\.\d+)?|-?\d+(?:\.\d+)?")


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (t, re.compile(_FIELD.sub(r"(?P<\1>.+)", re.escape(t)), re.DOTALL)) for t in COMPOSED
    )


@lru_cache(maxsize=4096)
def _said(origin: str, code: str) -> str:
    whole = translate(origin, code)
    if whole != origin or not origin:
        return whole
    for template, pattern in _patterns():
        found = pattern.fullmatch(origin)
        if found:
            values = {k: _field(v, code) for k, v in found.groupdict().items()}
            return translate(template, code).format_map(values)
    return origin


def _field(text: str, code: str) -> str:
    """A number the local way, with the decimals that it has; anything else as an origin of its own."""
    if not _NUMBER.fullmatch(text):
        return _said(text, code)
    decimals = len(text.partition(".")[2])
    return number(float(text.replace(",", "")), f".{decimals}f" if decimals else ",", code)


def said(origin: str, code: str | None = None) -> str:
    """The origin of a figure in `code` (default: the language in force)."""
    code = code or language()
    return origin if code == FALLBACK_LANGUAGE else _said(origin, code)
