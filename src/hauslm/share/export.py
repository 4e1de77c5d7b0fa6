"""How does one leave hauslm? Merged, GGUF, Ollama, vLLM, or the training as a plain script.

Nobody is locked in: the adapter itself is a plain PEFT folder, and every way out carries the texts and
the name that the base model's licence asks for. Whether the file answers as base plus adapter do is
measured where that is possible, and said where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, RefusedError, UsageError, did_you_mean
from hauslm.base.files import ProjectFolder, write_sealed
from hauslm.base.words import Sentence, say
from hauslm.catalog.local import base_of
from hauslm.records import Run
from hauslm.scenario import Scenario
from hauslm.share.licence import CHANGES, changes_text, check_name, check_texts, duties_of

PROMPTS = (
    "The samples were taken from",
    "Die Proben wurden entnommen und",
    "In this study we measured the",
)
# For the comparison in llama.cpp: raw texts and questions, both languages.
QUESTIONS = (
    "What was measured?", "Was wurde gemessen?", "Summarise the method.", "Nenne die Ergebnisse.",
    "Which samples were used?", "Welche Proben wurden verwendet?", "Is there a limitation?",
    "Gibt es Grenzen der Studie?", "What is the conclusion?", "Was folgt daraus?",
)  # fmt: skip
NEW_TOKENS = 24
# What vLLM's --max-lora-rank takes (docs.vllm.ai, engine arguments).
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Job:
    """What every way out needs to know."""

    scenario: Scenario
    base: Path
    adapter: Path
    target: Path
    kind: str  # number format of GGUF
    prompts: int  # how many are compared in llama.cpp

    @property
    def name(self) -> str:
        return self.scenario.name

    @property
    def stem(self) -> str:
        return "".join(c if c.isascii() and c.isalnum() else "-" for c in self.name).strip("-") or "model"  # fmt: skip


def export(
    scenario: Scenario,
    folder: ProjectFolder,
    kind: str,
    target: Path | None,
    *,
    run: Run | None,
    training: Callable[[Path], Any] | None = None,
    type: str = "f16",
    prompts: int = 4,
) -> dict[str, Any]:
    """One way out by name (see `WAYS`, and script). Returns `path`, what was checked, and `notes`.

    `training` makes the files of the script for a target folder (`train.recipe`).

    H732 without an adapter, H733 unknown way, H734 the target is not empty; further H720 and H721 (the
    licence), H730 and H731 (merging), H735-H739 (GGUF and templates).
    """
    if kind != "script" and kind not in WAYS:
        raise UsageError(
            "H733",
            say("There is no way out called '{kind}'.", kind=kind),
            next_step=did_you_mean(kind, (*WAYS, "script")),
        )
    if run is None:
        raise DataError(
            "H732",
            say("There is no adapter yet."),
            where=str(folder.root),
            next_step=say("Run: {command}", command="hauslm train"),
        )
    path = (target or folder.root / "export" / _FOLDERS[kind]).resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            "H734",
            say("There is something in {path} already.", path=str(path)),
            next_step=say("Name another folder, or empty this one."),
        )
    if kind == "script":
        return _script(path, training)
    model = scenario.model
    base = base_of(model, folder.root)
    duties = duties_of(model.base, base.path)
    check_name(scenario.name, duties)
    check_texts(duties, base.path)
    job = Job(scenario, base.path, folder.root / run.adapter.path, path, type, prompts)
    result = WAYS[kind](job)
    _papers(job, duties, whole=kind != "gguf-lora")
    notes = [n.text() if isinstance(n, Sentence) else str(n) for n in result.get("notes", [])]
    return result | {"path": str(result.get("path", path)), "notes": notes}


def _script(path: Path, training: Callable[[Path], Any] | None) -> dict[str, Any]:
    """The training without hauslm: a script, what it is fed, and how to compare."""
    if training is None:
        raise ValueError("`training` makes the script's files")
    made = training(path)
    for name, content in made.files.items():
        write_sealed(path / name, content)
    notes = [*made.notes, say("Run: {command}", command="python train.py --compare ADAPTER_FOLDER")]
    return {"path": str(path), "files": sorted(made.files), "notes": [n.text() for n in notes]}


def _papers(job: Job, duties: Any, *, whole: bool) -> None:
    """Licence, notice, change notice and a short card beside what leaves."""
    texts = dict(duties.texts)
    what = "merged" if whole else "adapter"
    texts[CHANGES] = changes_text(job.scenario.model.base, what)
    if not (job.target / "README.md").exists():
        lines = [f"# {job.name}", *([f"**{duties.shown}**"] if duties.shown else [])]
        lines += [texts[CHANGES].split("\n", 2)[2].strip(), *duties.record()["duties"]]
        texts["README.md"] = "\n\n".join(lines) + "\n"
    for name, text in texts.items():
        write_sealed(job.target / name, text)


# ---------------------------------------------------------------- merged


def _merge(job: Job) -> dict[str, Any]:
    from hauslm.lm.merge import merge

    result = merge(job.base, job.adapter, job.target, PROMPTS)
    template = job.adapter / "chat_template.jinja"
    if template.is_file() and not (job.target / template.name).exists():
        write_sealed(job.target / template.name, template.read_bytes())
    return result


# ---------------------------------------------------------------- GGUF


def _gguf(job: Job) -> dict[str, Any]:
    """The merged model as GGUF; q4_k_m is made by llama.cpp from the f16 file."""
    from hauslm.share import gguf_file, llama
    from hauslm.share.template import trained_template

    if job.kind not in (*gguf_file.KINDS, "q4_k_m"):
        raise UsageError(
            "H733",
            say("There is no number format called '{kind}'.", kind=job.kind),
            next_step=did_you_mean(job.kind, (*gguf_file.KINDS, "q4_k_m")),
        )
    if job.kind == "q4_k_m" and llama.python() is None:
        raise RefusedError(
            "H739",
            say("Only llama.cpp can write q4_k_m, and llama-cpp-python is not installed."),
            next_step=say("Use --type q8_0, or run: {command}", command='pip install "hauslm[llamacpp]"'),
        )  # fmt: skip
    template = trained_template(job.base, job.adapter)
    first = "f16" if job.kind == "q4_k_m" else job.kind
    path = job.target / f"{job.stem}-{first}.gguf"
    result = gguf_file.write_model(
        job.base, job.adapter, path, kind=first, name=job.name,
        template=template.source, begins_with_bos=template.begins_with_bos,
    )  # fmt: skip
    if job.kind == "q4_k_m":
        final = job.target / f"{job.stem}-q4_k_m.gguf"
        llama.ask({"model": str(path), "quantize": {"to": str(final), "type": "q4_k_m"}})
        path.unlink()
        result |= {"path": str(final), "type": "q4_k_m"}
    if (note := template.note()) is not None:
        result["notes"].append(note)
    return _compared(job, result, Path(result["path"]), None)


def _gguf_lora(job: Job) -> dict[str, Any]:
    from hauslm.share import gguf_file

    path = job.target / f"{job.stem}-lora.gguf"
    result = gguf_file.write_lora(job.base, job.adapter, path, name=job.name)
    result["notes"].append(
        say("It works on the same base model in GGUF only, without quantisation below q8_0.")
    )
    return result


def _compared(job: Job, result: dict[str, Any], model: Path, lora: Path | None) -> dict[str, Any]:
    """Greedy answers of the file in llama.cpp against ours, token by token."""
    from hauslm.share import llama

    if job.prompts < 1:
        return result | {"verified": None}
    if llama.python() is None:
        result["notes"].append(llama.missing())
        return result | {"verified": None}
    prompts, ours = greedy(job.base, job.adapter, job.prompts)
    found = llama.agreement(model, prompts, ours, NEW_TOKENS)
    if found["equal"] == 0 and result["type"] in ("f32", "f16"):
        model.unlink()
        raise RefusedError(
            "H739",
            say("The exported file answers differently from base plus adapter on every prompt."),
            where=str(model),
            next_step=say("Report it with the base model's config.json; the file was removed."),
        )
    result["notes"].append(
        say(
            "llama.cpp {version} gives the same tokens as base plus adapter on {equal} of {all} prompts (greedy, {count} tokens).",
            version=found["llama_cpp"], equal=found["equal"], all=found["prompts"], count=NEW_TOKENS,
        )
    )  # fmt: skip
    return result | {"verified": found}


def greedy(base: Path, adapter: Path, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, answers) as token ids: what base plus adapter say, up to the end token."""
    from hauslm.lm.interface import Message, Request
    from hauslm.lm.local import LocalModel
    from hauslm.share.gguf_text import SAMPLES

    model = LocalModel.load(base, {"adapter": adapter})
    texts = [pair for both in zip(SAMPLES, QUESTIONS, strict=True) for pair in both][:count]
    requests = [
        Request(
            () if text in SAMPLES else (Message("user", text),),
            max_new_tokens=NEW_TOKENS, adapter="adapter", logprobs=True,
            raw_prompt=text if text in SAMPLES else None,
        )
        for text in texts
    ]  # fmt: skip
    answers = [
        [t.token_id for t in reply.logprobs if t.token_id not in model.eos_ids]
        for reply in model.generate(requests)
    ]
    return [model.prompt_ids(r) for r in requests], answers


