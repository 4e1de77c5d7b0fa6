"""Which option wins? Admissible before conditional, then cost, and within one setting the better model.

A *setting* is where the work is done: the machine that is there, a machine to be bought, a rented
GPU, the APIs. Settings compete by cost; a better benchmark score never moves documents out of the
house. Within the winning setting, costs that differ by less than the estimate can tell apart
(`TIE_SHARE`) are a tie, and the better scored model that meets the stated need takes it.

The functions work on columns of draws, so the Monte-Carlo asks exactly the question that the verdict
answers. Why an option is admissible is for `gates`; which scores compare is for `performance`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hauslm.decide.cost import Array, Bills, Costs, Settings, costs, documents_at_capacity

# Within a setting the options share machine and staff; their estimates differ by speed and tokens,
# which are known to about this share of the total.
TIE_SHARE = 0.05

ADMISSIBLE, CONDITIONAL, BLOCKED = 0, 1, 2
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """Floors that depend on the figures, not on an answer; None: no limit."""

    max_monthly_eur: float | None = None
    max_purchase_eur: float | None = None
    deadline_days: float | None = None


@dataclass(frozen=True)
class Contenders:
    """What the choice looks at: bills, their standing after the gates, setting, and need met.

    `standing` is ADMISSIBLE, CONDITIONAL or BLOCKED by rules and fixed floors; `meets_need` says
    whether the option can be adapted where adaptation is wanted.
    """

    bills: Bills
    standing: Ints
    settings_of: tuple[str, ...]
    meets_need: NDArray[np.bool_]
    limits: Limits = Limits()

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.settings_of):
            found.setdefault(name, []).append(row)
        return found


def standing_at(contenders: Contenders, found: Costs, settings: Settings) -> Ints:
    """Standing of every option at these settings: the rules' and the limits' that figures decide.

    Shape (options, draws). A machine that cannot do the running demand (or the backlog by the
    deadline) in its available hours is BLOCKED; so is what exceeds the budget.
    """
    standing = np.broadcast_to(contenders.standing[:, None], found.horizon.shape).copy()
    blocked = out_of_capacity(contenders.bills, found, settings)
    blocked |= too_late(contenders.bills, contenders.limits, found, settings)
    blocked |= out_of_budget(contenders, found, settings)
    standing[blocked] = BLOCKED
    return standing


def out_of_capacity(bills: Bills, found: Costs, settings: Settings) -> NDArray[np.bool_]:
    """The running demand, or all demand over the horizon, needs more hours than the own machine has.

    Rented GPUs and APIs are not limited: more of them can be had at the same price.
    """
    months = np.atleast_1d(np.asarray(settings.months, dtype=float))
    hours = np.atleast_1d(np.asarray(settings.available_hours_per_month, dtype=float))
    demand = np.atleast_1d(np.asarray(settings.documents_per_month, dtype=float))
    over = demand > documents_at_capacity(found, settings) * (1 + 1e-12)
    over |= found.load_hours > hours * months * (1 + 1e-12)
    return np.asarray(over & (bills.columns["own_machine"] > 0))


def too_late(bills: Bills, limits: Limits, found: Costs, settings: Settings) -> NDArray[np.bool_]:
    """The backlog takes the own machine longer than the deadline, in the hours that are left."""
    if limits.deadline_days is None:
        return np.zeros_like(found.horizon, dtype=bool)
    hours = np.atleast_1d(np.asarray(settings.available_hours_per_month, dtype=float))
    free = np.maximum(hours - found.hours_per_month, 0.0) * 12 / 365  # per day
    late = found.backlog_hours > free * limits.deadline_days * (1 + 1e-12)
    return np.asarray(late & (bills.columns["own_machine"] > 0))


def out_of_budget(contenders: Contenders, found: Costs, settings: Settings) -> NDArray[np.bool_]:
    """The monthly cost, or the price of a machine to be bought, exceeds what was stated."""
    limits = contenders.limits
    over = np.zeros_like(found.horizon, dtype=bool)
    if limits.max_monthly_eur is not None:
        over |= found.monthly > limits.max_monthly_eur
    if limits.max_purchase_eur is not None:
        columns = contenders.bills.columns
        to_buy = (columns["own_machine"] > 0) & (columns["paid"] == 0)
        over |= to_buy & (purchase_eur(columns, settings) > limits.max_purchase_eur)
    return over


def purchase_eur(columns: dict[str, Array], settings: Settings) -> Array:
    """What buying each machine once costs, EUR."""
    rate = np.atleast_1d(np.asarray(settings.eur_per_usd, dtype=float))[None, :]
    factor = np.atleast_1d(np.asarray(settings.hardware_price_factor, dtype=float))[None, :]
    gpu = columns["gpu_price"] * np.where(columns["gpu_price_in_usd"] > 0, rate, 1.0)
    return np.asarray((gpu + columns["host_price_eur"]) * factor)


@dataclass(frozen=True)
class Race:
    """Per draw: the best of each setting, and the winning setting."""

    names: tuple[str, ...]
    standing: Ints  # (settings, draws)
    cost: Array  # (settings, draws): EUR over the horizon of the setting's representative
    winner: Ints  # (draws,): index into names; -1 where everything is blocked


def race(contenders: Contenders, found: Costs, settings: Settings) -> Race:
    """Let the settings compete: fewer obstacles first, then the lower cost of the representative."""
    standing = standing_at(contenders, found, settings)
    names = tuple(contenders.groups)
    best_standing = np.full((len(names), found.horizon.shape[1]), BLOCKED)
    best_cost = np.full((len(names), found.horizon.shape[1]), np.inf)
    for place, rows in enumerate(contenders.groups.values()):
        best_standing[place], best_cost[place] = _representative(
            standing[rows], found.horizon[rows], contenders.meets_need[rows]
        )
    key = np.where(best_standing == BLOCKED, np.inf, best_cost)
    lowest = best_standing.min(axis=0)
    key = np.where(best_standing == lowest[None, :], key, np.inf)
    winner = np.where(lowest == BLOCKED, -1, np.argmin(key, axis=0))
    return Race(names, best_standing, best_cost, winner)


def _representative(
    standing: Ints, cost: Array, meets_need: NDArray[np.bool_]
) -> tuple[Ints, Array]:
    """Standing and cost of a setting's best option: least obstacles, meets the need, cheapest."""
    rank = standing * 2 + (~meets_need)[:, None]
    rank = np.where(standing == BLOCKED, 2 * BLOCKED, rank)
    best = rank.min(axis=0)
    among = np.where(rank == best[None, :], cost, np.inf)
    return np.minimum(best // 2, BLOCKED), np.where(best == 2 * BLOCKED, np.inf, among.min(axis=0))


Quality = Callable[[Sequence[int]], int]  # rows that tie -> the row to take


def choose(
    contenders: Contenders, settings: Settings, better: Quality, known: Costs | None = None
) -> int | None:
    """Row of the winning option at one point of the settings; None if everything is blocked.

    `known` are the costs at these settings, if somebody has them already.
    """
    found = known or costs(contenders.bills, settings)
    result = race(contenders, found, settings)
    if result.winner[0] < 0:
        return None
    rows = contenders.groups[result.names[int(result.winner[0])]]
    return take(contenders, found, settings, rows, better)


def take(
    contenders: Contenders, found: Costs, settings: Settings, rows: Sequence[int], better: Quality
) -> int:
    """The option of one setting: among those that tie with its cheapest, the better model."""
    standing = standing_at(contenders, found, settings)[:, 0]
    rank = {r: (int(standing[r]), not bool(contenders.meets_need[r])) for r in rows}
    best = min(rank.values())
    equal = [r for r in rows if rank[r] == best]
    cheapest = min(float(found.horizon[r, 0]) for r in equal)
    tied = [r for r in equal if float(found.horizon[r, 0]) <= cheapest * (1 + TIE_SHARE) + 1e-9]
    return better(tied)
