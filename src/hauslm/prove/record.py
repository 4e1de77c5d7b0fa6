"""What was counted, as the record that the report shows: layers, packets, control, limits; never green by default."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Any

from hauslm.base.words import N_, Sentence, say
from hauslm.records import Privacy, Said

TRAP_LAYER = N_("Network trap")
TRIED_LAYER = N_("The guard, tried in the trap")


def make_record(
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
