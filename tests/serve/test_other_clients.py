"""Clients that others use in place of the official one: simonw/llm, LangChain's ChatOpenAI, litellm.

They are no dependencies of ours: the Python named by HAUSLM_CLIENTS_PYTHON (or this one) is asked which of
them it has, and the others are skipped. Made by: pip install llm langchain-openai litellm
(tried with llm 0.36, langchain-openai 1.7.4, litellm 1.110.2).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hauslm.lm.interface import Message, Request
from hauslm.lm.local import LocalModel
from hauslm.serve.app import create_app
from tests.serve.conftest import TOKEN

PYTHON = os.environ.get("HAUSLM_CLIENTS_PYTHON", sys.executable)
ASKED = "What did the study find?"

CLIENTS = {
    "llm": """
import json, sys, llm
url, token, text = sys.argv[1:]
model = llm.get_model("house")
whole = model.prompt(text, stream=False, temperature=0, max_tokens=12, key=token)
pieces = list(model.prompt(text, stream=True, temperature=0, max_tokens=12, key=token))
chat = model.conversation()
first = chat.prompt(text, stream=False, temperature=0, max_tokens=6, key=token).text()
second = chat.prompt("And then?", stream=False, temperature=0, max_tokens=6, key=token).text()
print(json.dumps({"whole": whole.text(), "stream": "".join(pieces), "turns": [first, second]}))
""",
    "langchain_openai": """
import json, sys
from langchain_openai import ChatOpenAI
url, token, text = sys.argv[1:]
model = ChatOpenAI(model="tiny", base_url=url, api_key=token, temperature=0, max_tokens=12, max_retries=0)
whole = model.invoke(text)
stream = "".join(c.content for c in model.stream(text))
bound = model.with_structured_output(
    {"title": "row", "type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
     "required": ["n"], "additionalProperties": False}, method="json_schema").invoke(text)
print(json.dumps({"whole": whole.content, "stream": stream, "bound": bound,
                  "tokens": whole.usage_metadata["output_tokens"]}))
""",
    "litellm": """
import json, sys, litellm
url, token, text = sys.argv[1:]
common = dict(model="openai/tiny", api_base=url, api_key=token, temperature=0, max_tokens=12,
              messages=[{"role": "user", "content": text}])
whole = litellm.completion(**common)
stream = "".join(c.choices[0].delta.content or "" for c in litellm.completion(stream=True, **common))
try:
    litellm.completion(**{**common, "model": "openai/other"})
    missing = ""
except litellm.NotFoundError as error:
    missing = "404"
print(json.dumps({"whole": whole.choices[0].message.content, "stream": stream, "missing": missing}))
""",
}


def has(package: str) -> bool:
    found = subprocess.run(
        [PYTHON, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"],
        check=False,
    )  # fmt: skip
    return found.returncode == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_it_gets_the_model_s_answers(
    client: str, serving: Callable[..., Any], tiny: LocalModel, tmp_path: Path
) -> None:
    if not has(client):
        pytest.skip(f"{client} is not installed in {PYTHON}")
    with serving(create_app(tiny, token=TOKEN)) as live:
        url = f"{live.url}/v1"
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: house\n  model_name: tiny\n  api_base: {url}\n  api_key_name: house\n"
        )
        environment = os.environ | {
            "LLM_USER_PATH": str(tmp_path),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network at import
            "HOME": str(tmp_path),
        }
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [PYTHON, "-c", CLIENTS[client], url, TOKEN, ASKED],
            capture_output=True, text=True, env=environment, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    request = Request((Message("user", ASKED),), max_new_tokens=12)
    expected = tiny.generate([request])[0].text
    assert told["whole"] == told["stream"] == expected
    if client == "llm":
        assert told["turns"][0] == tiny.generate([Request((Message("user", ASKED),), max_new_tokens=6)])[0].text  # fmt: skip
    if client == "langchain_openai":
        assert 1 <= told["bound"]["n"] <= 9
        assert told["tokens"] == 12
    if client == "litellm":
        assert told["missing"] == "404"
