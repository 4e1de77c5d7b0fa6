"""What has been written so far, and does it contain a stop string? Tokens to text, piece by piece.

A byte-level tokenizer may spread one character over several tokens, so text is given out only as
far as it can no longer change: a trailing replacement character, or a tail that may still become a
stop string, is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"


class TextSoFar:
    """The growing answer of one row. `decode(token_ids)` gives the text of a token sequence."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(s for s in stop if s)
        self.token_ids: list[int] = []
        self.text = ""  # all of it, as far as it cannot change any more
        self._given = 0
        self._window = 0  # tokens before this one are decoded for good
        self._window_text = 0  # characters of self.text that belong to them
        self.stopped = False

    def add(self, token_id: int) -> None:
        """Take one more token; `stopped` says whether a stop string is now complete."""
        self.token_ids.append(token_id)
        # A few tokens of context before the new ones keep spaces and joined characters right.
        tail = self._decode(self.token_ids[self._window :])
        if not tail.endswith(_UNFINISHED):
            self.text = self.text[: self._window_text] + tail
            self._find_stop()
            if len(self.token_ids) - self._window > 16:
                self._advance_window(tail)

    def _advance_window(self, tail: str) -> None:
        """Decode only the last tokens from now on, if that gives the same text."""
        start = len(self.token_ids) - 6
        short = self._decode(self.token_ids[start:])
        if tail.endswith(short) and short:
            self._window = start
            self._window_text = len(self.text) - len(short)

    def _find_stop(self) -> None:
        found = [
            p for s in self._stop if (p := self.text.find(s, max(0, self._given - len(s)))) >= 0
        ]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True

    def delta(self, *, final: bool = False) -> str:
        """The text that is new since the last call and certain (all of it when `final`)."""
        end = len(self.text)
        if not (final or self.stopped):
            end -= self._possible_stop()
        new = self.text[self._given : end] if end > self._given else ""
        self._given = max(self._given, end)
        return new

    def _possible_stop(self) -> int:
        """Length of the longest tail that could still grow into a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def finish(self) -> str:
        """The whole answer; an unfinished last character is shown as the replacement character."""
        if not self.stopped:
            tail = self._decode(self.token_ids[self._window :])
            self.text = self.text[: self._window_text] + tail
            self._find_stop()
        return self.text
