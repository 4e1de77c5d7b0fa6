"""The privacy proof: what tried to leave while the stages ran in a trap, and what that does not say."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Privacy
from hauslm.report.blocks import Writer

SHOWN_ATTEMPTS = 20


def write(w: Writer, privacy: Privacy) -> None:
    w.heading(say("The privacy proof"))
    _verdict(w, privacy)
    for notice in privacy.notices:
        w.callout("note", notice)
    w.table([say("Layer"), say("State")], [(w.t(n), w.t(s)) for n, s in privacy.layers.items()])
    w.table(
        [say("Stage in the trap"), say("Packets")],
        [(name, w.number(int(count), ",")) for name, count in privacy.stages.items()],
        align="lr",
    )
    w.table(
        [say("Control, sent on purpose past the guard"), say("Packets caught")],
        [(w.t(name), w.number(count, ",")) for name, count in privacy.controls.items()],
        align="lr",
    )
    _attempts(w, privacy)
    if privacy.kernel:
        w.text(say("Kernel: {kernel}", kernel=privacy.kernel))
    if privacy.limits:
        w.heading(say("What it does not prove"), 3)
        w.bullets(list(privacy.limits))


def _verdict(w: Writer, privacy: Privacy) -> None:
    if privacy.passed:
        w.callout(
            "verdict",
            say(
                "Nothing left: 0 packets, while the control of {count} packets was caught.",
                count=privacy.control_packets or 0,
            ),
        )
    elif privacy.packets:
        w.callout("warning", say("{count:,} packets tried to leave.", count=privacy.packets))
    else:
        w.callout("warning", say("Not proven: see the layers below."))


def _attempts(w: Writer, privacy: Privacy) -> None:
    if not privacy.attempts:
        return
    w.table(
        [say("Attempt"), say("Target")],
        [(a.get("event", ""), a.get("target", "")) for a in privacy.attempts[:SHOWN_ATTEMPTS]],
    )
    more = len(privacy.attempts) - SHOWN_ATTEMPTS
    if more > 0:
        w.text(say("{count:,} further attempts stand in records/privacy.json.", count=more))
