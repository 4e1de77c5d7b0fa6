"""Where do two costs meet? Exact on linear pieces, safeguarded elsewhere.

Cost is piecewise linear in nearly every setting, so a crossing is solved, not searched on a grid:
between two kinks the secant is the answer. A setting in which cost is curved (the yearly decline of
prices, the value left after some months) is bracketed by the same points and closed in on by the
Illinois form of regula falsi, until the two costs agree to a hundredth of a cent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hauslm.decide.cost import HOURS_PER_MONTH, Array, Bill, Bills, Settings, costs

Difference = Callable[[Array], Array]  # settings' values -> cost difference in EUR, same shape

CLOSE_EUR = 1e-6
SUBDIVISIONS = 12


def difference(first: Bill, second: Bill, settings: Settings, parameter: str) -> Difference:
    """Cost of `first` minus cost of `second` over the horizon, as a function of one setting."""
    bills = Bills([first, second])

    def at(values: Array) -> Array:
        found = costs(bills, settings.with_(**{parameter: values})).horizon
        result: Array = found[0] - found[1]
        return result

    return at


def kinks(bills: Sequence[Bill], settings: Settings, parameter: str) -> list[float]:
    """Values of a setting at which the cost of one of the bills changes its slope or jumps."""
    found: list[float] = []
    if parameter == "months":
        life = float(settings.hardware_life_months)
        if 0 < life < 1e6:
            found += [life * k for k in range(1, int(240 / life) + 2)]
        for bill in bills:
            found += [s.from_month for s in bill.prices] + list(bill.migrations)
        runs = float(settings.training_runs_per_year)
        if runs > 0:
            found.append(12 / runs)  # below it there is one training all the same
    if parameter == "documents_per_month":
        for bill in bills:
            found += _idle_kink(bill, settings)
    return [k for k in found if np.isfinite(k)]


def _idle_kink(bill: Bill, settings: Settings) -> list[float]:
    """Demand at which work begins to eat into the hours that the machine would idle."""
    if not bill.own_machine:
        return []
    found = costs(Bills([bill]), settings.with_(documents_per_month=1.0))
    per_document = float(found.seconds_per_document[0, 0]) / 3600
    months = float(settings.months)
    other = float(found.load_hours[0, 0]) - per_document * months
    idle = float(settings.idle_hours_per_month) * months
    room = HOURS_PER_MONTH * months - idle - other
    return [] if per_document <= 0 else [room / per_document / months]


def crossings(f: Difference, low: float, high: float, breaks: Iterable[float] = ()) -> list[float]:
    """Every value in [low, high] at which `f` changes its sign between two neighbouring points.

    A jump across zero (a purchase, a forced move) counts: its right side is returned.
    """
    inner = sorted({b for b in breaks if low < b < high})
    edges = [low, *inner, high]
    points: list[float] = []
    for left, right in itertools.pairwise(edges):
        just_right = left + 1e-9 * max(1.0, abs(left)) if left in inner else left
        points += [just_right, *np.linspace(left, right, SUBDIVISIONS + 1)[1:].tolist()]
    grid = np.array(sorted(set(points)))
    values = f(grid)
    found: list[float] = []
    for k in range(len(grid) - 1):
        if values[k] == 0.0:
            found.append(float(grid[k]))
        elif values[k] * values[k + 1] < 0:
            found.append(_close_in(f, float(grid[k]), float(grid[k + 1]), values[k], values[k + 1]))
    if len(grid) and values[-1] == 0.0:
        found.append(float(grid[-1]))
    return found


def _close_in(f: Difference, a: float, b: float, fa: float, fb: float) -> float:
    """Root of `f` between a and b; on a linear piece the first secant is it."""
    side = 0
    x = b
    for _ in range(200):
        x = (fa * b - fb * a) / (fa - fb)
        fx = float(f(np.array([x]))[0])
        if abs(fx) < CLOSE_EUR or b - a < 1e-12 * max(1.0, abs(b)):
            return x
        if fx * fb > 0:
            b, fb = x, fx
            fa = fa / 2 if side == -1 else fa
            side = -1
        else:
            a, fa = x, fx
            fb = fb / 2 if side == 1 else fb
            side = 1
    return x


def first_crossing(
    first: Bill, second: Bill, settings: Settings, parameter: str, low: float, high: float
) -> float | None:
    """The smallest value of a setting in [low, high] at which both bills cost the same, or None."""
    breaks = kinks([first, second], settings, parameter)
    found = crossings(difference(first, second, settings, parameter), low, high, breaks)
    return found[0] if found else None
