"""What do we build on, and may we pass it on? Licences, bill of materials and known weaknesses of the lock.

    python scripts/dependencies.py licences [--check]   docs/licences.md from the metadata of the locked packages
    python scripts/dependencies.py sbom [FILE]          CycloneDX 1.6 of the release, from requirements.lock
    python scripts/dependencies.py audit                pip-audit over the lock (asks PyPI; needs the network)

The lock is the truth: names, versions and hashes come from it. Licences come from the metadata of the
installed packages; a package of the lock that is not installed here is looked up in the
table that `licences` wrote before, and a package without any licence fails the check.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, PAGE = ROOT / "requirements.lock", ROOT / "docs" / "licences.md"

# What may be combined with and passed on beside Apache-2.0 code. Order matters: the first match counts.
REFUSED = re.compile(
    r"AGPL|SSPL|(?<!L)GPL|Affero|(?<!Lesser )General Public|CC-BY-NC|Commons Clause|BUSL|Proprietary",
    re.I,
)
LISTED = re.compile(r"LGPL|Lesser General|MPL|Mozilla|EPL|CDDL", re.I)
FREE = re.compile(
    r"Apache|MIT|BSD|ISC|PSF|Python Software Foundation|Unlicense|CC0|0BSD|Zlib|HPND|BSL-1\.0|Public Domain|NVIDIA", re.I
)  # fmt: skip
# Packages of the lock whose metadata cannot be read here or names no licence: (licence, where read).
KNOWN: dict[str, tuple[str, str]] = {
    "colorama": ("BSD-3-Clause", "metadata of colorama 0.4.6 (Windows only)"),
    "axe-playwright-python": ("MIT", "LICENSE in the wheel of 0.1.8; its metadata names none"),
    "appnope": ("BSD-2-Clause", "metadata of appnope 0.1.4 (macOS only)"),
    "docutils": (
        "Public Domain AND BSD-2-Clause",
        "COPYING of 0.22; its GPL holds for the Emacs mode rst.el, which the wheel does not contain",
    ),
    "httpx2-jsfetch": ("BSD-3-Clause", "metadata of httpx2-jsfetch 1.0 (Emscripten only)"),
}


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    hashes: tuple[str, ...]
    licence: str
    runtime: bool

    @property
    def kind(self) -> str:
        """'free', 'listed' (copyleft on its own files), 'refused' or 'unknown'."""
        # "A OR B" is a choice; one part that may be passed on is enough.
        parts = [p.strip(" ()") for p in re.split(r"\bOR\b", self.licence)]
        found = {_kind(p) for p in parts}
        return next((k for k in ("free", "listed", "refused") if k in found), "unknown")


def _kind(licence: str) -> str:
    for kind, pattern in (("refused", REFUSED), ("listed", LISTED), ("free", FREE)):
        if pattern.search(licence):
            return kind
    return "unknown"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, tuple[str, tuple[str, ...]]]:
    """name -> (version, sha256 hashes), as the lock has them."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    name = ""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==([^\s;]+)", line)
        if match:
            name = normal(match.group(1))
            found[name] = (match.group(2), ())
        for digest in re.findall(r"--hash=sha256:([0-9a-f]{64})", line):
            found[name] = (found[name][0], (*found[name][1], digest))
    return found


def licence_of(name: str) -> str:
    """As the package's metadata say: SPDX expression, else classifiers, else the first line of its text."""
    if name in KNOWN:
        return KNOWN[name][0]
    try:
        data = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return _written().get(name, "")
    expression = data.get("License-Expression")
    if expression:
        return str(expression)
    classes = [
        c.split(" :: ")[-1] for c in data.get_all("Classifier") or () if c.startswith("License ::")
    ]
    classes = [c for c in classes if c != "OSI Approved"]
    text = next(
        (line.strip() for line in str(data.get("License") or "").splitlines() if line.strip()), ""
    )
    return " AND ".join(classes) if classes else text[:80]


def _written() -> dict[str, str]:
    """name -> licence, as the page had it before."""
    if not PAGE.is_file():
        return {}
    rows = re.findall(
        r"^\| ([\w.\-]+) \| [^|]+ \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.M
    )
    return {name: licence.strip() for name, licence in rows}


