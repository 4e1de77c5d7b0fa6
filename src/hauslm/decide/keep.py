"""Which of the thousands does a reader need to see, and why was each of the others cut?

Kept: the winner, the best of every kind of place, what no other option beats in both cost and score,
the lab sheet's models, every option of the user's own, everything whose price is missing. Cut options
are grouped by place and model, with the option that beats them; `why` answers for a single one.
"""

from __future__ import annotations

from hauslm.base.words import Sentence, say
from hauslm.decide.candidate import Collected
from hauslm.decide.choice import BLOCKED
from hauslm.decide.context import Context
from hauslm.decide.judge import Judged
from hauslm.decide.machines import SHEET_MODELS

MOST_OPTIONS = 40
PER_API_SIDE = 8
PER_MACHINE = 6
SHEET_API = "api/openai/gpt-4-turbo/standard"
SHOWN_APIS = ("api/openai/gpt-6-luna/standard", "api/openai/gpt-6-luna/batch")


def kept_rows(context: Context, chosen: int | None) -> list[int]:
    """Rows to be shown, cheapest first; at most `MOST_OPTIONS`."""
    judged = context.judged
    must: list[int] = [
        r for r in (chosen, context.cloud, context.local, context.unadapted) if r is not None
    ]
    must += context.alternatives
    must += [judged.row[i] for i in (SHEET_API, *SHOWN_APIS) if i in judged.row]
    must += [r for r, c in enumerate(judged.candidates) if c.id.startswith("user/")]
    must += _sheet_rows(judged)
    must += [r for r, c in enumerate(judged.candidates) if c.adaptation == "vendor"]
    best = _best_of_settings(context)
    fronts = [
        row
        for setting, rows in judged.contenders.groups.items()
        for row in _front(judged, rows)[
            : PER_API_SIDE if setting in ("cloud", "hosted") else PER_MACHINE
        ]
        if setting in ("cloud", "hosted") or setting.startswith("own")
    ]
    kept = list(dict.fromkeys([*must, *best, *fronts]))[:MOST_OPTIONS]
    return sorted(kept, key=judged.cost)


def _sheet_rows(judged: Judged) -> list[int]:
    """Mistral 7B and Llama 3 8B in 4 bit with LoRA on the own machine, else on one to be bought."""
    homes = [s for s in judged.contenders.groups if s.startswith("own-")]
    homes = homes or sorted(s for s in judged.contenders.groups if s.startswith("buy-"))[:1]
    names = [f"{h}/{m}/nf4/{a}" for h in homes for m in SHEET_MODELS for a in ("lora", "base")]
    return [judged.row[n] for n in names if n in judged.row]


def _best_of_settings(context: Context) -> list[int]:
    judged = context.judged
    found = []
    for rows in judged.contenders.groups.values():
        open_rows = [r for r in rows if not judged.misses_a_floor(r)]
        best = context.best_of(open_rows)
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda r: (judged.standing[r], judged.cost(r)))


def _front(judged: Judged, rows: list[int]) -> list[int]:
    """Options of a setting that no other beats in cost and score; blocked ones are left out."""
    alive = sorted((r for r in rows if judged.standing[r] != BLOCKED), key=judged.cost)
    models = [m for m in (judged.candidates[r].scored for r in alive) if m is not None]
    panel = judged.panel(models)
    front: list[int] = []
    best = float("inf")
    for row in alive:
        model = judged.candidates[row].scored
        place = panel.place(model.id) if panel and model else float("inf")
        if not front or place < best:
            front.append(row)
            best = min(best, place)
    return front


def pruned(context: Context, collected: Collected, kept: list[int]) -> dict[str, Sentence]:
    """Why the others are not shown. Grouped: 'own-rtx-4090/qwen3-8b/*' is a model on the own machine,
    'buy-rtx-3090/*' all models on another one, '*/qwen3-8b/*' a model on all further machines."""
    judged = context.judged
    shown = {judged.candidates[r].id for r in kept}
    best = {judged.candidates[r].setting: r for r in _best_of_settings(context)}
    groups: dict[str, Sentence] = {}
    for row, candidate in enumerate(judged.candidates):
        name = _group(candidate.id)
        if candidate.id not in shown and name not in groups:
            groups[name] = _why_cut(context, row, best.get(candidate.setting))
    for name, reason in collected.left_out.items():
        groups.setdefault(_group(name), reason)
    return dict(sorted(groups.items()))


def dominated(context: Context, rows: list[int]) -> dict[int, str]:
    """For each row that another shown one beats in cost, standing and score: that one's id."""
    judged = context.judged
    panel = judged.panel([m for m in (judged.candidates[r].scored for r in rows) if m is not None])

    def figures(row: int) -> tuple[float, float, float]:
        model = judged.candidates[row].scored
        place = panel.place(model.id) if panel and model else float("inf")
        return judged.cost(row), float(judged.standing[row]), place

    known = {r: figures(r) for r in rows}
    need = judged.contenders.meets_need
    found: dict[int, str] = {}
    for row in rows:
        for other in rows:  # cheapest first
            no_worse = all(b <= a for a, b in zip(known[row], known[other], strict=True))
            if no_worse and known[other] != known[row] and bool(need[other]) >= bool(need[row]):
                found[row] = judged.candidates[other].id
                break
    return found


def _group(identity: str) -> str:
    """The group in which an option that is not shown is listed; an API stands for itself."""
    parts = identity.split("/")
    if parts[0] in ("api", "hosted", "user", "*"):
        return identity
    if parts[0].startswith("own-"):
        return f"{parts[0]}/{parts[1]}/*"
    return f"{parts[0]}/*"


def _why_cut(context: Context, row: int, best: int | None) -> Sentence:
    """The first obstacle, or the option of the same place that beats it."""
    judged = context.judged
    if judged.standing[row] == BLOCKED:
        gates = context.obstacles(row)
        if gates:
            return say("{rule}: {text}", rule=gates[0].rule, text=gates[0].why.sentence())
    if best is None or best == row:
        return say("Costs {cost:EUR} over the horizon.", cost=judged.cost(row))
    model = judged.candidates[row].scored
    rival = judged.candidates[best].scored
    panel = judged.panel([m for m in (model, rival) if m is not None])
    known = panel is not None and model is not None and model.id in panel.scores
    if judged.cost(best) <= judged.cost(row):
        return say(
            "{other} costs {difference:EUR} less and {score}.",
            other=judged.candidates[best].id, difference=judged.cost(row) - judged.cost(best),
            score=say("scores no worse") if known else say("has the better documented score"),
        )  # fmt: skip
    return say(
        "Saves {difference:EUR} against {other}, which is within what the estimate can tell apart, and "
        "{score}.",
        difference=judged.cost(best) - judged.cost(row), other=judged.candidates[best].id,
        score=say("scores worse") if known else say("has no comparable score"),
    )  # fmt: skip
