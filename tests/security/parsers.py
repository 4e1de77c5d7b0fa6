"""Every parser of foreign bytes behind one call: `TARGETS[name].feed(bytes)` returns, or raises what is a defect.

Typed answers (the error family, a reader's refusal) are what a parser is for; they are swallowed here.
Anything else (KeyError, RecursionError, ...) is untyped and propagates. The readers are called without
the net of `data.reading`, which would turn a surprise into a refusal. Used by the tests with hypothesis,
and by `scripts/security.py` with hypothesis and atheris.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hauslm.base.errors import HauslmError
from hauslm.data.document import Limits, UnreadableError
from tests.data import making

LIMITS = Limits(file_bytes=1 << 20, line_bytes=1 << 18, pdf_seconds=20.0, pdf_memory_bytes=1 << 30)
ROWS = 200


@lru_cache(maxsize=1)
def place() -> Path:
    """A folder for the one file that a parser is given."""
    return Path(tempfile.mkdtemp(prefix="hauslm-fuzz-"))


def _file(name: str, data: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _reader(module: str, name: str) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        import importlib

        reader = importlib.import_module(f"hauslm.data.readers.{module}")
        with suppress(UnreadableError):
            for item in itertools.islice(reader.read(_file(name, data), LIMITS), ROWS):
                from hauslm.data import hidden
                from hauslm.data.document import Document

                if isinstance(item, Document):  # what happens to every document next
                    hidden.with_hidden(item).with_hash()

    return feed


def _typed(call: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        with suppress(HauslmError, UnreadableError):
            call(data)

    return feed


def _project(data: bytes) -> None:
    from hauslm.scenario import load

    load(_file("hauslm.yaml", data))


def _record(data: bytes) -> None:
    from hauslm import records

    for kind in (records.Privacy, records.Corpus, records.Run, records.Evaluation):
        with suppress(HauslmError):
            kind.load(_file("record.json", data))


def _config(data: bytes) -> None:
    from hauslm.catalog.config import architecture_of, read_config, refuse_code

    _file("model/config.json", data)
    config = read_config(place() / "model")
    refuse_code(place() / "model", config)
    architecture_of(config, "config.json")


def _adapter_config(data: bytes) -> None:
    from hauslm.lm.checks import check_adapter

    _file("adapter/adapter_config.json", data)
    _file("adapter/adapter_model.safetensors", bytes(16))
    check_adapter(place() / "adapter")


def _bundle(data: bytes) -> None:
    from hauslm.share.verify import verify

    verify(_file("b.hlm", data))


def _tensors(data: bytes) -> None:
    from hauslm.share.tensors import problem

    problem(io.BytesIO(data), len(data), {"r": 4, "target_modules": ["q_proj"]}, None)


def _request(data: bytes) -> None:
    from hauslm.serve.refusal import ApiError
    from hauslm.serve.wire import chat_ask, parse_json, text_ask

    with suppress(ApiError):
        body = parse_json(data)
        for ask in (chat_ask, text_ask):
            with suppress(ApiError):
                ask(body)


def _answer(data: bytes) -> None:
    """What a cloud endpoint answers, on its way to a Reply."""
    from hauslm.lm import remote
    from hauslm.lm.interface import Message, Request
    from hauslm.lm.permit import permit_for
    from hauslm.scenario import Scenario

    permit = permit_for(Scenario(), "127.0.0.1")
    model = remote.RemoteModel(
        "http://127.0.0.1/v1", {"": "m"}, permit, context_length=64, attempts=1
    )
    model._models = {"m": "m"}
    request = Request((Message("user", "x"),), max_new_tokens=4, adapter="m")
    for status in (200, 400, 429):
        model._once = lambda *_, status=status: (status, {"Retry-After": "1"}, data)  # type: ignore[method-assign]
        with suppress(HauslmError):
            model._answer(request, {})


def _stream(data: bytes) -> None:
    """SSE as the server writes it: whatever the model says must come back as it was."""
    from hauslm.serve.shapes import event

    text = data.decode("utf-8", "replace")
    frame = event({"text": text})
    lines = frame.split("\n")
    assert lines[1:] == ["", ""] and lines[0].startswith("data: "), frame
    assert "\r" not in frame and json.loads(lines[0][6:]) == {"text": text}


def _journal(data: bytes) -> None:
    from hauslm.base.files import Journal

    Journal(_file("j.jsonl", data)).close()


def _glossary(data: bytes) -> None:
    from hauslm.data.glossary import load_glossary

    load_glossary(_file("g.yaml", data))


def _fact(data: bytes) -> None:
    from hauslm.catalog.reader import parse

    parse(data, "x.yaml").mapping()


def _schema(data: bytes) -> None:
    from hauslm.lm import schema

    with suppress(ValueError, RecursionError):  # no JSON at all is not this parser's matter
        value = json.loads(data)
        if isinstance(value, dict):
            _checked(schema, value)


def _checked(schema: Any, value: dict[str, Any]) -> None:
    try:
        schema.check(value)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, HauslmError):
            raise AssertionError(f"untyped {error!r}") from error
        return
    schema.longest_characters(value)


def _packet(data: bytes) -> None:
    from hauslm.base.trap import describe

    for protocol in (0x0800, 0x86DD, 0x0806):
        describe(protocol, data)


# ---------------------------------------------------------------- seeds

_TEI = (
    '<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>A</title></titleStmt>'
    "<publicationStmt><availability><p>CC BY</p></availability></publicationStmt></fileDesc></teiHeader>"
    "<text><body><div><head>H</head><p>One <hi>two</hi>.</p><table><row><cell>1</cell></row></table></div></body></text></TEI>"
)
_HTML = (
    '<html lang="en"><head><style>.a{display:none}</style><meta name="citation_doi" content="10.1/x"></head><body><h1>T</h1>'
    '<p class="a" style="color:#fff">x</p><table><tr><td>1</td></tr></table><ul><li>y</li></ul><math><mfrac><mi>a</mi><mi>b</mi></mfrac></math></body></html>'
)
_YAML = (
    "name: team\nlanguage: en\ndocuments: [texts]\nmodel:\n  base: embedded\nadapter: {r: 8}\n"
    "scenario:\n  workload: {documents_per_month: 50}\n  budget: {amount: 10}\n"
)
_CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100,
    "rope_parameters": {"rope_theta": 10000.0}, "sliding_window": None, "tie_word_embeddings": True,
}  # fmt: skip
_ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "bias": "none",
}
_CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "stop": ["a"], "n": 2,
         "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}}  # fmt: skip
_ANSWER = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [
    {"token": "x", "logprob": -1.0, "top_logprobs": [{"token": "y", "logprob": -2}]}]}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1}}  # fmt: skip


def _docx_seed() -> bytes:
    run = '<w:p><w:pPr><w:pStyle w:val="H"/></w:pPr><w:r><w:rPr><w:color w:val="FFFFFF"/><w:sz w:val="2"/></w:rPr><w:t>x</w:t></w:r></w:p>'
    return making.docx(place() / "seed.docx", run).read_bytes()


def _bundle_seed() -> bytes:
    """A small zip in the bundle's shape; its hashes hold, so that what stands behind them is reached."""
    import hashlib

    weights = (2).to_bytes(8, "little") + b"{}"
    files = {
        "adapter_config.json": json.dumps(_ADAPTER).encode(),
        "adapter_model.safetensors": weights,
    }
    manifest = {
        "format": "hauslm-bundle/1", "name": "x", "base": {"id": "embedded", "sha256": "0" * 64}, "template_sha256": "0" * 64,
        "data_fingerprint": "f" * 64, "rights": {}, "licence": {}, "evaluated": True, "memorisation_passed": True,
        "files": {n: hashlib.sha256(d).hexdigest() for n, d in files.items()},
    }  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
            made.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def _tensor_seed() -> bytes:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    head = json.dumps({name: {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(32)


def _pdf_seed() -> bytes:
    line = "The reservoir keeps the pressure steady while the player changes from one chord to the next."
    return making.pdf([making.column(50, 100, [line] * 6)])


@dataclass(frozen=True)
class Target:
    """`feed` one input; `seeds` are sound inputs to start from; `share`: of the campaign's cases."""

    feed: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    share: float = 1.0


def _json(*values: Any) -> Callable[[], list[bytes]]:
    return lambda: [json.dumps(v).encode() for v in values]


def _texts(*values: str) -> Callable[[], list[bytes]]:
    return lambda: [v.encode() for v in values]


TARGETS = {
    "project file (YAML)": Target(_typed(_project), _texts(_YAML, "a: &a [*a]", "name: !!python/x y"), 0.3),
    "records (JSON)": Target(_typed(_record), _json({"schema_version": 1, "passed": True, "packets": 0})),
    "config.json of a model": Target(_typed(_config), _json(_CONFIG)),
    "adapter_config.json": Target(_typed(_adapter_config), _json(_ADAPTER)),
    "bundle (zip)": Target(_typed(_bundle), lambda: [_bundle_seed()]),
    "tensors (safetensors)": Target(_tensors, lambda: [_tensor_seed()]),
    "JSONL": Target(_reader("jsonl", "a.jsonl"), _texts('{"text": "a"}\n{"messages": [{"role": "user", "content": "x"}]}\n{"prompt": "a", "completion": "b"}')),
    "CSV": Target(_reader("table", "a.csv"), _texts('id;text\n1;"a\nb"\n', "text,title\nx,y\n")),
    "Markdown": Target(_reader("markdown", "a.md"), _texts("---\ntitle: A\n---\n# A\n\n- [x](y)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")),
    "text": Target(_reader("text", "a.txt"), _texts("A plain text.\n\nTwo.")),
    "XML (JATS)": Target(_reader("jats", "a.xml"), lambda: [making.jats().encode()]),
    "XML (TEI)": Target(_reader("tei", "a.xml"), _texts(_TEI)),
    "HTML": Target(_reader("html", "a.html"), _texts(_HTML)),
    "DOCX": Target(_reader("docx", "a.docx"), lambda: [_docx_seed()]),
    "PDF": Target(_reader("pdf", "a.pdf"), lambda: [_pdf_seed()], 0.05),
    "request of a client": Target(_request, _json(_CHAT, {"model": "m", "prompt": ["a"], "logprobs": 2})),
    "answer of an endpoint": Target(_answer, _json(_ANSWER, {"error": {"message": "no"}})),
    "SSE events": Target(_stream, _texts("a\r\nb\u2028c")),
    "journal": Target(_typed(_journal), _texts('{"key": "a"}\n{"key": "b"}\n')),
    "glossary (YAML)": Target(_typed(_glossary), _texts("terms:\n- id: a\n  en: {canonical: x, variants: [y]}\n")),
    "fact of the catalog (YAML)": Target(_typed(_fact), _texts("id: a\nsources:\n  s: {title: t, url: u}\n")),
    "JSON schema of a task": Target(_typed(_schema), _json({"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}, "$defs": {"x": {"$ref": "#/$defs/x"}}})),
    "packet in the trap": Target(_packet, lambda: [bytes(60)]),
}  # fmt: skip


# ---------------------------------------------------------------- mutation

_PIECES = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"9" * 5000, b"-1", b"1e999", b"NaN", b"[" * 300, b'{"a":' * 300, b"null", b"true",
    b"<a>" * 300, b"<!ENTITY a 'b'>", b"&#0;", b"]]>", b"<!--", b"%s", b"\r", b"\n", b"\xe2\x80\xa8", b"'", b'"', b"\\u0000", b"\\ud800",
    b"../", b"*a", b"&a", b"!!python/object:os.system", b"9999-99-99", b"0x7f", b": ", b"- ", b"#", b"{}", b"[]", b'""',
)  # fmt: skip


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """A few changes to a sound input: flips, cuts, doublings, foreign pieces; JSON values replaced."""
    if seed[:1] == b"{" and rng.random() < 0.5:
        with suppress(ValueError):
            value = json.loads(seed)
            for _ in range(rng.randint(1, 3)):
                value = _swapped(value, rng)
            return json.dumps(value).encode()
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.randint(0, 40))
        match rng.randint(0, 4):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randint(0, 7)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * rng.randint(1, 3)
            case 3:
                data[at:at] = rng.choice(_PIECES)
            case _:
                data[at:end] = rng.choice(_PIECES)
    return bytes(data)


_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    1e308,
    "",
    "x",
    "\0",
    "*",
    [],
    {},
    [None],
    {"": {}},
    [[[]]],
    "9" * 400,
)


def _swapped(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {
                **value,
                rng.choice(("auto_map", "__class__", "", "x" * 300)): rng.choice(_VALUES),
            }
        return {**value, key: _swapped(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _swapped(value[at], rng), *value[at + 1 :]]
    return rng.choice(_VALUES)


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """An endless stream of inputs: mostly mutated seeds, now and then plain noise."""
    rng = random.Random(seed)
    seeds = target.seeds()
    while True:
        if rng.random() < 0.05:
            yield rng.randbytes(rng.randint(0, 200))
        else:
            yield mutated(rng.choice(seeds), rng)
