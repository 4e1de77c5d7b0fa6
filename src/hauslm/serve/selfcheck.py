"""Does every adapter do what it should, alone and beside others? Looked at before anybody is served.

Servers have been seen to give the base another adapter's answers in a mixed batch, without an error
(vLLM PR #48421), and evaluations to measure the base in place of the adapter (lm-eval PR #2433). So:
the next-token log-probabilities of each model alone, and of all of them in one mixed batch, must be
the same; and an adapter must differ from the base. Where training left a canary and its chat template
beside the adapter, the running model must also answer as recorded there, and use that template. The
same at the start and when an adapter is loaded later. A mismatch stops it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.files import sha256_file
from hauslm.base.words import Sentence, say
from hauslm.lm.canary import check_canary, read_canary
from hauslm.lm.interface import BASE, LanguageModel, Reply, Request

PROMPT = "The results of this study show that the method is"
TEMPLATE = "chat_template.jinja"
CANARY = "canary.json"
TOP = 20
# Log-probabilities of the same row in another batch differ by rounding: about 1e-6 in float32,
# a few hundredths in bfloat16 (8 bits of mantissa; logits of magnitude 10).
TOLERANCE_NATS = 0.15

Fingerprint = Mapping[int, float]  # token id -> log-probability of the TOP likeliest


def check(model: LanguageModel, only: str | None = None) -> None:
    """Base and adapters (or base and adapter `only`), alone and mixed: H856 if anything is off. Then
    each adapter against what its training left beside it: H834 canary, H855 template."""
    names = [BASE, *([only] if only else model.adapters())]
    alone = {name: _fingerprints(model, [name])[0] for name in names}
    for name in names[1:]:
        if alone[name] == alone[BASE]:
            raise _refused(
                say("The adapter '{name}' changes nothing: it answers as the base does.", name=name)
            )
    # Each twice, in an order in which every one has other neighbours.
    order = [*names, *reversed(names)]
    for name, mixed in zip(order, _fingerprints(model, order), strict=True):
        own = distance(mixed, alone[name])
        nearest = min(names, key=lambda n: distance(mixed, alone[n]))
        closer = distance(mixed, alone[nearest]) < own / 2
        if closer:
            raise _refused(
                say(
                    "In a mixed batch '{name}' answers as '{other}' does.", name=name, other=nearest
                )
            )
        if own > TOLERANCE_NATS:
            raise _refused(
                say(
                    "In a mixed batch '{name}' does not answer as it does alone "
                    "(log-probabilities differ by {difference}).",
                    name=name,
                    difference=f"{own:.3g}",
                )
            )
    for name in names[1:]:
        _as_trained(model, name)


def _as_trained(model: LanguageModel, name: str) -> None:
    """Does the adapter answer as its canary says, under the template that it learned with?

    Adapters of other origin have neither file; for them the comparison above is all there is.
    """
    local: Any = model
    if not hasattr(model, "adapter_folder"):
        return
    folder, base = Path(local.adapter_folder(name)), Path(local.folder)
    then, now = folder / TEMPLATE, base / TEMPLATE
    if then.is_file() and not (now.is_file() and sha256_file(then) == sha256_file(now)):
        raise RefusedError(
            "H855",
            say("{file} is not the one of the training (its hash differs).", file=TEMPLATE),
            where=str(then),
            next_step=say("Train again, or restore the files of the run."),
        )
    if (folder / CANARY).is_file():
        check_canary(model, name, read_canary(folder / CANARY))


def _fingerprints(model: LanguageModel, adapters: Sequence[str]) -> list[Fingerprint]:
    requests = [
        Request((), raw_prompt=PROMPT, max_new_tokens=1, adapter=a, logprobs=True, top_logprobs=TOP)
        for a in adapters
    ]
    return [_top(reply) for reply in model.generate(requests)]


def _top(reply: Reply) -> Fingerprint:
    if not reply.logprobs:  # the very first token ended the answer: certain, and that is all
        return {-1: 0.0}
    return {token: logprob for token, _, logprob in reply.logprobs[0].top}


def distance(a: Fingerprint, b: Fingerprint) -> float:
    """Largest difference, in nats, over the tokens that both list; infinite if there are none."""
    shared = set(a) & set(b)
    if len(shared) < min(len(a), len(b)) / 2:
        return float("inf")
    return max(abs(a[t] - b[t]) for t in shared)


def _refused(what: Sentence) -> RefusedError:
    return RefusedError(
        "H856",
        what,
        next_step=say("Train or fetch the adapter again; nothing is served like this."),
    )
