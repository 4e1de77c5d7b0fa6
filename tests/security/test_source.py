"""What the source may not contain: code that runs data, shells, pickles, open parsers, other ways out.

Read as syntax trees, so that a comment or a docstring is no finding and an alias is no way round. Each rule
is tried on a sample that breaks it: a rule that finds nothing anywhere would be worth nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "hauslm"
FILES = sorted(SOURCE.rglob("*.py"))

FORBIDDEN_IMPORTS = {
    "pickle": "runs code on loading", "cPickle": "runs code on loading", "dill": "runs code on loading",
    "cloudpickle": "runs code on loading", "joblib": "loads pickles", "marshal": "loads code", "shelve": "loads pickles",
    "xml": "lxml without entities instead", "tarfile": "extracts outside", "telnetlib": "no", "ftplib": "no",
    "fitz": "licence", "pymupdf": "licence", "litellm": "asks the network on import", "gradio": "shares",
    "requests": "base/egress is the door", "httpx": "base/egress is the door", "aiohttp": "base/egress is the door",
    "urllib.request": "base/egress is the door", "smtplib": "no",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.spawnl", "os.spawnv", "os.execv",
    "subprocess.getoutput", "subprocess.getstatusoutput", "torch.load", "numpy.load", "np.load", "yaml.unsafe_load",
    "yaml.full_load", "yaml.load_all", "etree.parse", "tempfile.mktemp", "shutil.unpack_archive", "pd.read_pickle",
}  # fmt: skip
# Who may open sockets, and what for; everybody else goes through these.
NETWORK = {
    "base/netlink.py": "asks the kernel", "base/listen.py": "reads certificates", "base/trap.py": "listens in the trap", "base/egress.py": "is the door",
    "base/seccomp.py": "lists open sockets", "lm/remote.py": "with a permit",
    "train/cluster.py": "finds a free port on loopback for its own processes",
    "lm/vllm.py": "asks the vLLM that it started, on loopback", "serve/start.py": "listens",
    "web/app.py": "listens", "prove/trapped.py": "asks the own server",
}  # fmt: skip
NETWORK_MODULES = ("socket", "http.client", "ssl", "socketserver", "asyncio.streams")
YAML_LOADERS = ("NoAliasLoader", "_loader()")


def name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return "?"


def findings(tree: ast.AST, file: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imports(node, file)
        elif isinstance(node, ast.Call):
            yield from _calls(node)
        elif isinstance(node, ast.keyword):
            yield from _keywords(node)


def _imports(node: ast.Import | ast.ImportFrom, file: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [node.module or ""] + [f"{node.module}.{a.name}" for a in node.names]
    for name in names:
        for bad in FORBIDDEN_IMPORTS:
            if name == bad or name.startswith(f"{bad}."):
                yield f"imports {name}: {FORBIDDEN_IMPORTS[bad]}"
        if (
            any(name == m or name.startswith(f"{m}.") for m in NETWORK_MODULES)
            and file not in NETWORK
        ):
            yield f"imports {name}, but is not in the list of those who may"


def _calls(node: ast.Call) -> Iterator[str]:
    name = name_of(node.func)
    if name in FORBIDDEN_CALLS:
        yield f"calls {name}"
    if name.startswith(("subprocess.", "asyncio.create_subprocess")) and node.args:
        first = node.args[0]
        if isinstance(first, (ast.Constant, ast.JoinedStr)) or "shell" in name:
            yield f"{name} with a command line instead of a list"
    if name == "yaml.load":
        loader = ast.unparse(node.args[1]) if len(node.args) > 1 else next(
            (ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"), "none"
        )  # fmt: skip
        if loader not in YAML_LOADERS:
            yield f"yaml.load with {loader}"
    if name.endswith("YAML") and not any(
        k.arg == "pure" and isinstance(k.value, ast.Constant) and k.value.value
        for k in node.keywords
    ):
        yield "a YAML reader that is not the pure, tag-free one"
    if name.endswith("XMLParser"):
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if given.get("resolve_entities") != "False" or given.get("no_network") != "True":
            yield "an XML parser with entities or network"
    if name.endswith(".from_pretrained") and not any(
        k.arg is None or k.arg == "local_files_only" for k in node.keywords
    ):
        yield f"{name} without local_files_only"
    if name.endswith((".extractall", ".extract")) and "sentence" not in name:
        yield f"calls {name}"


def _keywords(node: ast.keyword) -> Iterator[str]:
    value = ast.unparse(node.value)
    if node.arg in ("shell", "trust_remote_code", "allow_pickle", "huge_tree") and value != "False":
        yield f"{node.arg}={value}"
    if node.arg in ("verify", "check_hostname") and value == "False":
        yield f"{node.arg}=False"
    if node.arg == "allow_origins":
        yield "CORS"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_source_file_breaks_a_rule(path: Path) -> None:
    file = path.relative_to(SOURCE).as_posix()
    assert list(findings(ast.parse(path.read_text(encoding="utf-8")), file)) == []


@pytest.mark.parametrize(
    "sample",
    [
        "import pickle", "from pickle import loads", "import xml.etree.ElementTree", "import requests", "import socket",
        "from http import client", "eval('1')", "exec(x)", "import os; os.system('ls')", "subprocess.run('ls', shell=True)",
        "subprocess.run(f'ls {x}')", "torch.load(p)", "np.load(p, allow_pickle=True)", "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)",
        "YAML()", "etree.XMLParser()", "etree.XMLParser(resolve_entities=True, no_network=True)", "A.from_pretrained(x)",
        "f(trust_remote_code=True)", "archive.extractall(p)", "CORSMiddleware(allow_origins=['*'])", "f(verify=False)",
    ],
)  # fmt: skip
def test_each_rule_finds_what_breaks_it(sample: str) -> None:
    assert list(findings(ast.parse(sample), "data/x.py"))


def test_files_are_opened_without_following_links_where_others_could_place_them() -> None:
    """Sealed writes, locks, tokens and the attempts' log: each names O_NOFOLLOW."""
    for file in ("base/files.py", "base/egress.py", "serve/token.py"):
        assert "O_NOFOLLOW" in (SOURCE / file).read_text(encoding="utf-8"), file
