"""completion: the script with which bash, zsh or fish completes hauslm's commands and options."""

from __future__ import annotations

import json
import shutil

import click

from hauslm.base.errors import MissingError
from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common

# click's own convention: the shell calls `hauslm` with this variable set and reads the candidates.
VARIABLE = "_HAUSLM_COMPLETE"
START_FILES = {
    "bash": "~/.bashrc",
    "zsh": "~/.zshrc",
    "fish": "~/.config/fish/completions/hauslm.fish",
}
LINES = {
    "bash": 'eval "$(hauslm completion bash)"',
    "zsh": 'eval "$(hauslm completion zsh)"',
    "fish": "hauslm completion fish | source",
}


@click.command(
    epilog=translate(N_('Put this into your shell\'s start file: eval "$(hauslm completion bash)"'))
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(setting: Setting, shell: str) -> None:
    from click.shell_completion import get_completion_class

    from hauslm.cli.entry import group

    made = get_completion_class(shell)
    if made is None or not shutil.which(shell):  # click asks the shell itself for its version
        raise MissingError(
            "H105",
            say("The shell {name} is not on this machine.", name=shell),
            next_step=say("Ask for the completion of a shell that is: bash, zsh or fish."),
        )
    script = made(group, {}, "hauslm", VARIABLE).source()
    if setting.as_json:
        click.echo(json.dumps({"shell": shell, "script": script}, ensure_ascii=False))
        return
    click.echo(script)
    setting.weiter(
        say(
            "Put the line {line} into {file} and open a new shell.",
            line=LINES[shell], file=START_FILES[shell],
        )
    )  # fmt: skip
