"""Can raw text be tokenized faster, and still be exactly what the tokenizer library makes of it? By kitoken, watched.

kitoken reads the same tokenizer.json and takes about a quarter of the time (two thirds with the vocabulary of
Mistral 7B, which does not split). The tokenizer library stays the
measure of what is right:

- before its first use, kitoken must make the same tokens of texts chosen to be difficult (`Trial`), in a
  process of its own, because what it cannot do may end the process;
- texts that hold the spelling of an added token, or run on for thousands of characters without a break, are
  the library's (on a million blanks kitoken's regular expression ends the process);
- of the rest one in `CHECKED_ONE_IN` is tokenized twice and compared; a difference is a `Disagreement`, and
  the caller does everything again with the library alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from hauslm.catalog.chat import ControlTokens

CHECKED_ONE_IN = 64
STRETCH = 5000  # characters; a stretch as long without a break between words is not kitoken's
_TRIAL_S = 60.0

# White space, numbers, apostrophes, accents, signs, scripts: where tokenizers have differed.
DIFFICULT = (
    "", " ", "\n", "\t", "a", " a", "a ", "  a  b   c    ", "a\n\nb\n \n  c\r\nd\r\re\t\tf \t g",
    "It's we're I've he'll they'd I'm IT'S we'RE 'tis 'a' ''s", "don’t l’eau rock’n’roll",
    "1 12 123 1234 12345 3.14159 1,000,000 1e-5 0x1F ½ ² ٣٤ ⅷ 二〇二六", "x2 H2O CO₂ β-1,3 p<0.05 ±5% 10–20 µm 37°C",
    "Größe, Straße, äöüÄÖÜß, naïve, façade, Łódź, Ångström", "a\u0301 e\u0308 n\u0303 \u1e9b\u0323 \ufb01 \u212b",
    "ФИЗИКА и химия, Ελληνικά, עברית, العربية, हिन्दी, ไทย, 日本語のテキスト, 中文文本, 한국어",
    "👩🏽‍🚀🇩🇪 ☃️ ✓ → ∑∫√ ≤≥≠ 𝜇𝛼𝟙", "\u00a0\u2003\u3000 \u200b\u200d\u2060\ufeff\u00ad\u2028\u2029\x85\x0b\x0c",
    "!!! ??? ... --- ___ *** ### $$$ %%% &&& @@@ ~~~ ``` ((( ))) [[ ]] {{ }} <<< >>>", "...and—so–on… (e.g., [1], {2}; <3>)",
    "https://example.org/a_b?c=d&e=%20#f user@example.org C:\\path\\file", "def f(x):\n    return x ** 2  # square\n",
    "ALLCAPS CamelCase snake_case kebab-case mixedCASE iPhone McDonald", "\ue000\uf8ff\U000f0000 \U0010fffd \ufffd \ufffe",
    "word" * 40, "ab" * 60 + " " + "." * 90 + "\n" * 30 + " " * 70 + "x",
)  # fmt: skip

_TRIAL = """
import json, sys
from kitoken import Kitoken
quick = Kitoken.from_tokenizers_file(sys.argv[1])
json.dump([quick.encode(text, False) for text in json.load(sys.stdin)], sys.stdout)
"""


class Disagreement(Exception):
    """kitoken and the tokenizer library made different tokens of the same text: `name`, or its place in the list."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Trial:
    """Begins at once, beside what goes on here; `passed` waits for the outcome."""

    def __init__(self, file: Path) -> None:
        self._passed: bool | None = None
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # no process to be had: it did not pass
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TRIAL, str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    def passed(self, library: RustTokenizer) -> bool:
        """Does kitoken take this tokenizer.json, and make what the `library` (for raw text) makes?"""
        if self._passed is None:
            self._passed = _added(library) is not None and self._made() == [
                library.encode(text, add_special_tokens=False).ids for text in DIFFICULT
            ]
        return self._passed

    def _made(self) -> object:
        if self._process is None:
            return None
        try:
            out, _ = self._process.communicate(json.dumps(DIFFICULT).encode(), _TRIAL_S)
            return json.loads(out) if self._process.returncode == 0 else None
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        finally:
            self.end()

    def end(self) -> None:
        """Also where nobody wants to know any more."""
        if self._process is not None:
            self._process.kill()
            with suppress(OSError, ValueError):
                self._process.communicate()


class Quick:
    """kitoken for a `file` of which a `Trial` has `passed`; `library`: its tokenizer for raw text."""

    def __init__(self, file: Path, library: RustTokenizer) -> None:
        from kitoken import Kitoken

        self._quick: Any = Kitoken.from_tokenizers_file(str(file))
        self._library = library
        self._added = ControlTokens(_added(library) or ())
        self._count = 0

    def ids_of(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The token ids of each text, or None for one that is the library's. Raises `Disagreement`."""
        return [self._ids(text, place) for place, text in enumerate(texts)]

    def _ids(self, text: str, place: int) -> list[int] | None:
        if runs_on(text) or self._added.spelled_in(text):
            return None
        ids: list[int] = self._quick.encode(text, False)
        self._count += 1
        if self._count % CHECKED_ONE_IN == 1:
            wanted = self._library.encode(text, add_special_tokens=False).ids
            if ids != wanted:
                raise Disagreement(str(place))
        return ids


def _added(library: RustTokenizer) -> list[str] | None:
    """Spellings of all added tokens; None if one is so short that it cannot be looked for."""
    found = [token.content for token in library.get_added_tokens_decoder().values()]
    return found if all(len(spelling) > 1 for spelling in found) else None


def runs_on(text: str) -> bool:
    """May there be a run of white space, or of anything else, of `STRETCH` characters or more? If not, none is longer
    than twice that."""
    return any(
        len(text[start : start + STRETCH].split(None, 1)) < 2
        for start in range(0, len(text) - STRETCH + 1, STRETCH)
    )
