"""The bundle: what a colleague gets, and how to check it."""

from __future__ import annotations

from hauslm.base.words import say
from hauslm.records import Bundle
from hauslm.report.blocks import Writer


def write(w: Writer, bundle: Bundle) -> None:
    w.heading(say("The bundle"))
    w.text(
        say(
            "{path} ({size:.1f} MiB, sha256 {hash}). A colleague checks it with: hauslm verify {path}",
            path=bundle.path, size=bundle.bytes / 2**20, hash=bundle.sha256[:16],
        )
    )  # fmt: skip
    if not w.brief:
        w.table(
            [say("File"), say("sha256")], [(n, h[:16]) for n, h in sorted(bundle.files.items())]
        )
    duties = bundle.licence.get("duties", [])
    if duties:
        w.heading(say("Duties of the base model's licence"), 3)
        w.bullets([str(d) for d in duties])
    if bundle.accepted_memorisation is not None:
        w.callout(
            "warning",
            say(
                "Made although training text was found in the adapter (--accept-memorisation): {measured}",
                measured=bundle.accepted_memorisation.sentence(),
            ),
        )
    for notice in bundle.notices:
        w.callout("note", notice)
