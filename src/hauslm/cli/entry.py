"""From process start to exit code: the guard, the lazy group of commands, the last net for errors.

Commands are listed with their one-line help here, so that `hauslm --help` imports no command. Standard
output carries the record or its summary and nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import click

from hauslm.base import egress, words
from hauslm.base.errors import HauslmError, Interrupted
from hauslm.base.version import __version__
from hauslm.base.words import N_, Sentence, say, translate

# name -> (module below hauslm.cli, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("run", N_("The whole way on the embedded model and sample documents.")),
    "check": ("project", N_("Look at machine, GPU, packages, base model and network guard.")),
    "init": ("project", N_("Ask about eight questions and write hauslm.yaml.")),
    "compare": (
        "stages",
        N_("Cloud/API against local models, criterion by criterion, with figures."),
    ),
    "decide": ("stages", N_("Gates, cost, verdict with reasons, and what would flip it.")),
    "plan": ("plan", N_("Memory, time, energy, cost; the settings that fit and are fastest.")),
    "prepare": ("stages", N_("Documents into checked, split, tokenized examples.")),
    "train": ("stages", N_("Train the adapter; interrupted runs resume.")),
    "sweep": ("stages", N_("Try learning rates, ranks and targets in short trainings (Ray).")),
    "evaluate": ("stages", N_("Base against adapter on your own task, with intervals.")),
    "bundle": ("share", N_("Pack adapter, tokenizer and records into one verifiable file.")),
    "verify": ("share", N_("Check a stranger's bundle or adapter folder before loading it.")),
    "export": ("share", N_("Merged model, GGUF, Ollama, vLLM, or a plain training script.")),
    "keys": ("share", N_("The team's signing keys: make, list, show, trust.")),
    "adapters": ("share", N_("List, compare, combine, import adapters, or roll back.")),
    "push": ("share", N_("Put the bundle into a folder or a model hub; only when told to.")),
    "pack": ("share", N_("Everything for a machine without network, in one folder.")),
    "analyse": ("stages", N_("Articles into schema-valid rows; resumable.")),
    "serve": ("serve", N_("OpenAI-compatible server on this machine.")),
    "web": ("serve", N_("The same stages as pages on this machine.")),
    "report": ("run", N_("Write the report from the records: Markdown, HTML, PDF, JSON.")),
    "run": ("run", N_("Every stage that is missing or out of date, in order.")),
    "catalog": ("catalog", N_("Models, GPUs, offers, tariffs and rules with sources and dates.")),
    "prove-privacy": (
        "prove",
        N_("Run the stages in a network trap and count what tries to leave."),
    ),
    "schema": ("project", N_("JSON Schema of the project file.")),
    "completion": ("completion", N_("Shell completion: the script for bash, zsh or fish.")),
}

# Commands that listen; all others need no Internet socket at all.
LISTENING = ("serve", "web")
# Commands that live for a second: Python's cycle collector would take a tenth of it for nothing.
QUICK = ("decide", "compare", "catalog", "schema", "init", "check", "completion")
# Commands that may reach `analyse`, which may ask an endpoint that the project file names.
REACH_ANALYSE = ("analyse", "run", "demo")
# And those that may reach `evaluate`, which may ask a cloud model that the project file names.
REACH_EVALUATE = ("evaluate", "bundle", "analyse", "run", "demo")
# Commands that may start several processes, which must reach each other.
SPREAD = ("train",)
_SPREAD = re.compile(r"""\bspread["']?\s*:\s*["']?ray\b""")
_ENDPOINT = re.compile(r"""\bengine["']?\s*:\s*["']?(openai|vllm)\b""")
_CLOUD = re.compile(r"""^[^#\n]*(?<![\w-])["']?cloud["']?\s*:""", re.MULTILINE)


class LazyGroup(click.Group):
    """Knows the commands by name; imports one only when it runs or asks for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"hauslm.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        command.help = translate(COMMANDS[cmd_name][1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(translate(N_("Commands"))):
            formatter.write_dl([(n, translate(h)) for n, (_, h) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            from hauslm.base.errors import UsageError, did_you_mean

            raise UsageError(
                "H100",
                say("There is no command '{name}'.", name=name),
                next_step=did_you_mean(name, COMMANDS),
            )
        return super().resolve_command(ctx, args)


def _language_before_click(arguments: list[str]) -> str:
    """The language must be known before click prints help or errors: look ahead for --language."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--language="):
            return argument.split("=", 1)[1]
        if argument == "--language" and position + 1 < len(arguments):
            return arguments[position + 1]
    return _project_language(arguments) or words.environment_language()


def _project_language(arguments: list[str]) -> str:
    """`language:` of the project file, by a cheap look (the real reading comes later)."""
    for line in _project_text(arguments).splitlines():
        if line.startswith("language:"):
            return line.split(":", 1)[1].split("#")[0].strip(" \"'")
    return ""


def _project_text(arguments: list[str]) -> str:
    """The beginning of the project file, or '' if there is none to read."""
    folder = "."
    for position, argument in enumerate(arguments):
        if argument == "-C" and position + 1 < len(arguments):
            folder = arguments[position + 1]
        elif argument.startswith("-C") and len(argument) > 2:
            folder = argument[2:]
    with (
        contextlib.suppress(OSError, UnicodeDecodeError),
        (Path(folder).expanduser() / "hauslm.yaml").open(encoding="utf-8") as stream,
    ):
        return stream.read(1 << 16)
    return ""


