"""The lock is hashed, its licences fit, the bill of materials is whole, and the pages show what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dependencies = script("dependencies")


def test_every_package_of_the_lock_is_pinned_with_hashes() -> None:
    for name, (version, hashes) in dependencies.locked().items():
        assert version and hashes, name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in makefile


def test_no_licence_is_unknown_or_unfit() -> None:
    found = dependencies.packages()
    assert len(found) > 80
    assert [f"{p.name}: {p.licence}" for p in found if p.kind not in ("free", "listed")] == []


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "free"), ("Apache-2.0 OR BSD-3-Clause", "free"), ("GPL-3.0-only", "refused"), ("AGPL-3.0", "refused"),
        ("GNU General Public License v3 (GPLv3)", "refused"), ("MPL-2.0 AND MIT", "listed"), ("LGPL-2.1", "listed"),
        ("GNU Lesser General Public License v3", "listed"), ("MIT OR GPL-2.0", "free"), ("MIT AND GPL-2.0", "refused"), ("", "unknown"),
        ("as is", "unknown"), ("BUSL-1.1", "refused"),
    ],
)  # fmt: skip
def test_licences_are_judged(licence: str, kind: str) -> None:
    assert dependencies.Package("x", "1", (), licence, True).kind == kind


def test_the_page_of_licences_names_each_package_of_the_lock() -> None:
    text = dependencies.PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.\-]+) \| ([^|]+) \|", text, re.M))
    assert {n: v for n, (v, _) in dependencies.locked().items()}.items() <= {
        n: v.strip() for n, v in rows.items()
    }.items(), "run: python scripts/dependencies.py licences"


def test_the_bill_of_materials() -> None:
    found = dependencies.packages()
    made = dependencies.sbom(found)
    assert made == dependencies.sbom(found), "the same lock gives the same file"
    components = {c["name"]: c for c in made["components"]}
    assert components.keys() == {p.name for p in found} >= {"torch", "transformers", "click"}
    assert (
        components["click"]["scope"] == "required" and components["pytest"]["scope"] == "excluded"
    )
    assert components["click"]["externalReferences"][0]["hashes"]
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    try:
        problem = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(
            json.dumps(made)
        )
    except Exception as error:  # its own optional part is not installed
        pytest.skip(str(error))
    assert problem is None


def test_the_page_shows_the_measured_figures_and_no_defects() -> None:
    security = script("security")
    known = json.loads(security.MEASURED.read_text(encoding="utf-8"))
    assert security.PAGE.read_text(encoding="utf-8") == security.page(known)
    assert [part for part, figures in known.items() if figures["defects"]] == []
    assert sum(row["cases"] for row in known["api"]["rows"].values()) >= 10_000
    from tests.security.parsers import TARGETS

    assert known["parsers"]["rows"].keys() == TARGETS.keys()
