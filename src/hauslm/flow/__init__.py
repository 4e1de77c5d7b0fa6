"""The stages and everything that the command line, the pages and the Python API offer; the only room
that knows all rooms.

    stages     what a stage needs, and whether its record is up to date
    rooms      which room answers it
    order      which comes next
    api        the stages for programs
    training   a training beside the process that asked for it
    sharing    what leaves the folder, and the server
    questions  what needs no stage
"""

from hauslm.flow.api import analyse, bundle, compare, decide, demo, evaluate, plan, prepare, train
from hauslm.flow.order import report, run, run_stage
from hauslm.flow.questions import (
    catalog,
    change_scenario,
    chapter,
    check,
    decision_diff,
    decision_note,
    init,
    plan_free,
    plan_table,
    privacy_verdict,
    prove_privacy,
    questions,
    scenario_form,
    schema,
    stage_html,
    summary,
    why_option,
)
from hauslm.flow.rooms import analyse_part
from hauslm.flow.sharing import adapters, export, keys, pack, push, serve, verify
from hauslm.flow.stages import (
    STAGES,
    Project,
    Stage,
    expected_inputs,
    load_record,
    needs_of,
    stage_named,
    stage_title,
    state,
)
from hauslm.flow.training import (
    profile_page,
    refuse_profile,
    sweep,
    telling_how_training_ended,
    train_detached,
    train_followed,
    train_node,
    train_status,
)

__all__ = [
    "STAGES",
    "Project",
    "Stage",
    "adapters",
    "analyse",
    "analyse_part",
    "bundle",
    "catalog",
    "change_scenario",
    "chapter",
    "check",
    "compare",
    "decide",
    "decision_diff",
    "decision_note",
    "demo",
    "evaluate",
    "expected_inputs",
    "export",
    "init",
    "keys",
    "load_record",
    "needs_of",
    "pack",
    "plan",
    "plan_free",
    "plan_table",
    "prepare",
    "privacy_verdict",
    "profile_page",
    "prove_privacy",
    "push",
    "questions",
    "refuse_profile",
    "report",
    "run",
    "run_stage",
    "scenario_form",
    "schema",
    "serve",
    "stage_html",
    "stage_named",
    "stage_title",
    "state",
    "summary",
    "sweep",
    "telling_how_training_ended",
    "train",
    "train_detached",
    "train_followed",
    "train_node",
    "train_status",
    "verify",
    "why_option",
]
