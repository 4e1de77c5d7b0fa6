"""Build the manual: one Sphinx site per language out of docs/, offline, every warning an error.

    python scripts/docs.py build [--out build/docs]     both languages (this is `make docs`)
    python scripts/docs.py tree LANGUAGE FOLDER         only put the pages of one language together
    python scripts/docs.py figures                      draw docs/images/explain-*.svg anew

`docs/x.md` is English, `docs/x.de.md` its German sister; a page without a sister stands in both sites
as it is. The reference is written here from what the program itself says of itself: commands from
click, the project file from its JSON Schema, records from their models, the Python API from docstrings.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(Path(__file__).resolve().parent))
LANGUAGES = ("en", "de")
TITLES = {
    "tutorial": ("Tutorial", "Lehrgang"),
    "howto": ("How-to", "Anleitungen"),
    "explain": ("Explanation", "Hintergrund"),
    "reference": ("Reference", "Nachschlagen"),
    "annex": ("Technical annex", "Technischer Anhang (englisch)"),
}
PAGES = {
    "tutorial": ["lab", "web"],
    "howto": [
        "howto/documents", "howto/gpu-does-not-fit", "howto/cluster", "howto/air-gapped",
        "howto/several-gpus", "howto/replace-cloud-api",
    ],
    "explain": ["explain/verdict", "explain/memory", "explain/lora"],
    "reference": [
        "reference/cli", "reference/project-file", "reference/records", "reference/python", "errors",
    ],
}  # fmt: skip
BUILT_IN_LINE = re.compile(r"!\[([^\]]*)\]\((?:\.\./)?images/(explain-[\w-]+?)(?:\.de)?\.svg\)")
FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)


def tree(language: str, target: Path) -> None:
    """The Sphinx source of one language: pages, reference, figures, configuration."""
    import reference  # scripts/reference.py

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(DOCS / "images", target / "images")
    shutil.copytree(DOCS / "_site", target / "_site")
    shutil.copy(DOCS / "_site" / "conf.py", target / "conf.py")
    drawn = reference.figures(language)
    sources = {p: p.relative_to(DOCS).as_posix() for p in sorted(DOCS.rglob("*.md"))}
    english = {n.removesuffix(".md") for n in sources.values() if not n.endswith(".de.md")}
    german = {n.removesuffix(".de.md") for n in sources.values() if n.endswith(".de.md")}
    for name in sorted(english | german):
        own = DOCS / (f"{name}.de.md" if language == "de" and name in german else f"{name}.md")
        _write(target / f"{name}.md", _page(own.read_text(encoding="utf-8"), language, drawn, name))
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8").replace("](docs/", "](")
    # Files of the repository that are no pages are named, not linked.
    security = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*(?<!\.md)\)", r"\1", security)
    _write(target / "SECURITY.md", security)
    pages = reference.pages(language)
    for name, text in pages.items():
        _write(target / f"{name}.md", text)
    known = {n for names in PAGES.values() for n in names} | {"index"}
    annex = sorted(((english | german) - known) | {"SECURITY"})
    index = target / "index.md"
    _write(index, index.read_text(encoding="utf-8") + _toctrees(language, annex))


def _page(text: str, language: str, drawn: dict[str, str], name: str) -> str:
    """A page as the site shows it: links inside its language, figures in line, plain fences."""
    other = "en" if language == "de" else "de"
    up = "../" * (name.count("/") + 1)
    text = re.sub(
        r"^\*(Deutsch|English): \[[^\]]*\]\([^)]*\)\*$",
        lambda m: f'*<a href="{up}{other}/{name}.html" hreflang="{other}">{m.group(1)}</a>*',
        text, flags=re.MULTILINE,
    )  # fmt: skip
    text = re.sub(r"\]\(([\w./-]+)\.de\.md(#[\w-]+)?\)", r"](\1.md\2)", text)
    text = text.replace("](../SECURITY.md", "](SECURITY.md")
    text = BUILT_IN_LINE.sub(
        lambda m: f"```{{raw}} html\n<figure class=\"drawn\">{drawn[m.group(2)]}"
        f"<figcaption>{m.group(1)}</figcaption></figure>\n```",
        text,
    )  # fmt: skip
    return FENCE.sub(lambda m: m.group(0) if "{raw}" in m.group(0) else m.group(1), text)


def _toctrees(language: str, annex: list[str]) -> str:
    place = LANGUAGES.index(language)
    text = ""
    for part, names in [*PAGES.items(), ("annex", annex)]:
        listed = "\n".join(names)
        caption = TITLES[part][place]
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n{listed}\n```\n"
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build(out: Path, languages: tuple[str, ...] = LANGUAGES) -> None:
    """Each language in a process of its own: the commands' help is translated when they are read."""
    for language in languages:
        source, html = out / "source" / language, out / "html" / language
        environment = os.environ | {"LANGUAGE": language, "HAUSLM_LANGUAGE": language}
        for command in (
            [sys.executable, str(Path(__file__)), "tree", language, str(source)],
            [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
             "-d", str(out / "doctrees" / language), str(source), str(html)],
        ):  # fmt: skip
            subprocess.run(command, check=True, env=environment)
    _write(out / "html" / "index.html", FRONT)
    strangers = foreign(out / "html")
    if strangers:
        raise SystemExit("loaded from elsewhere:\n" + "\n".join(strangers))


FRONT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>hauslm</title></head>
<body><p><a href="en/index.html">English</a> · <a href="de/index.html" lang="de">Deutsch</a></p></body></html>
"""


class _Loads(HTMLParser):
    """What a browser fetches by itself when it opens the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {k: v or "" for k, v in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "input"):
            self.found.append(named.get("src", ""))
        relation = named.get("rel", "")
        if tag == "link" and not {"next", "prev", "author", "search", "index"} & {relation}:
            self.found.append(named.get("href", ""))


def foreign(folder: Path) -> list[str]:
    """Scripts, styles, fonts, images that a page of the site would fetch from another host."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        reader = _Loads()
        reader.feed(page.read_text(encoding="utf-8"))
        found += [f"{page}: {u}" for u in reader.found if re.match(r"(?:https?:)?//", u)]
    for sheet in sorted(folder.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        urls = re.findall(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""", text)
        found += [f"{sheet}: {u}" for u in urls]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["build", "tree", "figures"])
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    given = parser.parse_args()
    if given.what == "build":
        build(given.out, tuple(given.arguments) or LANGUAGES)
    elif given.what == "tree":
        tree(given.arguments[0], Path(given.arguments[1]))
    else:
        import reference

        for language in LANGUAGES:
            ending = "" if language == "en" else f".{language}"
            for name, svg in reference.figures(language).items():
                (DOCS / "images" / f"{name}{ending}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