# ---------------------------------------------------------------- Ollama


def _ollama(job: Job) -> dict[str, Any]:
    """GGUF and a Modelfile whose template makes the text that training made, or a refusal (H738)."""
    from hauslm.share import template as templates

    template = templates.trained_template(job.base, job.adapter)
    pieces = templates.pieces_of(template.render)
    result = _gguf(job)
    bos = template.bos if template.begins_with_bos else ""
    config = json.loads((job.base / "config.json").read_text(encoding="utf-8"))
    lines = [
        f"FROM ./{Path(result['path']).name}",
        f'TEMPLATE """{templates.go_template(pieces, bos)}"""',
        "PARAMETER temperature 0",
        f"PARAMETER num_ctx {min(int(config['max_position_embeddings']), 8192)}",
        *([f"PARAMETER stop {json.dumps(template.eos)}"] if template.eos else []),
    ]
    write_sealed(job.target / "Modelfile", "\n".join(lines) + "\n")
    if templates.trims(template.render):
        result["notes"].append(
            say(
                "Training cut white space around messages; Ollama's template cannot, so send messages without it."
            )
        )
    result["notes"].append(say("Run: {command}", command=f"ollama create {job.stem.lower()} -f Modelfile"))  # fmt: skip
    return result | {"path": str(job.target)}


