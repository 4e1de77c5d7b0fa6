"""A tiny random model with two adapters of large effect, and a real server around any model."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hauslm.embedded import MODEL
from hauslm.lm.echo import EchoModel
from hauslm.lm.interface import LanguageModel
from hauslm.lm.local import LocalModel
from hauslm.serve.app import create_app
from hauslm.serve.start import listening, server_for

TOKEN = "t" * 43
AUTH = {"Authorization": f"Bearer {TOKEN}"}
HELLO = [{"role": "user", "content": "one two three four five"}]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    make: Any = AutoModelForCausalLM.from_config

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = make(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            vocab_size=6144,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=5,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return folder


def save_adapter(base: Path, folder: Path, seed: int, strength: float = 0.1) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    peft = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    )
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, strength) if strength else parameter.zero_()
    peft.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., Path]:
    return save_adapter


@pytest.fixture(scope="session")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: save_adapter(tiny_base, tmp_path_factory.mktemp(name), seed)
        for name, seed in (("one", 1), ("two", 2))
    }


@pytest.fixture(scope="session")
def tiny(tiny_base: Path, adapters: dict[str, Path]) -> LocalModel:
    """Loaded once; tests must leave its adapters as they found them."""
    return LocalModel.load(tiny_base, adapters, name="tiny")


@dataclass
class Live:
    """A server that listens, and its parts."""

    url: str
    port: int
    app: FastAPI


@contextmanager
def served(app: FastAPI) -> Iterator[Live]:
    """`app` under uvicorn on a free loopback port, in a thread."""
    with listening("127.0.0.1", 0) as listener:
        server = server_for(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            _until(lambda: server.started)
            yield Live(f"http://127.0.0.1:{port}", port, app)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """until(condition): wait for it, fail after 20 seconds."""
    return _until


@pytest.fixture(scope="session")
def serving() -> Callable[[FastAPI], Any]:
    return served


@pytest.fixture(scope="session")
def live(tiny: LocalModel, adapters: dict[str, Path]) -> Iterator[Live]:
    app = create_app(tiny, token=TOKEN, adapter_root=adapters["one"].parent, fingerprint="fp")
    with served(app) as server:
        yield server


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """client_of(model, **create_app options): an authorised client in this process."""
    open_clients: list[TestClient] = []

    def make(model: LanguageModel | None = None, **options: Any) -> TestClient:
        app = create_app(model or EchoModel(["a"]), token=TOKEN, **options)
        client = TestClient(app, base_url="http://127.0.0.1:8399", headers=AUTH)
        open_clients.append(client.__enter__())
        return client

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of()


def raw_request(port: int, head: str, body: bytes = b"") -> socket.socket:
    """An open connection on which the request was sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


@pytest.fixture(scope="session")
def raw() -> Callable[..., socket.socket]:
    return raw_request
