"""What would overturn it? Break-even, flips, tornado, the price of the gate, and a probability.

Break-even is solved exactly on the linear pieces of the cost. The flip table asks of every figure
how far it would have to move, and of every answer what the verdict would be with another one. The
Monte-Carlo draws every figure that has a range from a triangle over it and asks the same race as the
verdict; it is conditional on the answers as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hauslm.base.quantity import Quantity, derived
from hauslm.base.words import Sentence, say
from hauslm.decide import choice
from hauslm.decide.choice import Contenders
from hauslm.decide.context import Context
from hauslm.decide.cost import Array, Bills, costs, documents_at_capacity
from hauslm.decide.judge import Judged
from hauslm.decide.settings import Parameter
from hauslm.decide.solve import first_crossing, kinks
from hauslm.records import Alternative, BreakEven, Flip, Influence, Said

DRAWS = 2000
MOST_FLIPS = 40
MOST_DOCUMENTS = 1e8  # a month; beyond that nobody asks this tool
STEPS = 25  # points of a walk before a bracket is closed in on
FACTOR_SEARCH = 100.0  # figures are moved up and down by at most this factor
# Figures that may be nought, and how far above what is stated they are searched.
_SHARES = frozenset(
    [
        "api_price_decline_per_year",
        "service_tax",
        "value_loss_per_year",
        "residual_share",
        "repair_share_per_year",
    ]
)


# ---------------------------------------------------------------- break-even


def break_even(context: Context) -> BreakEven:
    """Where the chosen option and its best rival cost the same, in documents a month and in months."""
    if context.rival is None:
        nothing = say("There is no option of another kind with a complete price.")
        return BreakEven(reason=Said.of(nothing))
    return break_even_with(context, context.rival)


def alternatives(context: Context) -> list[Alternative]:
    """What the best option of every other kind would cost, what keeps it out, where it breaks even."""
    chosen = context.chosen
    assert chosen is not None  # noqa: S101 - there is a verdict
    source = "cost formula over the horizon"
    found = []
    for row in context.alternatives:
        candidate = context.candidate(row)
        difference = context.monthly(chosen) - context.monthly(row)
        found.append(
            Alternative(
                option=candidate.id,
                kind=candidate.kind,
                title=Said.of(candidate.title),
                monthly=derived(context.monthly(row), "EUR/month", source),
                difference=derived(difference, "EUR/month", source),
                adapted=candidate.tuned,
                obstacles=tuple(sorted({g.rule for g in context.obstacles(row)})),
                break_even=break_even_with(context, row),
            )
        )
    return found


def break_even_with(context: Context, rival: int) -> BreakEven:
    """Where the chosen option and the one of row `rival` cost the same."""
    chosen = context.chosen
    assert chosen is not None  # noqa: S101 - there is a verdict
    judged = context.judged
    bills = judged.contenders.bills
    first, second = bills.rows[chosen], bills.rows[rival]
    most = _capacity(judged, (chosen, rival))
    settings = judged.settings
    documents = first_crossing(first, second, settings, "documents_per_month", 0.0, most)
    months = first_crossing(first, second, settings, "months", 0.25, 240.0)
    tokens = None
    if documents is not None:
        found = judged.costs
        tokens = documents * float(found.tokens_in[chosen, 0] + found.tokens_out[chosen, 0])
    reason = None
    if documents is None:
        reason = Said.of(_no_break_even(context, chosen, rival, most))
    return BreakEven(
        against=context.candidate(rival).id,
        documents_per_month=documents,
        tokens_per_month=tokens,
        months=months,
        reason=reason,
    )


def _capacity(judged: Judged, rows: Iterable[int]) -> float:
    """Documents a month that the slower own machine of the two can do."""
    most = documents_at_capacity(judged.costs, judged.settings)
    limits = [float(most[r, 0]) for r in rows if judged.contenders.bills.rows[r].own_machine]
    return min([*limits, MOST_DOCUMENTS])


def _no_break_even(context: Context, chosen: int, rival: int, most: float) -> Sentence:
    cheaper = context.judged.cost(chosen) <= context.judged.cost(rival)
    winner, loser = (chosen, rival) if cheaper else (rival, chosen)
    return say(
        "{winner} is cheaper than {loser} at every demand up to {most:,} documents a month, which is "
        "as far as the own machine goes.",
        winner=context.name(winner), loser=context.name(loser), most=most,
    )  # fmt: skip


# ---------------------------------------------------------------- the field the analyses run on


@dataclass(frozen=True)
class Field:
    """A part of the contenders: the best few of each setting decide every race."""

    contenders: Contenders
    rows: tuple[int, ...]  # rows of `judged`


def field_of(judged: Judged, chosen: int, per_setting: int = 2) -> Field:
    """The cheapest options of each setting (those that meet the need and those that do not)."""
    contenders = judged.contenders
    rows: set[int] = {chosen}
    for members in contenders.groups.values():
        for need in (True, False):
            pool = [r for r in members if bool(contenders.meets_need[r]) == need]
            pool.sort(key=lambda r: (judged.standing[r], judged.cost(r)))
            rows.update(pool[:per_setting])
    kept = tuple(sorted(rows))
    part = Contenders(
        Bills([contenders.bills.rows[r] for r in kept]),
        contenders.standing[list(kept)],
        tuple(contenders.settings_of[r] for r in kept),
        contenders.meets_need[list(kept)],
        contenders.limits,
    )
    return Field(part, kept)


def _kinds(judged: Judged, field: Field) -> dict[str, str]:
    return {judged.candidates[r].setting: judged.candidates[r].kind for r in field.rows}


# ---------------------------------------------------------------- flips of figures


def figure_flips(context: Context, field: Field) -> list[Flip]:
    """For every figure the nearest value at which another setting wins, exactly where linear."""
    judged, chosen = context.judged, context.chosen
    if chosen is None:
        return []
    found: list[tuple[float, Flip]] = []
    setting = judged.candidates[chosen].setting
    walks = _walks(judged, field)
    for name, parameter in judged.parameters.items():
        mine = [w for w in walks if w.name == name]
        flip = _nearest_flip(judged, field, setting, parameter, mine)
        if flip is not None:
            found.append(flip)
    found.sort(key=lambda f: f[0])
    return [flip for _, flip in found]


@dataclass(frozen=True)
class Walk:
    """Values of one figure from where it is to a bound, and which setting wins at each."""

    name: str
    values: Array
    settings: tuple[str, ...]
    winners: choice.Ints


def _walks(judged: Judged, field: Field) -> list[Walk]:
    """Both ways for every figure, raced in one go: each walk is a block of columns."""
    grids = [
        (name, _walk(parameter.quantity.value, end, judged, field, name))
        for name, parameter in judged.parameters.items()
        for end in _bounds(name, parameter)
        if end != parameter.quantity.value
    ]
    total = sum(len(g) for _, g in grids)
    columns = {
        name: np.full(total, float(p.quantity.value)) for name, p in judged.parameters.items()
    }
    starts = np.cumsum([0, *(len(g) for _, g in grids)])
    for (name, grid), start in zip(grids, starts, strict=False):
        columns[name][start : start + len(grid)] = grid
    settings = judged.settings.with_(**columns)
    result = choice.race(field.contenders, costs(field.contenders.bills, settings), settings)
    winners = np.asarray(result.winner)
    return [
        Walk(name, grid, result.names, winners[start : start + len(grid)])
        for (name, grid), start in zip(grids, starts, strict=False)
    ]


def _bounds(name: str, parameter: Parameter) -> tuple[float, float]:
    value = parameter.quantity.value
    if name in _SHARES:
        return min(parameter.quantity.lowest, 0.0), 0.95
    if name == "months":
        return 1.0, 240.0
    if name == "repeat_factor" or name == "rent_overhead":
        return 1.0, max(10.0, value)
    if name in ("idle_hours_per_month", "available_hours_per_month"):
        return 1.0, 730.0
    if value == 0:
        return 0.0, max(parameter.quantity.highest * FACTOR_SEARCH, 1e5)
    return value / FACTOR_SEARCH, value * FACTOR_SEARCH


def _nearest_flip(
    judged: Judged, field: Field, setting: str, parameter: Parameter, walks: Iterable[Walk]
) -> tuple[float, Flip] | None:
    value = parameter.quantity.value
    best: tuple[float, float, str] | None = None
    for walk in walks:
        hit = _first_change(judged, field, setting, walk)
        if hit is None:
            continue
        distance = (
            abs(math.log(max(hit[0], 1e-12) / value))
            if value > 0 and hit[0] > 0
            else abs(hit[0] - value)
        )
        if best is None or distance < best[0]:
            best = (distance, *hit)
    if best is None:
        return None
    distance, to, becomes = best
    flip = Flip(
        parameter=parameter.name,
        title=Said.of(Sentence(parameter.title, {})),
        **{"from": value},
        to=to,
        becomes=becomes,
        unit=parameter.quantity.unit,
        known=parameter.quantity.known,
    )
    return distance, flip


def _first_change(
    judged: Judged, field: Field, setting: str, walk: Walk
) -> tuple[float, str] | None:
    """Along the walk: where another setting first wins, and which option then."""
    name, names, grid = walk.name, walk.settings, walk.values
    home = names.index(setting) if setting in names else -1
    changed = np.nonzero(walk.winners != home)[0]
    if not len(changed):
        return None
    k = int(changed[0])
    if k == 0:
        return None  # already not the winner here: a tie the full field decides
    left, right = float(grid[k - 1]), float(grid[k])
    left, right = _close(judged, field, name, left, right, home)
    where = _exact(judged, field, name, left, right, names, home)
    where = _snapped(where, judged, field, name)
    beyond = right
    row = choice.choose(judged.contenders, judged.settings.with_(**{name: beyond}), judged.better)
    if row is None:
        return where, ""
    if judged.candidates[row].setting == setting:
        return None  # an option outside the field takes over: the place stays
    return where, judged.candidates[row].id


def _walk(value: float, end: float, judged: Judged, field: Field, name: str) -> Array:
    """Points from `value` to `end`, geometric where the sign allows, with the kinks in between."""
    points = (
        np.geomspace(value, end, STEPS) if value > 0 and end > 0 else np.linspace(value, end, STEPS)
    )
    bills = field.contenders.bills.rows
    extra = [
        k for k in kinks(bills[:40], judged.settings, name) if min(value, end) < k < max(value, end)
    ]
    both = np.array(sorted({*points.tolist(), *extra}, reverse=end < value))
    return both


def _winners(
    judged: Judged, field: Field, name: str, values: Array
) -> tuple[tuple[str, ...], choice.Ints]:
    settings = judged.settings.with_(**{name: values})
    found = costs(field.contenders.bills, settings)
    result = choice.race(field.contenders, found, settings)
    return result.names, np.asarray(result.winner)


def _close(
    judged: Judged, field: Field, name: str, left: float, right: float, home: int
) -> tuple[float, float]:
    """Narrow the bracket in which the winner changes: 3 rounds of 100 points, a factor 1e6."""
    for _ in range(3):
        grid = np.linspace(left, right, 101)
        winners = _winners(judged, field, name, grid)[1]
        k = int(np.nonzero(winners != home)[0][0])
        left, right = float(grid[max(k - 1, 0)]), float(grid[k])
    return left, right


def _snapped(where: float, judged: Judged, field: Field, name: str) -> float:
    """A kink itself, where the bracket only came arbitrarily close to it."""
    for kink in kinks(field.contenders.bills.rows, judged.settings, name):
        if abs(kink - where) < 1e-6 * max(1.0, abs(kink)):
            return kink
    return where


def _exact(
    judged: Judged, field: Field, name: str, left: float, right: float, names: tuple[str, ...],
    home: int,
) -> float:  # fmt: skip
    """On the last short piece the two costs are lines: their crossing, if that is what changed."""
    settings = judged.settings.with_(**{name: np.array([left, right])})
    found = costs(field.contenders.bills, settings)
    result = choice.race(field.contenders, found, settings)
    other = int(result.winner[1])
    if other < 0 or home < 0:
        return right
    gap = result.cost[home] - result.cost[other]
    if not np.all(np.isfinite(gap)) or gap[0] * gap[1] >= 0:
        return right  # a floor was crossed, not a cost
    return float(left - gap[0] * (right - left) / (gap[1] - gap[0]))


# ---------------------------------------------------------------- tornado, switching value


def tornado(context: Context) -> list[Influence]:
    """Cost advantage over the rival at both ends of every range, widest first (EUR)."""
    judged, chosen, rival = context.judged, context.chosen, context.rival
    if chosen is None or rival is None:
        return []
    bills = Bills([judged.contenders.bills.rows[r] for r in (chosen, rival)])
    ranged = [(n, p) for n, p in judged.parameters.items() if p.quantity.low is not None]
    columns = {n: np.full(2 * len(ranged), float(p.quantity.value)) for n, p in ranged}
    for place, (name, parameter) in enumerate(ranged):
        columns[name][2 * place : 2 * place + 2] = (
            parameter.quantity.lowest,
            parameter.quantity.highest,
        )
    found = costs(bills, judged.settings.with_(**columns)).horizon
    bars = []
    for place, (name, parameter) in enumerate(ranged):
        q = parameter.quantity
        advantage = (found[1] - found[0])[2 * place : 2 * place + 2]
        bars.append(
            Influence(
                parameter=name,
                title=Said.of(Sentence(parameter.title, {})),
                low=q.lowest,
                high=q.highest,
                advantage_at_low=float(advantage[0]),
                advantage_at_high=float(advantage[1]),
                known=q.known,
            )
        )
    return sorted(bars, key=lambda b: -abs(b.advantage_at_high - b.advantage_at_low))


def switching_value(context: Context) -> Quantity | None:
    """EUR a month that the chosen option costs more than the best one of another kind: what the rule
    that keeps that one out, or privacy, must be worth. Negative: the chosen one's lead."""
    chosen, rival = context.chosen, context.rival
    if chosen is None or rival is None:
        return None
    value = context.monthly(chosen) - context.monthly(rival)
    source = f"{context.candidate(chosen).id} - {context.candidate(rival).id}"
    return derived(value, "EUR/month", source)