# ---------------------------------------------------------------- vLLM


def _vllm(job: Job) -> dict[str, Any]:
    """Adapter (or, where vLLM cannot load it, the merged model), template, and the command line."""
    from hauslm.lm.checks import check_adapter
    from hauslm.share.template import trained_template

    config = check_adapter(job.adapter)
    template = trained_template(job.base, job.adapter)
    rank = max([config.get("r", 8), *(config.get("rank_pattern") or {}).values()])
    allowed = next((r for r in VLLM_RANKS if r >= rank), None)
    beside = ("use_dora", "modules_to_save", "trainable_token_indices")
    plain = allowed is not None and not any(config.get(key) for key in beside)
    notes = [] if (note := template.note()) is None else [note]
    arguments = ["vllm", "serve"]
    result: dict[str, Any] = {}
    if plain:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            write_sealed(job.target / "adapter" / name, (job.adapter / name).read_bytes())
        arguments += [
            str(job.base), "--served-model-name", "base", "--enable-lora",
            "--max-lora-rank", str(allowed), "--lora-modules", f"{job.stem}=adapter",
        ]  # fmt: skip
        notes.append(say("The model is asked for as '{name}', the base as 'base'.", name=job.stem))
    else:
        from hauslm.lm.merge import merge

        result = merge(job.base, job.adapter, job.target / "model", PROMPTS)
        arguments += ["model", "--served-model-name", job.stem]
        notes.append(say("vLLM cannot load this adapter beside the base; the model is merged."))
    write_sealed(job.target / "chat_template.jinja", template.source)
    arguments += ["--chat-template", "chat_template.jinja", "--host", "127.0.0.1", "--port", "8000"]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    line = " ".join([*(f"{k}={v}" for k, v in environment.items()), *map(_quoted, arguments)])
    write_sealed(job.target / "command.txt", line + "\n")
    notes.append(
        say("Written from vLLM's documentation and not run here: vLLM needs a GPU. Run in this folder: {command}", command=line)
    )  # fmt: skip
    return result | {"path": str(job.target), "command": line, "notes": notes}


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


WAYS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "merge": _merge,
    "gguf": _gguf,
    "gguf-lora": _gguf_lora,
    "ollama": _ollama,
    "vllm": _vllm,
}
_FOLDERS = {"merge": "merged", "gguf": "gguf", "gguf-lora": "gguf-lora", "ollama": "ollama", "vllm": "vllm", "script": "script"}  # fmt: skip
