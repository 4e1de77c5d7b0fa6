"""Characters per token of the real tokenizers on a folder of documents (the table of decide/tokens.py).

    python scripts/measure_tokenizers.py FOLDER [--name deepseek-v3=TOKENIZER.JSON ...]

Reads what `hauslm prepare` reads. Tokenizers: mistral-common and tiktoken where installed with their
data (see hauslm/data/tokenizers.py), and any tokenizer.json that is named. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hauslm.data.document import Document
from hauslm.data.readers import reader_for
from hauslm.data.reading import find_files
from hauslm.data.tokenizers import Count, characters_per_token, offline_tokenizers


def documents(folder: Path) -> list[Document]:
    """Every document that can be read, with its whole text."""
    from hauslm.data.readers import Limits

    found: list[Document] = []
    for source in find_files(["."], folder):
        reader = reader_for(source.path)
        if reader is not None:
            found += [d for d in reader.read(source.path, Limits()) if isinstance(d, Document)]
    return found


def named(pairs: list[str]) -> dict[str, Count]:
    """Counters for `name=tokenizer.json` pairs."""
    from tokenizers import Tokenizer

    def counter(path: str) -> Count:
        tokenizer = Tokenizer.from_file(path)
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

    return {name: counter(path) for name, _, path in (p.partition("=") for p in pairs)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", action="append", default=[], metavar="NAME=TOKENIZER.JSON")
    arguments = parser.parse_args()
    counters = {**offline_tokenizers(), **named(arguments.name)}
    if not counters:
        print("no tokenizer is here: install mistral-common or tiktoken", file=sys.stderr)
        return 1
    texts = documents(arguments.folder)
    found = characters_per_token(texts, counters, sample_characters=10**9)
    print(json.dumps({"documents": len(texts), **{k: round(v, 3) for k, v in found.items()}}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