# ---------------------------------------------------------------- probability


def probability(context: Context, field: Field, *, seed: int = 0, draws: int = DRAWS) -> Quantity:
    """Share of draws in which an option of the same kind wins; 95 % interval of the simulation."""
    judged, chosen = context.judged, context.chosen
    assert chosen is not None  # noqa: S101 - there is a verdict
    drawn, counted = _draw(judged.parameters, seed, draws)
    settings = judged.settings.with_(**drawn)
    found = costs(field.contenders.bills, settings)
    result = choice.race(field.contenders, found, settings)
    kinds = _kinds(judged, field)
    mine = judged.candidates[chosen].kind
    same = np.array([kinds[n] == mine for n in result.names] + [False])
    holds = same[result.winner]
    here = np.array([n == judged.candidates[chosen].setting for n in result.names] + [False])
    share = float(np.mean(holds))
    error = 1.96 * math.sqrt(max(share * (1 - share), 1e-12) / draws)
    source = (
        f"{draws} draws, seed {seed}, {counted} figures with a range; answers as they stand; "
        f"the same machine in {float(np.mean(here[result.winner])):.3f} of the draws"
    )
    low, high = max(0.0, share - error), min(1.0, share + error)
    return derived(share, "1", source, low, high)


def rival_cheaper(context: Context, *, seed: int = 0, draws: int = DRAWS) -> float | None:
    """Share of the draws in which the rival costs less, rules aside; None without a rival."""
    judged, chosen, rival = context.judged, context.chosen, context.rival
    if chosen is None or rival is None:
        return None
    drawn, _ = _draw(judged.parameters, seed, draws)
    bills = Bills([judged.contenders.bills.rows[r] for r in (chosen, rival)])
    found = costs(bills, judged.settings.with_(**drawn)).horizon
    return float(np.mean(found[1] < found[0]))


def _draw(
    parameters: Mapping[str, Parameter], seed: int, draws: int
) -> tuple[dict[str, Array], int]:
    """Triangular draws over every range, value as the mode; figures without a range stay."""
    generator = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for name in sorted(parameters):
        q = parameters[name].quantity
        if q.lowest >= q.highest:
            continue
        drawn[name] = generator.triangular(q.lowest, min(max(q.value, q.lowest), q.highest),
                                           q.highest, draws)  # fmt: skip
    return drawn, len(drawn)
