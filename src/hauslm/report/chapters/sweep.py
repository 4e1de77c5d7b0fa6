"""The sweep: which settings were tried, how each did, and what could go into the project file."""

from __future__ import annotations

import json

from hauslm.base.words import N_, Sentence, say, translate
from hauslm.records import Sweep, SweepTrial
from hauslm.report import plots
from hauslm.report.blocks import Writer

STATES = {
    "done": N_("whole"), "stopped": N_("stopped early"), "failed": N_("failed"),
    "missing": N_("missing"),
}  # fmt: skip
SHOWN_CURVES = 8


def write(w: Writer, sweep: Sweep) -> None:
    w.heading(say("The sweep"))
    best = next(t for t in sweep.trials if t.name == sweep.best)
    w.text(
        say(
            "{count} settings were trained for up to {steps:,} steps and compared on the validation split; the best is {best}.",
            count=len(sweep.trials), steps=sweep.steps, best=named(best),
        )
    )  # fmt: skip
    w.table(
        [say("Learning rate"), say("Rank"), say("Targets"), say("Validation loss"), say("Steps"),
         say("End")],
        [_row(w, sweep, t) for t in sweep.trials],
    )  # fmt: skip
    curves = [t for t in sweep.trials if t.history][:SHOWN_CURVES]
    table = w.make_table(
        [say("Trial"), say("Step"), say("Validation loss")],
        [(named(t), w.number(s), w.number(v, ".4f")) for t in curves for s, v in t.history],
    )
    w.figure(
        drawing(sweep, w.language),
        _caption(sweep),
        say("Lower is better; a line that ends early was stopped, being in the worse half."),
        table,
    )
    if sweep.best != sweep.own and sweep.gain is not None:
        w.text(
            say("Against the project's own settings the validation loss is lower by {gain:.4f}.",
                gain=sweep.gain)
        )  # fmt: skip
        w.text(say("To use them, put this into hauslm.yaml:"))
        w.code("yaml", _yaml(sweep))
    for notice in sweep.notices:
        w.callout("note", notice)


def named(trial: SweepTrial) -> str:
    return f"{trial.learning_rate:.2g} / r {trial.r} / {_targets(trial)}"


def _targets(trial: SweepTrial) -> str:
    found = trial.target_modules
    return found if isinstance(found, str) else ", ".join(found)


def _row(w: Writer, sweep: Sweep, trial: SweepTrial) -> tuple[str, ...]:
    loss = "–" if trial.validation is None else w.number(trial.validation, ".4f")
    end = translate(STATES[trial.state], w.language)
    if trial.message:
        end = f"{end}: {trial.message.splitlines()[0]}"
    if trial.name == sweep.own:
        end = f"{end} ({w.t(say('the project’s own'))})"
    return (
        f"{trial.learning_rate:.2g}", str(trial.r), _targets(trial), loss, w.number(trial.steps), end,
    )  # fmt: skip


def drawing(sweep: Sweep, language: str | None = None) -> str:
    """Validation losses over the steps, best trials first, as SVG."""
    shown = [t for t in sweep.trials if t.history][:SHOWN_CURVES]
    series = [(named(t), [s for s, _ in t.history], [v for _, v in t.history]) for t in shown]
    return plots.curves(
        series,
        _caption(sweep).text(language),
        say("step").text(language),
        say("validation loss").text(language),
        language=language,
    )


def _caption(sweep: Sweep) -> Sentence:
    count = min(SHOWN_CURVES, sum(bool(t.history) for t in sweep.trials))
    return say("Validation loss of the {count} best trials", count=count)


def _yaml(sweep: Sweep) -> str:
    lines = []
    for section, values in sweep.offer.items():
        lines.append(f"{section}:")
        lines += [f"  {name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
