"""No input makes a parser end otherwise than with a document or a typed error. The campaign is in
`scripts/security.py`; here each parser gets a few hundred inputs, and what the campaign found stays found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.parsers import TARGETS, Target, inputs

FEW = 120


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        target.feed(seed)
    for data in itertools.islice(inputs(target, 1), max(3, int(FEW * min(1.0, 2 * target.share)))):
        target.feed(data)


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if t.share > 0.1])
def test_any_bytes(name: str) -> None:
    """hypothesis, which shrinks what it finds to the smallest input."""
    target = TARGETS[name]

    @settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.one_of(
            st.binary(max_size=300),
            st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")),
        )
    )
    def run(data: bytes) -> None:
        target.feed(data)

    run()


def test_the_campaign_sees_an_untyped_error() -> None:
    def broken(data: bytes) -> Any:
        return {}[data]

    with pytest.raises(KeyError):
        Target(broken, list).feed(b"x")


def _misnamed() -> bytes:
    """A zip whose directory promises a UTF-8 name and holds another."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("wörd/x", "x")
    return out.getvalue().replace("wörd/x".encode(), b"w\xff\xfedd/x"[:7])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("records (JSON)", b'{"schema_version": ' + b"9" * 5000 + b"}"),
        ("records (JSON)", b"[" * 100_000),
        ("journal", b'{"key": "\xff"}\n'),
        ("journal", b"[1]\n"),
        ("answer of an endpoint", b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'),
        ("answer of an endpoint", b"[" * 100_000),
        ("JSON schema of a task", b'{"type": "object", "\\ud800": 1}'),
        ("XML (TEI)", b"\xff\xfe<TEI"),
        ("XML (JATS)", b"\xff\xfe<article/>"),
        ("DOCX", _misnamed()),
        ("bundle (zip)", _misnamed()),
        ("project file (YAML)", b"l!--: [texts]\n"),
        ("project file (YAML)", b"a[b]: 1\n"),
    ],
)  # fmt: skip
def test_what_the_campaign_found(name: str, data: bytes) -> None:
    TARGETS[name].feed(data)


# ---------------------------------------------------------------- what must be refused, not survived

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"


def test_yaml_aliases_tags_and_size_are_refused(tmp_path: Any) -> None:
    from hauslm.base.errors import HauslmError
    from hauslm.catalog.reader import parse as fact
    from hauslm.data.glossary import load_glossary
    from hauslm.scenario import parse

    for text in (
        BOMB.decode(),
        "name: !!python/object/apply:os.system ['id']",
        "# " + "x" * (1 << 20),
    ):
        with pytest.raises(HauslmError):
            parse(text)
        with pytest.raises(HauslmError):
            fact(text.encode(), "x.yaml")
        (tmp_path / "g.yaml").write_text(text)
        with pytest.raises(HauslmError):
            load_glossary(tmp_path / "g.yaml")


def test_xml_entities_are_refused_in_every_xml_format(tmp_path: Any) -> None:
    from hauslm.data.reading import read_documents
    from tests.data import making

    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of the house")
    external = f'<!DOCTYPE article [<!ENTITY x SYSTEM "file://{secret}">]><article><body><p>&x;</p></body></article>'
    for name, data in (("a.xml", making.ENTITY_BOMB), ("b.xml", external)):
        (tmp_path / name).write_text(data)
        documents, rejected = read_documents([name], tmp_path)
        assert list(documents) == [] and "entit" in rejected[0].reason.text
    making.docx(tmp_path / "c.docx", "", extra={"word/styles.xml": external.encode()})
    documents, rejected = read_documents(["c.docx"], tmp_path)
    assert list(documents) == [] and "entit" in rejected[0].reason.text


def test_paths_stay_in_the_project(tmp_path: Any) -> None:
    from hauslm.base.errors import UsageError
    from hauslm.base.files import ProjectFolder

    folder = ProjectFolder(tmp_path / "p")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "link").symlink_to(tmp_path)
    for name in ("../x", "/etc/passwd", "link/x", "a/../../x"):
        with pytest.raises(UsageError, match="H110"):
            folder.inside(name)
    assert folder.inside("a/b").is_relative_to(folder.root)


def test_a_planted_link_is_replaced_and_never_written_through(tmp_path: Any) -> None:
    from hauslm.base.errors import MissingError
    from hauslm.base.files import lock, write_sealed

    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "record.json").symlink_to(victim)
    write_sealed(tmp_path / "record.json", "new")
    assert victim.read_text() == "untouched" and not (tmp_path / "record.json").is_symlink()
    (tmp_path / ".train.lock").symlink_to(victim)
    with pytest.raises(MissingError), lock(tmp_path, "train"):
        pass
    assert victim.read_text() == "untouched"


def test_the_pdf_child_has_no_network_no_files_and_little_memory(tmp_path: Any) -> None:
    """The child's own way in, with a look at what it may still do instead of a PDF."""
    import subprocess
    import sys

    from hauslm.base import seccomp
    from hauslm.data.readers import pdf

    look = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import resource, socket\n"
        "from hauslm.data.readers import _pdf_child as child\n"
        "def extract(path, pages):\n"
        "    found = []\n"
        "    for attempt in (lambda: socket.socket(2, 1), lambda: open(path, 'wb', 0).write(b'xx'), lambda: bytearray(2 << 30)):\n"
        "        try: attempt(); found.append('done')\n"
        "        except (OSError, MemoryError) as error: found.append(type(error).__name__)\n"
        "    return {'found': found, 'cpu': resource.getrlimit(resource.RLIMIT_CPU)[0]}\n"
        "child.extract = extract; child.main(sys.argv[1:])\n"
    )
    target = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-I", "-c", look, str(pdf._PACKAGES), str(target), "10", "5", str(1 << 30)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    import json
    import signal

    answer = json.loads(done.stdout)
    assert answer["found"][0] in ("PermissionError", "EgressBlocked")
    assert answer["found"][1:] == ["OSError", "MemoryError"] and answer["cpu"] == 6
    assert (answer["filter"] is None) == (seccomp.unavailable() is None) and signal.SIGXFSZ
