"""The pack for a machine without network: wheels from what is installed, and really no network."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from hauslm.base.errors import MissingError, RefusedError, UsageError
from hauslm.base.files import ProjectFolder
from hauslm.scenario import Scenario
from hauslm.share import offline, wheels

EMBEDDED = Scenario.model_validate({"name": "terms", "model": {"base": "embedded"}})


def _namespace_works() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    )


needs_namespace = pytest.mark.skipif(
    not _namespace_works(), reason="network namespaces are not allowed here (unshare -rn)"
)


def without_network(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-rn", *command], capture_output=True, text=True, cwd=cwd, check=False, timeout=1800,
    )  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two packages with what they need: quick, and the same way as the whole."""
    folder = ProjectFolder(tmp_path / "p")
    offline.pack(EMBEDDED, folder, tmp_path / "pack", bundle=None, packages=("click", "jinja2"))
    return tmp_path / "pack"


def test_the_pack_is_complete_and_its_sums_hold(small: Path) -> None:
    names = {p.relative_to(small).as_posix() for p in small.rglob("*") if p.is_file()}
    assert {
        "install.sh",
        "requirements.txt",
        "INSTALL.md",
        "INSTALLIEREN.md",
        "SHA256SUMS",
    } <= names
    sums = dict(
        reversed(line.split("  ")) for line in (small / "SHA256SUMS").read_text().splitlines()
    )
    assert set(sums) == names - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((small / name).read_bytes()).hexdigest() == digest
    lock = (small / "requirements.txt").read_text()
    assert (
        f"click=={metadata.version('click')} --hash=sha256:" in lock
        and "MarkupSafe" in lock.replace("markupsafe", "MarkupSafe")
    )
    assert "ohne Netz" in (small / "INSTALLIEREN.md").read_text()


def test_the_same_packages_give_the_same_wheels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = (wheels.write(metadata.distribution("click"), tmp_path / n) for n in ("a", "b"))
    assert one == two


@needs_namespace
def test_it_installs_where_there_is_no_network(small: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    done = without_network(
        sys.executable, "-m", "pip", "--python", str(venv), "install", "--no-index", "--quiet",
        "--find-links", str(small / "wheels"), "--require-hashes", "-r", str(small / "requirements.txt"),
        cwd=small,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = "import click, jinja2; print(jinja2.Template('{{ 1 + 1 }}').render(), click.__name__)"
    said = without_network(str(venv / "bin" / "python"), "-I", "-c", code, cwd=tmp_path)
    assert said.stdout.strip() == "2 click", said.stderr
    trap = without_network(
        sys.executable,
        "-c",
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        cwd=tmp_path,
    )
    assert trap.returncode != 0  # the namespace is one


def test_a_changed_wheel_stops_the_installer(small: Path, tmp_path: Path) -> None:
    wheel = next((small / "wheels").glob("click-*"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    done = subprocess.run(
        ["sh", str(small / "install.sh"), str(tmp_path / "venv")], capture_output=True, text=True,
        check=False, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode != 0 and not (tmp_path / "venv").exists()


def test_another_python_is_refused_in_both_languages(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(small / "install.sh")], capture_output=True, text=True, cwd=tmp_path,
        check=False, env={"PATH": "/usr/bin:/bin", "PYTHON": "/bin/false"},
    )  # fmt: skip
    assert done.returncode == 5 and "is needed" in done.stderr and "wird gebraucht" in done.stderr


def test_an_altered_package_is_not_packed(tmp_path: Path) -> None:
    """A distribution whose file differs from its RECORD."""
    site = tmp_path / "site"
    info = site / "thing-1.dist-info"
    info.mkdir(parents=True)
    (site / "thing.py").write_text("x = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    digest = wheels._urlsafe(hashlib.sha256(b"x = 1\n").digest())
    (info / "RECORD").write_text(
        f"thing.py,sha256={digest},6\nthing-1.dist-info/METADATA,,\nthing-1.dist-info/WHEEL,,\n"
    )
    dist = metadata.Distribution.at(info)
    assert wheels.write(dist, tmp_path).file == "thing-1-py3-none-any.whl"
    (site / "thing.py").write_text("x = 2\n")
    with pytest.raises(RefusedError, match="H766"):
        wheels.write(dist, tmp_path)


def test_a_package_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="H765"):
        wheels.closure("no-such-package-anywhere")


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="H734"):
        offline.pack(EMBEDDED, ProjectFolder(tmp_path / "p"), tmp_path, bundle=None)


@pytest.mark.slow
@needs_namespace
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_whole_of_hauslm_installs_and_works_without_network(tmp_path: Path) -> None:
    """Everything, about 1.5 GB: install.sh in a network namespace, then a verified stage."""
    pack = tmp_path / "pack"
    offline.pack(EMBEDDED, ProjectFolder(tmp_path / "p"), pack, bundle=None)
    done = without_network(
        "env",
        f"PYTHON={sys.executable}",
        "sh",
        str(pack / "install.sh"),
        str(tmp_path / "venv"),
        cwd=pack,
    )
    assert done.returncode == 0, done.stderr
    program = str(tmp_path / "venv" / "bin" / "hauslm")
    said = without_network(
        "env", "-u", "PYTHONPATH", program, "demo", "--until", "prepare", cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "demo" / "records" / "corpus.json").is_file()
