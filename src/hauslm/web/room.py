"""What do all pages share? The project, the templates, the language, the running job, the what-if."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

from hauslm import flow
from hauslm.base import words
from hauslm.base.errors import HauslmError, UsageError
from hauslm.base.words import N_, Sentence, number, say, speaking, translate
from hauslm.web.jobs import Jobs

if TYPE_CHECKING:
    from hauslm.views.whatif import WhatIf

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "hauslm_language"
NATIVE = {"de": "Deutsch", "en": "English"}
MOST_FIELDS = 200


@dataclass(frozen=True)
class Entry:
    """One entry of the navigation: path, title, and the stage whose state it shows ('' for none)."""

    path: str
    title: str
    stage: str = ""


NAVIGATION = (
    Entry("/decision", N_("Decision"), "decide"),
    Entry("/plan", N_("Plan"), "plan"),
    Entry("/data", N_("Data"), "prepare"),
    Entry("/training", N_("Training"), "train"),
    Entry("/evaluation", N_("Evaluation"), "evaluate"),
    Entry("/chat", N_("Chat")),
    Entry("/articles", N_("Articles")),
    Entry("/report", N_("Report")),
)
# Where the result of a stage is looked at.
PAGE_OF = {e.stage: e.path for e in NAVIGATION if e.stage} | {
    "compare": "/stage/compare", "bundle": "/stage/bundle", "analyse": "/stage/analyse", "run": "/report",
}  # fmt: skip


class Room:
    """One project folder with everything its pages need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = Jobs(folder)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._what_if: tuple[Any, WhatIf] | None = None
        self._deep: dict[Any, Any] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------ project

    def project(self) -> flow.Project:
        return flow.Project.load(self.folder)

    def what_if(self, project: flow.Project) -> WhatIf:
        """The decision under changed answers, kept as long as project file and measurements stay."""
        from hauslm.views.whatif import WhatIf

        records = [project.folder.record(n) for n in ("run", "analysis", "evaluation")]
        stamp = tuple(
            p.stat().st_mtime_ns if p.is_file() else 0 for p in (project.folder.file, *records)
        )
        with self._lock:
            if self._what_if is None or self._what_if[0] != stamp:
                measured = {
                    n: r for n in ("run", "analysis") if (r := _if_sound(project, n)) is not None
                }
                made = WhatIf(project.scenario, measured, _if_sound(project, "evaluation"))
                self._what_if = (stamp, made)
                self._deep = {}
            return self._what_if[1]

    def deep(self, project: flow.Project, answers: dict[str, str], language: str) -> Any:
        """`WhatIf.deep`, remembered for the answers asked last."""
        what_if = self.what_if(project)
        key = (id(what_if), tuple(sorted(answers.items())), language)
        if key not in self._deep:
            found = what_if.deep(answers, language)
            if len(self._deep) > 8:
                self._deep.clear()
            self._deep[key] = found
        return self._deep[key]

    def known_deep(self, project: flow.Project, answers: dict[str, str], language: str) -> Any:
        """The remembered deep answer, or None: a page does not wait for it."""
        key = (id(self.what_if(project)), tuple(sorted(answers.items())), language)
        return self._deep.get(key)

    def warm(self) -> None:
        """Load what the decision page needs before it is asked for; failures are told there."""

        def load() -> None:
            try:
                project = self.project()
                self.deep(project, {}, project.scenario.language)
            except HauslmError:
                return  # the page says it

        threading.Thread(target=load, name="hauslm-warm", daemon=True).start()

    # ------------------------------------------------------------ pages

    def language(self, request: Request) -> str:
        """The reader's choice, else the project's language, else the environment's."""
        code = request.cookies.get(LANGUAGE_COOKIE, "")
        if code in words.available_languages():
            return code
        try:
            return self.project().scenario.language
        except HauslmError:
            return words.language()

    def page(
        self, request: Request, template: str, status: int = 200, /, **values: Any
    ) -> HTMLResponse:
        return HTMLResponse(self.text(request, template, **values), status)

    def text(self, request: Request, template: str, /, **values: Any) -> str:
        code = self.language(request)

        def sentence(text: str, **fields: Any) -> str:
            return Sentence(text, fields).text(code) if fields else translate(text, code)

        with speaking(code):
            return self._templates.get_template(template).render(
                _=sentence,
                language=code,
                languages=words.available_languages(),
                native=NATIVE,
                path=request.url.path,
                navigation=NAVIGATION,
                page_of=PAGE_OF,
                stages=flow.STAGES,
                states=self._states(),
                number=lambda v, spec="": number(v, spec, code),
                job=self.jobs.current,
                running=self.jobs.running,
                **values,
            )

    def _states(self) -> dict[str, str]:
        """State of every stage for the navigation; nothing where the project file is faulty."""
        try:
            project = self.project()
            return {s.name: flow.state(project, s) for s in flow.STAGES.values()}
        except HauslmError:
            return {}


def _if_sound(project: flow.Project, record: str) -> Any:
    try:
        return flow.load_record(project, record)
    except HauslmError:
        return None


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form that was posted. H247 for one that is none of ours."""
    raw = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(raw, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise UsageError("H247", say("The form that was sent has too many fields.")) from error
