"""A bundle is the same bytes twice, verifies, and every one-byte change or hostile trick is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from hauslm.base.errors import HauslmError, RefusedError
from hauslm.base.files import ProjectFolder, sha256_bytes
from hauslm.scenario import Scenario
from hauslm.share import archive
from hauslm.share.bundle import bundle, unpack
from hauslm.share.verify import verify
from tests.share.making import BASE, HIDDEN, RANK, SECRET, adapter, config, records, tensors


def test_same_input_same_bytes_and_it_verifies(project: ProjectFolder, packed: Path) -> None:
    first = packed.read_bytes()
    run, corpus = records(project)
    bundle(Scenario(name="terms"), project, run=run, corpus=corpus, evaluation=None)
    assert packed.read_bytes() == first
    assert verify(packed)["kind"] == "bundle"


def test_no_training_text_and_no_path_of_the_machine_travels(packed: Path) -> None:
    raw = packed.read_bytes()
    assert SECRET.encode() not in raw and b"/home/anna" not in raw


def test_unpacked_it_is_the_plain_adapter(
    packed: Path, project: ProjectFolder, tmp_path: Path
) -> None:
    folder = unpack(packed, tmp_path / "out")
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (project.adapter / weights).read_bytes()
    assert verify(folder)["kind"] == "folder"


def test_a_changed_adapter_is_not_packed(project: ProjectFolder) -> None:
    run, corpus = records(project)
    (project.adapter / "adapter_model.safetensors").write_bytes(save(tensors()) + b"x")
    with pytest.raises(HauslmError, match="H711"):
        bundle(Scenario(name="terms"), project, run=run, corpus=corpus, evaluation=None)


def test_llama_3_asks_for_its_name(project: ProjectFolder) -> None:
    from hauslm.share.licence import check_name, duties_of

    duties = duties_of("llama-3-8b", project.root)
    assert duties.name_prefix == "Llama 3" and "Notice.txt" in duties.texts
    with pytest.raises(RefusedError, match="H720"):
        check_name("terms", duties)
    check_name("Llama 3 terms", duties)


def _zip(entries: list[tuple[str, bytes]], target: Path, **kind: int) -> Path:
    with zipfile.ZipFile(target, "w", kind.get("method", zipfile.ZIP_STORED)) as made:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = kind.get("method", zipfile.ZIP_STORED)
            info.external_attr = kind.get("attr", 0o100644) << 16
            made.writestr(info, data)
    return target


def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {i.filename: opened.read(i) for i in opened.infolist()}


def _resealed(entries: dict[str, bytes]) -> bytes:
    """As a liar would: the manifest is made to match."""
    manifest = json.loads(entries["manifest.json"])
    manifest["files"] = {n: sha256_bytes(b) for n, b in entries.items() if n != "manifest.json"}
    return archive.write(entries | {"manifest.json": json.dumps(manifest).encode()})


def _with(**changes: bytes | None) -> Callable[[dict[str, bytes]], bytes]:
    def make(entries: dict[str, bytes]) -> bytes:
        names = {k.replace("__", "."): v for k, v in changes.items()}
        merged = {n: b for n, b in (entries | names).items() if b is not None}
        return _resealed(merged)

    return make


def _config(**changes: object) -> Callable[[dict[str, bytes]], bytes]:
    return _with(adapter_config__json=json.dumps(config(**changes)).encode())


def _weights(**changes: np.ndarray) -> Callable[[dict[str, bytes]], bytes]:
    return _with(adapter_model__safetensors=save(tensors(**changes)))


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def _nan() -> np.ndarray:
    value = tensors()[FIRST].copy()
    value[0, 0] = np.nan
    return value


def _without(name: str) -> Callable[[dict[str, bytes]], bytes]:
    left = {n: t for n, t in tensors().items() if n != name}
    return _with(adapter_model__safetensors=save(left))


HOSTILE: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "regular expression that hangs": _config(target_modules="(a+)+$"),
    "regular expression in a list": _config(target_modules=["(a+)+$"]),
    "pattern in rank_pattern": _config(rank_pattern={"(x|x)*y": 4}),
    "rank of ten million": _config(r=10**7),
    "rank zero": _config(r=0),
    "rank as text": _config(r="4"),
    "unknown key": _config(load_this="http://192.0.2.1"),
    "auto mapping of a class": _config(auto_map={"AutoModel": "evil.py"}),
    "other peft type": _config(peft_type="PROMPT_TUNING"),
    "bias trained": _config(bias="all"),
    "runtime quantisation": _config(loftq_config={"a": 1}),
    "target not adapted": _config(target_modules=["q_proj", "v_proj", "k_proj"]),
    "rank unlike the tensors": _config(r=8),
    "config is a list": _with(adapter_config__json=b"[]"),
    "config is not JSON": _with(adapter_config__json=b"{"),
    "config nested ten thousand deep": _with(adapter_config__json=b"[" * 10_000),
    "config missing": _with(adapter_config__json=None),
    "weights missing": _with(adapter_model__safetensors=None),
    "NaN": _weights(**{FIRST: _nan()}),
    "infinity": _weights(**{FIRST: np.full((RANK, HIDDEN), np.inf, np.float32)}),
    "half an adapter": _without(FIRST),
    "foreign tensor": _weights(**{"lm_head.weight": np.zeros((2, 2), np.float32)}),
    "wrong rank of one tensor": _weights(**{FIRST: np.zeros((2, HIDDEN), np.float32)}),
    "three dimensions": _weights(**{FIRST: np.zeros((RANK, HIDDEN, 1), np.float32)}),
    "integer weights": _weights(**{FIRST: np.zeros((RANK, HIDDEN), np.int64)}),
    "weights empty": _with(adapter_model__safetensors=b""),
    "weights are a pickle": _with(adapter_model__safetensors=b"\x80\x04K\x01."),
    "header longer than the file": _with(
        adapter_model__safetensors=(1 << 40).to_bytes(8, "little") + b"{}"
    ),
    "header not JSON": _with(adapter_model__safetensors=(4).to_bytes(8, "little") + b"abcd"),
    "bytes after the tensors": _with(adapter_model__safetensors=save(tensors()) + b"\0" * 8),
    "tensors overlap": _with(
        adapter_model__safetensors=(lambda h: len(h).to_bytes(8, "little") + h + b"\0" * 16)(
            json.dumps(
                {
                    "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                    "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                }
            ).encode()
        )
    ),
    "extra program file": lambda e: archive.write(e | {"evil.py": b"print(1)"}),
    "manifest missing": lambda e: archive.write(
        {n: b for n, b in e.items() if n != "manifest.json"}
    ),
    "manifest of another form": lambda e: archive.write(e | {"manifest.json": b'{"format": "x"}'}),
    "listed file missing": lambda e: archive.write(
        {n: b for n, b in e.items() if n != "README.md"}
    ),
    "licence file removed": lambda e: _resealed(
        {n: b for n, b in e.items() if not n.startswith("LICENSE")}
    ),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_bundles_are_refused_with_a_reason(case: str, packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "hostile.hlm"
    target.write_bytes(HOSTILE[case](_entries(packed)))
    with pytest.raises(RefusedError) as caught:
        verify(target)
    assert caught.value.exit_code == 4
    assert caught.value.text("en") != caught.value.text("de")


ARCHIVES: dict[str, Callable[[list[tuple[str, bytes]], Path], Path]] = {
    "path traversal": lambda e, t: _zip([*e, ("../../evil", b"x")], t),
    "absolute path": lambda e, t: _zip([*e, ("/etc/evil", b"x")], t),
    "folder in a name": lambda e, t: _zip([*e, ("a/b", b"x")], t),
    "control character in a name": lambda e, t: _zip([*e, ("a\nb", b"x")], t),
    "same name in other case": lambda e, t: _zip([*e, ("readme.MD", b"x")], t),
    "deflate bomb": lambda e, t: _zip(
        [*e, ("zz", b"\0" * 50_000_000)], t, method=zipfile.ZIP_DEFLATED
    ),
    "symbolic link": lambda e, t: _zip(e, t, attr=0o120777),
    "too many entries": lambda e, t: _zip([*e, *((f"f{i}", b"") for i in range(100))], t),
    "no entries": lambda e, t: _zip([], t),
    "not a zip": lambda e, t: (t.write_bytes(b"PK but no"), t)[1],
    "empty file": lambda e, t: (t.write_bytes(b""), t)[1],
    "text before the zip": lambda e, t: (
        t.write_bytes(b"#!/bin/sh\n" + _zip(e, t).read_bytes()),
        t,
    )[1],
    "cut in the middle": lambda e, t: (t.write_bytes(_zip(e, t).read_bytes()[:-200]), t)[1],
}


@pytest.mark.parametrize("case", sorted(ARCHIVES))
def test_hostile_archives_are_refused_before_anything_is_read(
    case: str, packed: Path, tmp_path: Path
) -> None:
    target = ARCHIVES[case](list(_entries(packed).items()), tmp_path / "hostile.hlm")
    with pytest.raises(RefusedError):
        verify(target)


def test_the_base_models_widths_and_layers_are_compared(packed: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(BASE))
    assert verify(packed, base=base)["kind"] == "bundle"
    for change in ({"hidden_size": 32}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}):
        (base / "config.json").write_text(json.dumps(BASE | change))
        with pytest.raises(RefusedError, match="H713"):
            verify(packed, base=base)


@pytest.mark.parametrize("name", ["adapter_model.bin", "setup.py"])
def test_a_folder_with_something_that_could_run_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "a")
    (folder / name).write_bytes(b"x")
    with pytest.raises(RefusedError, match="H716"):
        verify(folder)


def test_a_folder_with_a_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "notes.txt").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="H715"):
        verify(folder)