def _shut_the_door(arguments: list[str]) -> Sentence | None:
    """The guard's mode by command, before anything else: the kernel's filter is for good.

    Left without that filter: the trap of `prove-privacy`, whose control must be able to send, and
    commands that may ask an endpoint which the project file names: these get a notice, returned.
    """
    command = arguments[0] if arguments else ""
    if command in LISTENING:
        # A launched vLLM calls itself and is called by us; `cli.serve` adds the filter if it is not.
        text = " ".join(arguments) + _project_text(arguments)
        egress.shut("loopback", kernel=not (command == "serve" and "vllm" in text))
        return None
    if command == "sweep" or (command in SPREAD and _several(arguments)):
        egress.shut("loopback", kernel=False)  # said in the run's own notices and record
        return None
    if command in REACH_ANALYSE and _spreads(arguments):
        egress.shut("loopback", kernel=False)  # said by the room, with the cluster's size
        return None
    asks = command in REACH_ANALYSE and _asks_a_server(arguments)
    if command in REACH_EVALUATE:
        asks = asks or bool(_CLOUD.search(_project_text(arguments)))
    pushes = command == "push" and "hf" in arguments
    egress.shut("strict", kernel=not asks and not pushes and command != "prove-privacy")
    if {"--quiet", "-q"} & set(arguments):
        return None
    if pushes:
        return say(
            "A hub is to be reached, so this command runs without the kernel's filter; the audit hook alone guards it."
        )
    if not asks:
        return None
    return say(
        "A server is to be asked (an endpoint or vLLM), so this command runs without the kernel's filter; the audit hook alone guards it."
    )


def _spreads(arguments: list[str]) -> bool:
    """Is the analysis shared among the workers of a Ray cluster?"""
    words_given = " ".join(arguments)
    if "--engine ray" in words_given or "--engine=ray" in words_given:
        return True
    return bool(_SPREAD.search(_project_text(arguments)))


def _asks_a_server(arguments: list[str]) -> bool:
    """Does an endpoint or a launched vLLM answer? By the command line, else by the project file."""
    for position, argument in enumerate(arguments):
        given = argument.partition("=")[2] if argument.startswith("--engine=") else ""
        if argument == "--engine" and position + 1 < len(arguments):
            given = arguments[position + 1]
        if given in ("openai", "vllm"):
            return True
    return bool(_ENDPOINT.search(_project_text(arguments)))


def _several(arguments: list[str]) -> bool:
    """Does the command line ask for more than one process?"""
    for name in ("--nproc", "--nnodes"):
        for position, argument in enumerate(arguments):
            value = argument.partition("=")[2] if argument.startswith(name + "=") else ""
            if argument == name and position + 1 < len(arguments):
                value = arguments[position + 1]
            if value and value != "1":
                return True
    return False


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="hauslm")
@click.pass_context
def group(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _stop(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options_after_command(arguments: list[str]) -> list[str]:
    """`hauslm -C DIR decide` means `hauslm decide -C DIR`: the common options go behind the command."""
    before: list[str] = []
    rest = list(arguments)
    while rest:
        if rest[0] in ("-C", "--language") and len(rest) > 1:
            before += [rest.pop(0), rest.pop(0)]
        elif rest[0] in ("--json", "--quiet", "-q") or rest[0].startswith("--language="):
            before.append(rest.pop(0))
        else:
            break
    known = bool(rest) and rest[0] in COMMANDS
    return [rest[0], *before, *rest[1:]] if known else arguments


def entry(arguments: list[str] | None = None) -> int:
    """Run and return the exit code; nothing but sentences reaches the user."""
    arguments = _options_after_command(list(sys.argv[1:] if arguments is None else arguments))
    notice = _shut_the_door(arguments)
    code = _language_before_click(arguments)
    words.use_language(code if code in words.available_languages() else "en")
    group.help = translate(
        N_(
            "hauslm brings a team's language model in-house: decide, plan, prepare, train, evaluate, share, analyse, serve. Everything runs offline."
        )
    )
    if notice is not None:
        _tell(notice.text())
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _stop)
    # Libraries warn their programmers; a user can do nothing about it. Ours go through sentences.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if arguments and arguments[0] in QUICK:
        gc.set_threshold(50_000, 20, 20)
    try:
        result = group.main(args=arguments, prog_name="hauslm", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.exceptions.Abort:
        return _interrupted()
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except HauslmError as error:
        _tell(error.text())
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader went away (`hauslm ... | head`); not a fault of ours.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _unexpected(error, arguments)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def _interrupted() -> int:
    error = Interrupted(
        "H750",
        say("Stopped on request; what was finished is saved."),
        next_step=say("The same command goes on where it stopped."),
    )
    _tell(error.text())
    return error.exit_code


def _unexpected(error: Exception, arguments: list[str]) -> int:
    """A fault of ours: the traceback goes to a file, the user gets a sentence and the path."""
    from hauslm.base.fault import own_fault

    logs = Path("logs")
    for position, argument in enumerate(arguments[:-1]):
        if argument == "-C":
            logs = Path(arguments[position + 1]) / "logs"
    told = own_fault(error, logs, " ".join(arguments))
    _tell(told.text())
    return told.exit_code