def runtime_names() -> set[str]:
    """Names that hauslm itself needs, with all that those need; the rest of the lock is for developers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [
        _name(d) for d in (*project["dependencies"], *project["optional-dependencies"]["pdf"])
    ]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [_name(r) for r in needed if "extra ==" not in r]
    return found


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9_.\-]+", requirement)
    return normal(match.group()) if match else ""


def packages() -> list[Package]:
    """The lock, and torch, which the Makefile installs before it (in the build that fits the machine)."""
    needed = runtime_names()
    rows = {**locked()}
    torch = re.search(
        r"^TORCH_VERSION \?= (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
    )
    rows.setdefault("torch", (torch.group(1) if torch else "", ()))
    return [
        Package(name, version, hashes, licence_of(name), name in needed)
        for name, (version, hashes) in sorted(rows.items())
    ]


def page(found: list[Package]) -> str:
    lines = [
        "# Licences of what hauslm builds on", "",
        "Generated by `python scripts/dependencies.py licences` from requirements.lock (and torch, which the Makefile",
        "installs) and the metadata of the packages; a test fails on any that is unknown or may not be used beside",
        "Apache-2.0 code (GPL, AGPL and the like). hauslm ships none of them: pip installs them from their publishers.", "",
    ]  # fmt: skip
    for title, runtime in (("Needed to run", True), ("For developers only", False)):
        chosen = [p for p in found if p.runtime == runtime]
        lines += [
            f"## {title} ({len(chosen)})",
            "",
            "| package | version | licence | |",
            "|---|---|---|---|",
        ]
        for p in chosen:
            note = {"listed": "copyleft on its own files", "free": ""}.get(p.kind, p.kind.upper())
            lines.append(f"| {p.name} | {p.version} | {p.licence or '?'} | {note} |")
        lines.append("")
    return "\n".join(lines)


def sbom(found: list[Package]) -> dict[str, object]:
    """CycloneDX 1.6. No time stamp and a serial number from the lock: the same lock gives the same file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    root = f"pkg:pypi/hauslm@{project['version']}"
    components = []
    for p in found:
        purl = f"pkg:pypi/{p.name}@{p.version}"
        component: dict[str, object] = {
            "type": "library", "bom-ref": purl, "name": p.name, "version": p.version, "purl": purl,
            "scope": "required" if p.runtime else "excluded",
            "licenses": [{"license": {"name": p.licence or "unknown"}}],
        }  # fmt: skip
        if p.hashes:  # one per file that the lock permits (source, wheels of each platform)
            component["externalReferences"] = [
                {"type": "distribution", "url": f"https://pypi.org/project/{p.name}/{p.version}/",
                 "hashes": [{"alg": "SHA-256", "content": h} for h in sorted(set(p.hashes))]}
            ]  # fmt: skip
        components.append(component)
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{root}#{digest}')}",
        "metadata": {"component": {
            "type": "application", "bom-ref": root, "name": "hauslm", "version": project["version"], "purl": root,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        }},
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [f"pkg:pypi/{p.name}@{p.version}" for p in found if p.runtime]}],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("licences").add_argument("--check", action="store_true")
    commands.add_parser("sbom").add_argument(
        "file", nargs="?", type=Path, default=ROOT / "build" / "sbom.cdx.json"
    )
    commands.add_parser("audit")
    given = parser.parse_args()
    if given.command == "audit":
        argv = [
            sys.executable,
            "-m",
            "pip_audit",
            "-r",
            str(LOCK),
            "--no-deps",
            "--disable-pip",
            "--strict",
        ]
        return subprocess.run(argv, check=False).returncode
    found = packages()
    if given.command == "sbom":
        given.file.parent.mkdir(parents=True, exist_ok=True)
        given.file.write_text(json.dumps(sbom(found), indent=1) + "\n", encoding="utf-8")
        print(f"{given.file}: {len(found)} components")
        return 0
    if not given.check:
        PAGE.write_text(page(found), encoding="utf-8")
    bad = [
        f"{p.name} {p.version}: {p.licence or 'no licence'}"
        for p in found
        if p.kind in ("refused", "unknown")
    ]
    print("\n".join(bad) or f"{len(found)} packages, all licences fit")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
