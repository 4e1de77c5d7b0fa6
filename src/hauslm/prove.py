"""Does anything leave? The stages run in a network trap, and what they send is counted.

A claim that nothing leaves is worth nothing to a data-protection officer; this makes the record
`privacy.json`. The stages run as the commands that a user runs, with the guard as shipped, on a copy of
the project with few steps, in a private network whose only way out counts every packet (`base/trap.py`).
A control then sends on purpose, past the guard, to an address of the trap: if that is not caught, a
count of 0 means nothing. Passed means 0 packets from the stages and more than 0 from the control.

What this does not prove stands in the record as well (`limits`). Where the kernel permits no private
network, the record says "not proven"; it never says that nothing was seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hauslm.base import egress, trap
from hauslm.base.errors import MissingError, RefusedError, UsageError, did_you_mean
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.progress import Progress, Silent
from hauslm.base.version import __version__
from hauslm.base.words import N_, Sentence, language, say, speaking
from hauslm.records import Privacy, Said

STAGES = ("prepare", "train", "evaluate", "bundle", "analyse", "serve")
DEFAULT = ("prepare", "train", "evaluate", "analyse", "serve")
TRAP_LAYER = N_("Network trap")
TRIED_LAYER = N_("The guard, tried in the trap")

# A run long enough to pass through every piece of code, and no longer.
_SHORT: dict[str, int] = {
    "training.max_steps": 3,
    "evaluation.max_items": 12,
    "evaluation.max_documents": 2,
    "analysis.max_documents": 1,
    "analysis.max_new_tokens": 24,
}
_PATHS = (
    "documents", "documents.paths", "analysis.paths", "evaluation.task.file",
    "evaluation.task.train_file", "evaluation.task.test_file", "evaluation.glossary",
    "model", "model.base", "model.path",
)  # fmt: skip
_OUTPUTS = frozenset(("records", "work", "adapter", "bundles", "analysis", "report", "logs"))
_LINKED_ABOVE_BYTES = 16 << 20  # weights are linked, not copied: no stage writes to its inputs

# The control, one per way out: plain Python, native code past Python, a shell.
_CONTROLS = {
    N_("Python TCP"): f"import socket; socket.create_connection(('{trap.TARGET}', 443), 0.3)",
    N_(
        "Python TCP, IPv6"
    ): f"import socket; socket.create_connection(('{trap.TARGET6}', 443), 0.3)",
    N_("UDP"): f"import socket; socket.socket(2, 2).sendto(b'control', ('{trap.TARGET}', 53))",
    N_("Name look-up (DNS)"): "import socket; socket.getaddrinfo('control.example', 443)",
}
_NATIVE = (
    "import ctypes, struct, socket; c = ctypes.CDLL(None); f = c.socket(2, 1 | 2048, 0); "
    f"a = struct.pack('=H', 2) + struct.pack('!H', 443) + socket.inet_aton('{trap.TARGET}') + bytes(8); "
    "c.connect(f, a, 16)"
)
_SHELL = f"timeout 0.3 bash -c 'exec 3<>/dev/tcp/{trap.TARGET}/443'"


def prove(
    root: Path,
    *,
    stages: Sequence[str] = DEFAULT,
    progress: Progress | None = None,
) -> Privacy:
    """Run `stages` (in the order of `STAGES`) in the trap and write `records/privacy.json`.

    `root` is a project folder; without a project file in it the demo's project is taken. The project
    itself is not touched: the stages work on a copy. Whether the record is a proof says `passed`;
    `verdict` turns anything else into an error. H140 for a stage that cannot be run here.
    """
    progress = progress or Silent()
    for name in stages:
        if name not in STAGES:
            raise UsageError(
                "H140",
                say("'{name}' cannot be run in the trap.", name=name),
                next_step=did_you_mean(name, STAGES),
            )
    folder = ProjectFolder(root)
    with _workplace(folder) as place:
        copy = place / "project"
        notices = _prepare_copy(folder, copy)
        log = place / "attempts.jsonl"
        commands = _commands(copy, [s for s in STAGES if s in stages], log)
        answers = _in_trap(commands, progress)
        attempts = _attempts(log)
    inputs = {"hauslm.yaml": sha256_file(folder.file)} if folder.file.is_file() else {}
    record = _record(answers, list(stages), attempts, notices).model_copy(
        update={"inputs": inputs, "hauslm_version": __version__, "language": language()}
    )
    record.save(folder.records)
    return record


def verdict(record: Privacy) -> None:
    """Nothing if the proof passed, else the error that says why not: exit code 4 or 5.

    H480 packets were seen; H550 no private network here; H551 a stage or the control did not work.
    """
    if record.passed:
        return
    if record.packets:
        targets = sorted({a["target"] for a in record.attempts if a.get("event") == "packet"})
        raise RefusedError(
            "H480",
            say(
                "{count:,} packets tried to leave ({targets}).",
                count=record.packets,
                targets=", ".join(targets[:5]) or "?",
            ),
            next_step=say("Read the attempts in records/privacy.json, and report them."),
        )
    if record.packets is None:
        raise MissingError(
            "H550",
            say(
                "Not proven: {reason}",
                reason=record.layers[TRAP_LAYER].sentence(),
            ),
            next_step=say(
                "Run it on Linux where unprivileged user namespaces are permitted, or as root in a "
                "virtual machine."
            ),
        )
    raise MissingError(
        "H551",
        say(
            "Not proven: {reasons}",
            reasons=[n.sentence() for n in record.notices] or say("the control was not caught"),
        ),
        next_step=say("Make the stage run outside the trap first, then prove again."),
    )


# ---------------------------------------------------------------- the copy


@contextlib.contextmanager
def _workplace(folder: ProjectFolder) -> Iterator[Path]:
    """A folder that is gone afterwards; inside the project, so that weights can be linked."""
    parent = None
    if folder.file.is_file():
        folder.work.mkdir(parents=True, exist_ok=True)
        parent = folder.work
    with tempfile.TemporaryDirectory(
        prefix="proof-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _prepare_copy(folder: ProjectFolder, copy: Path) -> list[Sentence]:
    """The project (or the demo's) in `copy`, shortened; returns what the reader must know of it."""
    if folder.file.is_file():
        _copy(folder.root, copy)
        _shorten(copy / "hauslm.yaml", folder.root)
        return []
    command = [*_hauslm("demo", copy), "--until", "compare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if not (copy / "hauslm.yaml").is_file():
        raise MissingError(
            "H551",
            say(
                "The demo's project could not be made ({reason}).",
                reason=done.stderr.strip()[-300:],
            ),
            next_step=say("hauslm check shows what is missing."),
        )
    _shorten(copy / "hauslm.yaml", copy)
    return [say("There is no project file here: the demo's project was run.")]


def _copy(root: Path, copy: Path) -> None:
    copy.mkdir()
    for entry in sorted(root.iterdir()):
        if entry.name in _OUTPUTS or entry.name.startswith("."):
            continue
        if entry.is_dir():
            shutil.copytree(
                entry, copy / entry.name, copy_function=_copy_or_link, ignore_dangling_symlinks=True
            )
        elif entry.is_file():
            _copy_or_link(str(entry), str(copy / entry.name))


def _copy_or_link(source: str, target: str) -> str:
    if Path(source).stat().st_size > _LINKED_ABOVE_BYTES:
        with contextlib.suppress(OSError):
            os.link(os.path.realpath(source), target)
            return target
    return str(shutil.copy2(source, target))


def _shorten(file: Path, root: Path) -> None:
    """Few steps, and relative paths out of the project made absolute; everything else stays."""
    from ruamel.yaml import YAML

    writer = YAML(typ="rt", pure=True)
    data = writer.load(file.read_text(encoding="utf-8")) or {}
    for dotted in _PATHS:
        _change(data, dotted, lambda value: _anchored(value, root))
    if isinstance(data.get("documents"), (str, list)):  # the short forms of scenario.py
        data["documents"] = {"paths": data["documents"]}
    for dotted, most in _SHORT.items():
        section, field = dotted.split(".")
        node = data.get(section)
        if not isinstance(node, dict):
            node = data[section] = {}
        given = node.get(field)
        node[field] = min(given, most) if isinstance(given, int) else most
    with file.open("w", encoding="utf-8") as stream:
        writer.dump(data, stream)


def _change(data: Any, dotted: str, change: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        data = data.get(parent) if isinstance(data, dict) else None
    if isinstance(data, dict) and last in data:
        data[last] = change(data[last])


def _anchored(value: Any, root: Path) -> Any:
    if isinstance(value, list):
        return [_anchored(v, root) for v in value]
    if isinstance(value, str) and Path(os.path.normpath(value)).parts[:1] == ("..",):
        return str(root / value)
    return value


# ---------------------------------------------------------------- in the trap


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1", "LANGUAGE": language()}


def _hauslm(stage: str, folder: Path) -> list[str]:
    # -P: a file named torch.py in the project folder must not become a module.
    command = [sys.executable, "-P", "-m", "hauslm", stage, "-C", str(folder), "--quiet"]
    return [*command, "--language", language()]


def _commands(copy: Path, stages: Sequence[str], log: Path) -> list[dict[str, Any]]:
    """Stages, then the guard tried from within, then the controls; in the trap's request format."""
    mine = [sys.executable, "-P", "-m", "hauslm.prove"]
    environment = {egress.LOG_VARIABLE: str(log), "LANGUAGE": language()}
    commands = [
        {
            "name": stage,
            "argv": [*mine, "serve", str(copy)] if stage == "serve" else _hauslm(stage, copy),
            "env": environment,
        }
        for stage in stages
    ]
    commands.append({"name": "guard", "argv": [*mine, "guard"], "env": {"LANGUAGE": "en"}})
    plain = [sys.executable, "-I", "-c"]
    commands += [{"name": f"control: {n}", "argv": [*plain, c]} for n, c in _CONTROLS.items()]
    for name, argv in (
        (N_("Native code"), [*plain, _NATIVE]),
        (N_("Shell"), ["bash", "-c", _SHELL]),
    ):
        commands.append({"name": f"control: {name}", "argv": argv})
    return commands


def _in_trap(commands: Sequence[dict[str, Any]], progress: Progress) -> list[dict[str, Any]]:
    """The trap's answers, in order; it runs as a process of its own, for it cannot come back."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "hauslm.base.trap"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=_environment(),
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr  # noqa: S101 - pipes were asked for
    answers: list[dict[str, Any]] = []
    try:
        with process.stdin as stdin, contextlib.suppress(BrokenPipeError):
            json.dump({"commands": list(commands)}, stdin)
        for line in process.stdout:
            answers.append(json.loads(line))
            _report(answers[-1], answers, len(commands), progress)
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    if not any(a["event"] in ("ready", "impossible") for a in answers):
        reason = process.stderr.read().strip().splitlines()[-1:] or [str(process.returncode)]
        answers.append({"event": "impossible", "reason": reason[0]})
    return answers


def _report(
    answer: dict[str, Any], answers: list[dict[str, Any]], total: int, progress: Progress
) -> None:
    if answer["event"] == "started":
        ended = sum(a["event"] == "ended" for a in answers)
        progress.step(say("In the trap"), ended, total, command=answer["name"])
    elif answer["event"] == "ended" and answer["name"] in STAGES:
        progress.say(
            say(
                "{stage}: {packets:,} packets in {seconds:.1f} s (exit code {code})",
                stage=answer["name"],
                packets=answer["packets"],
                seconds=answer["seconds"],
                code=str(answer["exit_code"]),
            )
        )


def _attempts(log: Path) -> list[dict[str, str]]:
    """What the audit hooks of the stages refused."""
    found: list[dict[str, str]] = []
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append({k: str(v) for k, v in json.loads(line).items()})
    return found


# ---------------------------------------------------------------- the record


def _record(
    answers: Sequence[dict[str, Any]],
    stages: Sequence[str],
    refused: Sequence[dict[str, str]],
    notices: list[Sentence],
) -> Privacy:
    ready = next((a for a in answers if a["event"] == "ready"), None)
    ended = {a["name"]: a for a in answers if a["event"] == "ended"}
    layers: dict[str, Said] = _guard_layers(ended.get("guard"))
    common: dict[str, Any] = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "limits": tuple(Said.of(s) for s in limits()),
    }
    if ready is None:
        reason = next((a["reason"] for a in answers if a["event"] == "impossible"), "?")
        said = say("not proven: no private network could be made here ({reason})", reason=reason)
        return Privacy(
            passed=False, packets=None, control_packets=None, notices=_said(notices),
            layers={**layers, TRAP_LAYER: Said.of(said)}, **common,
        )  # fmt: skip
    layers[TRAP_LAYER] = Said.of(_trap_said(ready))
    notices += _faults(ended, stages)
    controls = {
        n.removeprefix("control: "): int(a["packets"])
        for n, a in ended.items()
        if n.startswith("control: ")
    }
    packets = sum(int(ended[s]["packets"]) for s in stages if s in ended)
    sent = [
        {"event": "packet", "target": target, "stage": s}
        for s in stages if s in ended for target in ended[s]["targets"]
    ]  # fmt: skip
    ran = all(s in ended and ended[s]["exit_code"] == 0 for s in stages)
    return Privacy(
        passed=ran and bool(stages) and packets == 0 and sum(controls.values()) > 0,
        packets=packets, control_packets=sum(controls.values()), controls=controls,
        attempts=(*sent, *refused), layers=layers, notices=_said(notices),
        stages={s: str(ended[s]["packets"]) for s in stages if s in ended}, **common,
    )  # fmt: skip


def _said(items: Sequence[Sentence]) -> tuple[Said, ...]:
    return tuple(Said.of(i) for i in items)


def _faults(ended: dict[str, dict[str, Any]], stages: Sequence[str]) -> list[Sentence]:
    found = []
    for stage in stages:
        answer = ended.get(stage)
        if answer is None:
            found.append(say("'{stage}' did not run.", stage=stage))
        elif answer["exit_code"] != 0:
            found.append(
                say(
                    "'{stage}' ended with exit code {code}: {reason}",
                    stage=stage,
                    code=str(answer["exit_code"]),
                    reason=answer["errors"].strip()[-400:] or "?",
                )
            )
    return found


def _trap_said(ready: dict[str, Any]) -> Sentence:
    return say(
        "active: private network; IPv4 caught, IPv6 {ipv6}, name look-ups {names}",
        ipv6=say("caught") if ready["ipv6"] else say("absent from this kernel"),
        names=say("caught") if ready["names"] else say("not redirected"),
    )


def _guard_layers(answer: dict[str, Any] | None) -> dict[str, Said]:
    """The guard as a process in the trap found it, and what came past it there."""
    if answer is None or answer["exit_code"] != 0:
        return {TRIED_LAYER: Said.of(say("not proven: it could not be tried"))}
    found = {n: Said.model_validate(s) for n, s in json.loads(answer["output"]).items()}
    count = int(answer["packets"])
    tried = (
        say("not proven: {count:,} packets of native code and a shell came past it", count=count)
        if count
        else say("active: native code and a shell were refused, 0 packets")
    )
    return {**found, TRIED_LAYER: Said.of(tried)}


def limits() -> list[Sentence]:
    """What the proof does not say."""
    return [
        say("Proven is a short run of these stages on this machine; other commands, data and versions of packages are not."),
        say("Counted is what the commands send with their guard on; what their libraries would send without it is not."),
        say("Root, the kernel and the firmware of devices can send past every layer."),
        say("A service on this machine that is reached over an AF_UNIX socket can send on request; known ones are covered in the trap, others are not."),
        say("Connections that were opened before the guard are listed, not closed."),
        say("On Windows and macOS the audit hook alone is in force, and nothing is proven."),
        say("People can copy files, and a trained model can repeat its training text."),
    ]  # fmt: skip


# ---------------------------------------------------------------- the processes in the trap


def _guard() -> int:
    """Shut the door as the commands do, say what is in force, then try to get out past Python."""
    egress.shut("strict")
    found = {layer.name: Said.of(layer.said).model_dump() for layer in egress.layers()}
    sys.stdout.write(json.dumps(found))
    for argv in ([sys.executable, "-I", "-c", _NATIVE], ["bash", "-c", _SHELL]):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, capture_output=True, check=False, timeout=20)
    return 0


def _serve(folder: Path) -> int:
    """`hauslm serve` on the loopback of the trap: one list of models, one answer, an orderly end."""
    from hauslm.serve.token import VARIABLE

    token, port = secrets.token_urlsafe(32), _free_port()
    process = subprocess.Popen(
        [*_hauslm("serve", folder), "--port", str(port)],
        stdin=subprocess.DEVNULL, env=_environment() | {VARIABLE: token},
    )  # fmt: skip
    try:
        models = _request(process, port, token, "GET", "/v1/models")
        name = models["data"][-1]["id"]
        message = {"role": "user", "content": "Say one word."}
        asked = {"model": name, "messages": [message], "max_tokens": 4}
        _request(process, port, token, "POST", "/v1/chat/completions", asked)
    finally:
        process.terminate()
        code = process.wait(60)
    return code


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _request(
    process: subprocess.Popen[bytes],
    port: int,
    token: str,
    method: str,
    path: str,
    body: Any = None,
) -> Any:
    """One answer of the server, for which it is given time to load; OSError if there is none."""
    import http.client
    import time

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise OSError(f"the server ended with {process.returncode}") from None
            time.sleep(0.2)
            continue
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"{method} {path}: HTTP {answer.status}")
        return json.loads(text)


def main(argv: Sequence[str]) -> int:
    """`python -m hauslm.prove guard | serve FOLDER`: what runs in the trap beside the commands."""
    with speaking(language()):
        return _guard() if argv[0] == "guard" else _serve(Path(argv[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
