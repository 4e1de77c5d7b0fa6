"""`hauslm serve` with the engine vllm: vLLM answers, we launch, check, watch and stop it.

The same promises as our own server: loopback only, the token of the project, the files of the training
(hashes), the template of the training, and the canary before anybody is told the address.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hauslm.base.files import ProjectFolder, read_json
from hauslm.base.listen import place
from hauslm.base.progress import Progress
from hauslm.base.words import say
from hauslm.catalog.local import base_of, weights_sha256
from hauslm.lm import vllm
from hauslm.lm.canary import check_canary, make_canary
from hauslm.lm.interface import BASE
from hauslm.lm.permit import permit_for
from hauslm.lm.remote import RemoteModel
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.serve import start as own
from hauslm.serve.token import VARIABLE, token_for

LOG_FILE = "vllm.log"


def start(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run | None,
    port: int | None,
    progress: Progress,
) -> None:
    """Until Ctrl-C or SIGTERM. H818-H821 vLLM, H833-H834 canary, H853-H855 other files."""
    place(scenario.serving.host)  # vLLM is launched for this machine only: H112 for any other
    number = scenario.serving.port if port is None else port
    with own.listening(vllm.HOST, number):
        pass  # taken: known before a large model is read
    token, token_file = token_for(folder.work)
    launch = launch_for(scenario, folder, run, number)
    progress.say(say("Starting vLLM; its log is {path}.", path=str(folder.logs / LOG_FILE)))
    with _stoppable(), vllm.launched(launch, token, folder.logs / LOG_FILE) as running:
        check(scenario, folder, launch, running)
        progress.say(say("vLLM answers as recorded, alone and in a mixed batch."))
        progress.say(say("OpenAI-compatible API: {url}", url=running.url))
        progress.say(say("Models: {names}", names=", ".join((launch.name, *launch.adapters))))
        if token_file is None:
            progress.say(say("The token is the one in {name}.", name=VARIABLE))
        else:
            progress.say(say("The token is in {path}; only you can read it.", path=str(token_file)))
        with suppress(_Stopped):
            running.wait()
    progress.say(say("The server has been stopped."))


def launch_for(
    scenario: Scenario, folder: ProjectFolder, run: Run | None, port: int
) -> vllm.Launch:
    """What to start for this project, its files checked against the run."""
    base = base_of(scenario.model, folder.root)
    where, name, adapters = base.path, own.base_name(base), dict[str, Path]()
    if run is not None:
        trained = (folder.root / run.adapter.path).resolve()
        base_hash = weights_sha256(base.path, folder.work / "base-hashes.json")
        own.check_run(run, base, base_hash, trained)
        if run.method == "full":
            where, name = trained, own.adapter_name(scenario.name, name)
        else:
            adapters = {own.adapter_name(scenario.name, name): trained}
    template = where / "chat_template.jinja"
    return vllm.Launch(
        scenario.serving.vllm_python,
        where.resolve(),
        name,
        port,
        adapters,
        max_num_seqs=scenario.serving.batch_size,
        chat_template=template.resolve() if template.is_file() else None,
        quantisation=vllm.form_of_weights(scenario.model.quantisation, run),
    )


def check(
    scenario: Scenario, folder: ProjectFolder, launch: vllm.Launch, running: vllm.Running
) -> None:
    """Every adapter against its recorded canary; without one, alone against mixed."""
    canary_file = folder.adapter / "canary.json"
    for name in launch.adapters:
        model = RemoteModel(
            running.url,
            {BASE: launch.name, name: name},
            permit_for(scenario, vllm.HOST),
            context_length=1 << 20,
            key_variable=vllm.KEY_VARIABLE,
            concurrency=8,  # all of the canary's rows at once: that is the mixed batch
        )
        canary = read_json(canary_file) if canary_file.is_file() else make_canary(model, name)
        check_canary(model, name, canary)


class _Stopped(Exception):
    """A signal asked us to end."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM become an exception, so that the process is stopped in order."""

    def end(*_: Any) -> None:
        raise _Stopped

    before = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped:
        pass  # while it was starting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
