"""The privacy proof: what tried to leave while the stages ran in a trap."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Privacy
from hauslm.report.blocks import Writer


def write(w: Writer, privacy: Privacy) -> None:
    w.heading(say("The privacy proof"))
    if privacy.passed:
        w.callout(
            "verdict",
            say(
                "Nothing left: 0 packets, while the control of {count} packets was caught.",
                count=privacy.control_packets or 0,
            ),
        )
    else:
        w.callout("warning", say("Not proven: see the layers below."))
    w.table([say("Layer"), say("State")], [(n, w.t(s)) for n, s in privacy.layers.items()])
    if privacy.attempts:
        w.table(
            [say("Attempt"), say("Target")],
            [(a.get("event", ""), a.get("target", "")) for a in privacy.attempts[:20]],
        )
    w.bullets(list(privacy.limits))
