"""From a project folder to a listening server: which model, are they the right files, which port.

The model that is served must be the one that was trained and evaluated: hashes of base, adapter and
tokenizer (with its chat template) are compared with the run's record before anything listens.
"""

from __future__ import annotations

import gc
import logging
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from hauslm.base.errors import MissingError, RefusedError
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.listen import Place, Tls, place
from hauslm.base.progress import Progress, Silent
from hauslm.base.version import __version__
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import BaseFolder, base_of, weights_sha256
from hauslm.lm.interface import LanguageModel
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.serve import selfcheck
from hauslm.serve.app import create_app
from hauslm.serve.http import BoundedHead
from hauslm.serve.token import VARIABLE, token_for

GRACE_S = 30  # answers under way may finish for so long after Ctrl-C
LOG_FILE = "serve.log"
_TEMPLATE_FILES = ("tokenizer.json", "chat_template.jinja")


def start(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    run: Run | None,
    port: int | None = None,
    host: str | None = None,
    allow_network: bool = False,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """See `app.serve`."""
    progress = progress or Silent()
    at = place(
        host or scenario.serving.host,
        allow_network=allow_network,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    # The port and the token first: loading takes long, and these fail at once or not at all.
    with listening(at.host, scenario.serving.port if port is None else port) as listener:
        token, token_file = token_for(folder.work)
        model, fingerprint = load(scenario, folder, run, progress)
        app = create_app(
            model,
            token=token,
            host_names=at.names,
            max_queue=scenario.serving.max_queue,
            batch_size=scenario.serving.batch_size,
            adapter_root=folder.root,
            fingerprint=fingerprint,
        )
        with loaded_for_good():
            listener.listen()  # whoever reads the address may come at once
            _announce(progress, at, listener, token_file, model)
            _run(app, at, listener, folder.logs / LOG_FILE)
    progress.say(say("The server has been stopped."))


# ---------------------------------------------------------------- address


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket, so that a taken port is known before the model is loaded. H851."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise MissingError(
                "H851",
                say(
                    "Port {port} cannot be used ({reason}).",
                    port=str(port),
                    reason=error.strerror or str(error),
                ),
                next_step=say("Stop the other server, or choose another port with --port."),
            ) from error
        yield listener


def _announce(
    progress: Progress,
    at: Place,
    listener: socket.socket,
    token_file: Path | None,
    model: LanguageModel,
) -> None:
    url = at.url(listener.getsockname()[1])
    progress.say(say("OpenAI-compatible API: {url}", url=f"{url}/v1"))
    if at.tls is not None:
        progress.say(say("Encrypted (TLS), for the names {names}.", names=", ".join(at.names)))
    progress.say(say("Models: {names}", names=", ".join((model.name, *model.adapters()))))
    if token_file is None:
        progress.say(say("The token is the one in {name}.", name=VARIABLE))
    else:
        progress.say(say("The token is in {path}; only you can read it.", path=str(token_file)))


# ---------------------------------------------------------------- model


def load(
    scenario: Scenario, folder: ProjectFolder, run: Run | None, progress: Progress
) -> tuple[LanguageModel, str]:
    """(the model with its adapter, checked; a fingerprint for `system_fingerprint`)."""
    base = base_of(scenario.model, folder.root, tell=progress.say)
    for note in base.notes:
        progress.say(note)
    progress.say(say("Checking and loading {model}.", model=base_name(base)))
    base_hash = weights_sha256(base.path, folder.work / "base-hashes.json")
    trained = folder.root / run.adapter.path if run is not None else None
    if run is None or trained is None:
        progress.say(say("No adapter has been trained here; the base model is served alone."))
    else:
        check_run(run, base, base_hash, trained)
    model = _load(scenario, base, run, trained, progress)
    selfcheck.check(model)
    tail = run.adapter.sha256[:8] if run is not None else "base"
    return model, f"hauslm-{__version__}-{base_hash[:8]}-{tail}"


def _load(
    scenario: Scenario, base: BaseFolder, run: Run | None, trained: Path | None, progress: Progress
) -> LanguageModel:
    from hauslm.lm.local import LocalModel

    folder, adapters = base.path, {}
    name = base_name(base)
    if run is not None and trained is not None:
        if run.method == "full":
            folder, name = trained, adapter_name(scenario.name, name)
            progress.say(
                say(
                    "The whole model was trained; it is served as {name}, without the base.",
                    name=name,
                )
            )
        else:
            adapters = {adapter_name(scenario.name, name): trained}
    return LocalModel.load(
        folder,
        adapters,
        name=name,
        quantisation=_quantisation(scenario, run, progress),
        batch_size=scenario.serving.batch_size,
    )


def _quantisation(scenario: Scenario, run: Run | None, progress: Progress) -> str:
    """As in training: the adapter learned on top of the base as it was stored then."""
    wanted: str = scenario.model.quantisation
    if wanted == "auto":
        wanted = str(run.settings.get("quantisation", "none")) if run is not None else "none"
    if wanted == "none":
        return wanted
    import torch

    if not torch.cuda.is_available():
        progress.say(
            say(
                "Without a GPU the base is not quantised to {kind}; it takes more memory.",
                kind=wanted,
            )
        )
        return "none"
    return wanted


def base_name(base: BaseFolder) -> str:
    """The base as a model id: as the project file calls it, but never a path of this machine."""
    return base.path.name if base.source == "path" and base.catalog_id is None else base.id


def adapter_name(project: str, base_id: str) -> str:
    """The project's name as a model id; never that of the base."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", project.lower()).strip("-._") or "team"
    return f"{slug}-adapter" if slug in (base_id.lower(), "base") else slug


def check_run(run: Run, base: BaseFolder, base_hash: str, trained: Path) -> None:
    """Are these the files of the run? H853 adapter, H854 base, H855 tokenizer or template."""
    weights = "model.safetensors" if run.method == "full" else "adapter_model.safetensors"
    file = trained / weights
    if not file.is_file() or sha256_file(file) != run.adapter.sha256:
        what = say("The adapter is not the one that was trained (its hash differs).")
        raise _other_file("H853", what, file)
    if run.base.get("sha256") != base_hash:
        what = say("The base model is not the one of the training (its hash differs).")
        raise _other_file("H854", what, base.path)
    for name in _TEMPLATE_FILES:
        then, now = trained / name, base.path / name
        if then.is_file() and (not now.is_file() or sha256_file(then) != sha256_file(now)):
            what = say("{file} is not the one of the training (its hash differs).", file=name)
            raise _other_file("H855", what, now)


def _other_file(code: str, what: Sentence, path: Path) -> RefusedError:
    return RefusedError(
        code,
        what,
        where=str(path),
        next_step=say("Train again, or restore the files of the run."),
    )


# ---------------------------------------------------------------- running


class _Server(uvicorn.Server):
    """Returns when it is stopped, where uvicorn would raise the signal once more at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {s: signal.signal(s, self.handle_exit) for s in signals}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


def server_for(app: Any, tls: Tls | None = None) -> uvicorn.Server:
    """uvicorn, silent, no WebSockets, without headers that tell about us; encrypted with `tls`."""
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            http=BoundedHead,
            ws="none",
            lifespan="on",
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=tls.cert if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
    )


def _run(app: Any, at: Place, listener: socket.socket, log_file: Path) -> None:
    with _logging_to(log_file):
        try:
            server_for(app, at.tls).run(sockets=[listener])
        finally:
            app.state.engine.close()  # a second Ctrl-C skips the orderly end


@contextmanager
def loaded_for_good() -> Iterator[None]:
    """What is loaded by now stays, so the garbage collector need not go through it again and again:
    a full collection over the objects of torch and transformers stopped every stream for 0.2 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _logging_to(log_file: Path) -> Iterator[None]:
    """What goes wrong inside stands in the log, with no text of any request."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(n) for n in ("hauslm.serve", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()
