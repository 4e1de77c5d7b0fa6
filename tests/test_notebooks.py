"""Do the course's notebooks run, as they stand, and are they two languages of one thing?"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"en": "lab.ipynb", "de": "lab.de.ipynb"}


def _read(name: str) -> Any:
    return nbformat.read(ROOT / "examples" / name, as_version=4)


def _execute(book: Any, folder: Path) -> list[Any]:
    """Run every cell with this interpreter; the outputs in order."""
    kernels = folder / "kernels" / "here"
    kernels.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "here", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    found = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    manager = AsyncKernelManager(kernel_name="here", kernel_spec_manager=found)
    client = nbclient.NotebookClient(
        book, km=manager, timeout=900, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [o for c in book.cells if c.cell_type == "code" for o in c.outputs]


def test_the_files_are_what_the_script_writes_and_hold_no_outputs() -> None:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for language, name in NAMES.items():
        held = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))
        assert held == script.notebook(language), "run scripts/notebooks.py"
        nbformat.validate(_read(name))
        assert not any(c.get("outputs") for c in held["cells"])


def test_both_languages_run_the_same_code() -> None:
    code = {}
    for language, name in NAMES.items():
        cells = [c.source for c in _read(name).cells if c.cell_type == "code"]
        code[language] = [c.replace(f'"{language}"', "L").replace(f"language: {language}", "L") for c in cells]  # fmt: skip
        texts = [c.source for c in _read(name).cells if c.cell_type == "markdown"]
        assert len(texts) == len(set(texts)) and "LANG" not in "".join(cells).replace(
            "LANGUAGE", ""
        )
    assert code["en"] == code["de"]


def test_the_quick_half_runs_in_german_with_drawings(tmp_path: Path) -> None:
    book = _read(NAMES["de"])
    book.cells = [c for c in book.cells if "slow" not in c.metadata.get("tags", [])]
    outputs = _execute(book, tmp_path)
    drawn = [o for o in outputs if "image/svg+xml" in o.get("data", {})]
    told = "".join(o["data"].get("text/markdown", "") for o in outputs if "data" in o)
    assert len(drawn) == 5 and "Die Entscheidung" in told and "Kosten" in told
    printed = "".join(o.get("text", "") for o in outputs)
    assert "True 4096 1024" in printed and "Passt nicht" in printed and "Passt mit Luft" in printed


@pytest.mark.slow
@pytest.mark.parametrize("language", sorted(NAMES))
def test_the_whole_notebook_runs(language: str, tmp_path: Path) -> None:
    outputs = _execute(_read(NAMES[language]), tmp_path)
    assert not [o for o in outputs if o.output_type == "error"]
    assert sum("image/svg+xml" in o.get("data", {}) for o in outputs) == 7
