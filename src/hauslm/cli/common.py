"""What every command shares: -C, --json, --language, --quiet, progress on standard error, what comes next."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hauslm.base import words
from hauslm.base.words import N_, Sentence, as_text, say, translate

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from hauslm.flow import Project

# A pace that was watched for less tells nothing.
TOLD_AFTER_S = 2.0

F = TypeVar("F", bound=Callable[..., Any])


def _span(seconds: float) -> str:
    """A time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


# Figures that have a name and a unit; others are shown as they are called.
FIGURES: dict[str, Callable[[Any], Sentence]] = {
    "loss": lambda v: say("loss {value:.3f}", value=v),
    "validation": lambda v: say("validation {value:.3f}", value=v),
    "tokens_per_second": lambda v: say("{value:,.0f} tokens/s", value=v),
    "limit_share": lambda v: say("{value:.0%} of what this machine could do", value=v),
    "memory_gib": lambda v: (
        say("{value:.1f} GiB (planned {planned:.1f})", value=v[0], planned=v[1])
        if isinstance(v, tuple)
        else say("{value:.1f} GiB", value=v)
    ),
    "remaining_seconds": lambda v: say("{time} left", time=_span(v)),
    "remaining_s": lambda v: say("{time} left", time=_span(v or 0)),
    "documents": lambda v: say("{value:,} documents", value=v),
    "rejected": lambda v: say("{value:,} rejected", value=v),
    "failed": lambda v: say("{value:,} failed", value=v),
    "documents_per_hour": lambda v: say("{value:,.0f} articles/h", value=v),
    "planned_documents_per_hour": lambda v: say("planned {value:,.0f}", value=v),
    "energy_kwh": lambda v: say("{value:.3f} kWh so far", value=v),
    "cost_so_far_eur": lambda v: say("{value:.2f} EUR so far", value=v),
    "cost_eur": lambda v: say("about {value:.2f} EUR in all", value=v),
}


class Terminal:
    """Progress for people: a bar on a terminal, plain lines elsewhere, nothing with --quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        # The reader's language, whatever language the project's records are written in.
        self.language = words.language()
        self.tty = sys.stderr.isatty() and not quiet
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._last_line = 0.0
        self._since = (0.0, 0.0)  # when the title in hand began, and with how much done

    def say(self, sentence: Sentence | str) -> None:
        if not self.quiet:
            self._pause()
            click.echo(as_text(sentence, self.language), err=True)

    def step(self, title: Sentence | str, done: float, total: float | None, **figures: Any) -> None:
        if self.quiet:
            return
        name = as_text(title, self.language)
        if name != self._title:
            self._since = (time.monotonic(), done)
        if not self.tty and not set(figures) & {"remaining_seconds", "remaining_s"}:
            figures |= self._remaining(done, total)
        shown = "  ".join(self._shown(k, v) for k, v in figures.items())
        if self.tty and not sys.stderr.isatty():  # the terminal was closed; the run goes on
            self._pause()
            self.tty = False
        if self.tty:
            self._bar(name, done, total, shown)
        else:
            self._line(name, done, total, shown)

    def _remaining(self, done: float, total: float | None) -> dict[str, float]:
        """What is left at the pace so far, in seconds, once two seconds tell a pace."""
        began, first = self._since
        seconds = time.monotonic() - began
        if total is None or seconds < TOLD_AFTER_S or not first < done < total:
            return {}
        return {"remaining_seconds": (total - done) * seconds / (done - first)}

    def _shown(self, name: str, value: Any) -> str:
        """A figure with its name and unit in the reader's language."""
        if name in FIGURES:
            return FIGURES[name](value).text(self.language)
        return f"{name} {as_text(value, self.language) if isinstance(value, Sentence) else _figure(value)}"

    def _line(self, name: str, done: float, total: float | None, shown: str) -> None:
        finished = total is not None and done >= total
        if name == self._title and not finished and time.monotonic() - self._last_line < 10:
            return
        if name == self._title and finished and getattr(self, "_said_end", "") == name:
            return
        self._said_end = name if finished else ""
        self._title, self._last_line = name, time.monotonic()
        click.echo(f"  {name} {self._amount(done, total)}  {shown}".rstrip(), err=True)

    def _amount(self, done: float, total: float | None) -> str:
        of = words.number(done, ",", self.language)
        return f"{of}/{words.number(total, ',', self.language)}" if total else of

    def _bar(self, name: str, done: float, total: float | None, shown: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        amount = self._amount(done, total)
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        if name != self._title or self._task is None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(name, total=total, figures=shown, amount=amount)
            self._title = name
        self._bars.update(self._task, completed=done, total=total, figures=shown, amount=amount)
        if total is not None and done >= total:
            self._pause()

    def _pause(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._task, self._title = None, None, ""

    close = _pause


def _figure(value: Any) -> str:
    return (
        words.number(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else str(value)
    )


class Setting:
    """The common options of one call."""

    def __init__(self, folder: Path, as_json: bool, quiet: bool) -> None:
        self.folder = folder
        self.as_json = as_json
        self.progress = Terminal(quiet)
        self.told_next = False

    def project(self) -> Project:
        from hauslm import flow

        return flow.Project.load(self.folder, self.progress)

    def show(self, record: Any) -> None:
        """The record as JSON, or its summary for a person."""
        self.progress.close()
        if self.as_json:
            data = (
                record.model_dump(mode="json", by_alias=True)
                if hasattr(record, "model_dump")
                else record
            )
            click.echo(json.dumps(data, ensure_ascii=False, indent=2))
            return
        from hauslm import flow

        self.print(flow.summary(record))

    def print(self, renderable: Any) -> None:
        from rich.console import Console

        # Without a terminal rich would fold at 80 columns; tables of figures need more.
        console = Console(
            soft_wrap=False, width=None if sys.stdout.isatty() else 110, highlight=False
        )
        console.print(renderable)

    def weiter(self, next_step: Sentence | str) -> None:
        """The command or sentence that goes on from here; once, and never among JSON."""
        from hauslm.cli.guidance import in_folder

        if not next_step or self.told_next:
            return
        self.told_next = True
        if not self.as_json and not self.progress.quiet:
            next_step = in_folder(next_step, self.folder)
            click.echo(say("Next: {step}", step=as_text(next_step)).text(), err=True)


def common(function: F) -> F:
    """Add the options that every command has; the command gets a `Setting` first."""

    @click.option(
        "-C",
        "directory",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(),
        metavar="DIR",
        help=translate(N_("Project folder.")),
    )
    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        help=translate(N_("Print the record as JSON, nothing else.")),
    )
    @click.option("--language", metavar="LANG", help=translate(N_("Language: de or en.")))
    @click.option("--quiet", "-q", is_flag=True, help=translate(N_("No progress and no messages.")))
    @functools.wraps(function)
    def wrapped(
        directory: Path, as_json: bool, language: str | None, quiet: bool, **rest: Any
    ) -> Any:
        if language is not None and language not in words.available_languages():
            raise click.BadParameter(
                say(
                    "'{value}' is not one of {choices}.",
                    value=language,
                    choices=", ".join(words.available_languages()),
                ).text(),
                param_hint="--language",
            )
        setting = Setting(directory, as_json, quiet)
        try:
            result = function(setting, **rest)
        finally:
            setting.progress.close()
        from hauslm.cli.guidance import next_of

        command = click.get_current_context().info_name
        if not result and command is not None:
            setting.weiter(next_of(command))
        return result

    return wrapped  # type: ignore[return-value]
