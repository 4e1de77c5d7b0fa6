"""GGUF, Ollama, vLLM: the same numbers, the same text, and in llama.cpp the same tokens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.files import ProjectFolder, sha256_file
from hauslm.base.quantity import measured
from hauslm.embedded import MODEL
from hauslm.lm.interface import Message
from hauslm.lm.template import PLAIN_TEMPLATE, ChatTemplate
from hauslm.records import AdapterFile, Loss, Run
from hauslm.scenario import Scenario
from hauslm.share import gguf_text, llama, template
from hauslm.share import weights as merging
from hauslm.share.export import NEW_TOKENS, export, greedy

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_adapter(folder: Path, base: Path = MODEL, **options: Any) -> Path:
    """A LoRA on `base` that changes what it says: written by PEFT itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    values: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
    }
    peft: Any = get_peft_model(model, LoraConfig(**(values | options)))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.25)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    peft.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / file).is_file():
            shutil.copyfile(base / file, folder / file)
    return folder


def run_of(adapter: Path) -> Run:
    return Run(
        adapter=AdapterFile(path="adapter", sha256=sha256_file(adapter / "adapter_model.safetensors"), parameters=1),
        base={"id": "embedded", "path": "x", "sha256": ""}, method="lora", steps=1, epochs=1, tokens=1,
        tokens_per_second=measured(1, "tokens/s", "2026-11-24"), peak_memory_gib=measured(1, "GiB", "2026-11-24"),
        seconds=1, loss=Loss(first=2, last=1), determinism="bitwise",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ways")
    make_adapter(root / "adapter")
    return root


def way(root: Path, kind: str, target: Path, **options: Any) -> dict[str, Any]:
    scenario = Scenario.model_validate({"name": "terms", "model": {"base": "embedded"}})
    return export(
        scenario, ProjectFolder(root), kind, target, run=run_of(root / "adapter"), **options
    )


# ---------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3, "down_proj": 16}},
    ],
    ids=["lora", "rslora", "dora", "patterns"],
)
def test_merged_weights_are_those_of_peft(options: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = make_adapter(tmp_path / "a", **options)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    ours = merging.Merged(MODEL, folder)
    plain = merging.Merged(MODEL, None)
    changed = 0
    for name in ours.names():
        np.testing.assert_allclose(ours.read(name), theirs[name].numpy(), atol=2e-6, err_msg=name)
        changed += int(not np.array_equal(ours.read(name), plain.read(name)))
    assert changed == 6 * len(TARGETS)


def test_merging_shows_nothing_of_the_libraries(made: Path, tmp_path: Path) -> None:
    """Their bars and hints are not the user's matter; in a process of its own, as bars are set up once."""
    code = (
        "import sys; from pathlib import Path; from hauslm.lm.merge import merge; "
        "merge(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), ['A line.'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(MODEL), str(made / "adapter"), str(tmp_path / "merged")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_the_gguf_holds_the_merged_weights_and_the_template(made: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    result = way(made, "gguf", tmp_path / "out", type="f32", prompts=0)
    reader = gguf.GGUFReader(result["path"])
    stored = {t.name: t.data for t in reader.tensors}
    merged = merging.Merged(MODEL, made / "adapter")
    np.testing.assert_array_equal(
        stored["blk.2.ffn_up.weight"], merged.read("model.layers.2.mlp.up_proj.weight")
    )
    # Rows of q: transformers pairs i with i + 32 within a head of 64, llama.cpp 2 i with 2 i + 1.
    q = merged.read("model.layers.2.self_attn.q_proj.weight")
    np.testing.assert_array_equal(stored["blk.2.attn_q.weight"][64 + 2 * 5], q[64 + 5])
    np.testing.assert_array_equal(stored["blk.2.attn_q.weight"][64 + 2 * 5 + 1], q[64 + 32 + 5])
    assert "output.weight" not in stored  # tied to the embedding
    text = reader.fields["tokenizer.chat_template"].contents()
    assert text == (MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    assert {"LICENSE.base.txt", "CHANGES.md", "README.md"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_an_unknown_architecture_and_a_quantised_base_are_refused(tmp_path: Path) -> None:
    from hauslm.share.gguf_file import architecture

    with pytest.raises(RefusedError, match="H735"):
        architecture({"model_type": "gpt_neox"}, tmp_path)
    base = tmp_path / "base"
    shutil.copytree(MODEL, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    with pytest.raises(RefusedError, match="H735"):
        merging.Merged(base, None)


def test_gguf_cannot_carry_dora_alone_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    make_adapter(tmp_path / "adapter", use_dora=True)
    with pytest.raises(RefusedError, match="H735"):
        way(tmp_path, "gguf-lora", tmp_path / "out")


@pytest.mark.parametrize(
    ("expression", "name"),
    [(e, n) for n, es in gguf_text.CUTS.items() if len(es) == 1 for e in es],
    ids=[n for n, es in gguf_text.CUTS.items() if len(es) == 1],
)
def test_a_cut_that_llama_cpp_knows_is_named_without_a_warning(expression: str, name: str) -> None:
    spec = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = expression
    found, notes = gguf_text._cut(spec)
    assert notes == []
    assert gguf_text.CUTS[found] == (expression,) or found == name


def test_a_cut_that_it_does_not_know_is_told_with_figures(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    notes = way(made, "gguf", tmp_path / "out", prompts=0)["notes"]
    assert any("differs on 4 of 10" in n for n in notes)


# ---------------------------------------------------------------- in llama.cpp

needs_llama = pytest.mark.skipif(
    llama.python() is None,
    reason=f"llama-cpp-python is not installed; name a Python that has it in {llama.PYTHON_VARIABLE}",
)


@needs_llama
@pytest.mark.parametrize(("kind", "least"), [("f32", 20), ("f16", 19), ("q8_0", 8), ("q4_k_m", 0)])
def test_llama_cpp_says_the_same_on_twenty_prompts(
    kind: str, least: int, made: Path, tmp_path: Path
) -> None:
    """f32: every token. f16: one prompt may turn at a near tie. q8_0, q4_k_m: rounded weights."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    found = way(made, "gguf", tmp_path / "out", type=kind, prompts=20)["verified"]
    assert found["prompts"] == 20 and found["equal"] >= least, found


@needs_llama
def test_the_lora_alone_says_the_same_and_the_base_alone_does_not(
    made: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    from hauslm.share.gguf_file import write_lora, write_model

    base = tmp_path / "base.gguf"
    write_model(MODEL, None, base, kind="f32", name="b", template="x", begins_with_bos=True)
    write_lora(MODEL, made / "adapter", tmp_path / "lora.gguf", name="a")
    prompts, ours = greedy(MODEL, made / "adapter", 20)
    job = {"model": str(base), "prompts": prompts, "new_tokens": NEW_TOKENS}
    assert llama.ask(job | {"lora": str(tmp_path / "lora.gguf")})["answers"] == ours
    alone = llama.ask(job)["answers"]
    assert sum(a == b for a, b in zip(alone, ours, strict=True)) <= 5


@needs_llama
def test_a_damaged_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF but no")
    with pytest.raises(RefusedError, match="H737"):
        llama.ask({"model": str(tmp_path / "x.gguf"), "prompts": [[1]], "new_tokens": 1})


# ---------------------------------------------------------------- templates


def _plain() -> ChatTemplate:
    return ChatTemplate(None, {"eos_token": "</s>", "bos_token": "<s>"}, [])


def test_the_pieces_make_what_the_template_makes() -> None:
    trained = template.trained_template(MODEL, MODEL)
    assert trained.begins_with_bos and trained.own and trained.note() is None
    for render in (trained.render, _plain().render):
        pieces = template.pieces_of(render)
        for roles in ("u", "su", "suau", "uauauau"):
            messages = template._marked(roles)
            assert pieces.render(messages) == render(messages)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages[-1:] %}[{{ m.content }}]{% endfor %}",
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",
    ],
    ids=["changes text", "forgets messages", "counts"],
)
def test_a_template_that_does_more_is_refused(source: str) -> None:
    with pytest.raises(RefusedError, match="H738"):
        template.pieces_of(ChatTemplate(source, {}, []).render)


def test_a_base_without_a_template_is_told_of(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(MODEL, base)
    (base / "chat_template.jinja").unlink()
    trained = template.trained_template(base, tmp_path)
    assert trained.source == PLAIN_TEMPLATE and trained.note() is not None
    assert not trained.begins_with_bos


_GO = """package main
import ("encoding/json"; "os"; "text/template")
type Message struct { Role, Content string }
func main() {
  var job struct { Template, System string; Messages []Message }
  if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil { panic(err) }
  t := template.Must(template.New("t").Parse(job.Template))
  if err := t.Execute(os.Stdout, job); err != nil { panic(err) }
}
"""


def _go(text: str, messages: Sequence[Message], folder: Path) -> str:
    job = {
        "Template": text,
        "System": "\n\n".join(m.content for m in messages if m.role == "system"),
        "Messages": [{"Role": m.role, "Content": m.content} for m in messages],
    }
    return subprocess.run(
        [str(folder / "fill")], input=json.dumps(job), capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(shutil.which("go") is None, reason="the Go toolchain is not installed")
def test_go_fills_the_modelfile_as_jinja_does(tmp_path: Path) -> None:
    """Go's own text/template, which Ollama uses, on the text that stands in the Modelfile."""
    (tmp_path / "fill.go").write_text(_GO)
    subprocess.run(
        ["go", "build", "-o", "fill", "fill.go"], cwd=tmp_path, check=True, timeout=300,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off"},
    )  # fmt: skip
    trained = template.trained_template(MODEL, MODEL)
    for render, bos in ((trained.render, trained.bos), (_plain().render, "")):
        text = template.go_template(template.pieces_of(render), bos)
        assert '"""' not in text
        for roles in ("u", "su", "suau", "uauau", "suauau"):
            messages = template._marked(roles)
            assert bos + _go(text, messages, tmp_path) == render(messages)


def test_the_ollama_folder(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    result = way(made, "ollama", tmp_path / "out", type="q8_0", prompts=0)
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./terms-q8_0.gguf\nTEMPLATE") and 'stop "</s>"' in text
    assert (tmp_path / "out" / "terms-q8_0.gguf").is_file()
    assert any("white space" in n for n in result["notes"])


def test_the_vllm_folder_takes_the_adapter_or_merges_it(made: Path, tmp_path: Path) -> None:
    result = way(made, "vllm", tmp_path / "plain")
    assert "--enable-lora --max-lora-rank 8 --lora-modules terms=adapter" in result["command"]
    assert "--chat-template chat_template.jinja" in result["command"]
    assert (tmp_path / "plain" / "adapter" / "adapter_model.safetensors").is_file()
    make_adapter(tmp_path / "p" / "adapter", use_dora=True)
    merged = way(tmp_path / "p", "vllm", tmp_path / "merged")
    assert "vllm serve model --served-model-name terms" in merged["command"]
    assert (tmp_path / "merged" / "model" / "model.safetensors").is_file()
    assert merged["difference"] <= merged["tolerance"]


def test_merging_carries_licence_and_template(made: Path, tmp_path: Path) -> None:
    way(made, "merge", tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "chat_template.jinja", "LICENSE.base.txt", "CHANGES.md"} <= names
    with pytest.raises(UsageError, match="H734"):
        way(made, "merge", tmp_path / "out")


def test_an_unknown_way_is_told_the_known_ones(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="H733"):
        way(made, "gugf", tmp_path / "out")


# ---------------------------------------------------------------- other architectures


def _spm_tokenizer(folder: Path) -> None:
    """A small tokenizer of Llama 2's and Mistral's kind: BPE with bytes to fall back on."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from tokenizers.processors import TemplateProcessing

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    texts = list(gguf_text.SAMPLES) * 3
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    spec = json.loads(made.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]  # bytes are vocabulary, not control
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
            }
        )
    )


def _random_model(folder: Path, kind: str) -> Path:
    """A tiny model of another architecture, its weights drawn wide enough to have opinions."""
    import torch
    import transformers

    common: dict[str, Any] = {
        "vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.25,
    }  # fmt: skip
    scaled = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    configs: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(**common, attention_bias=True),
        "llama 3.1 rope": lambda: transformers.LlamaConfig(**common, rope_parameters=scaled),
        "qwen2": lambda: transformers.Qwen2Config(**common, tie_word_embeddings=True),
        "qwen3": lambda: transformers.Qwen3Config(**common, head_dim=32),
    }
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(configs[kind](), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    _spm_tokenizer(folder)
    return folder


@needs_llama
@pytest.mark.parametrize("kind", ["llama", "llama 3.1 rope", "qwen2", "qwen3"])
def test_other_architectures_in_llama_cpp(kind: str, tmp_path: Path) -> None:
    """Random weights: every detail (rows of q and k, biases, norms, frequencies) shows at once."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    from hauslm.share.gguf_file import write_model

    base = _random_model(tmp_path / "base", kind)
    adapter = make_adapter(tmp_path / "adapter", base)
    file = tmp_path / "m.gguf"
    write_model(base, adapter, file, kind="f32", name="m", template="x", begins_with_bos=True)
    import torch
    from peft import PeftModel
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    rust = Tokenizer.from_file(str(base / "tokenizer.json"))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(plain, adapter).eval()
    # Beyond 64 tokens, where the scaled rotation matters.
    prompts = [rust.encode(t * 3).ids for t in gguf_text.SAMPLES]
    ours = []
    for prompt in prompts:  # the plain argmax: hauslm itself never answers with control tokens
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(16):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        answer = ids[len(prompt) :]
        ours.append(answer[: answer.index(2)] if 2 in answer else answer)
    found = llama.agreement(file, prompts, ours, 16, exact_cache=True)
    assert found["equal"] >= 9, found
    tokens = llama.ask({"model": str(file), "texts": list(gguf_text.SAMPLES)})["tokens"]
    wanted = [rust.encode(t, add_special_tokens=False).ids for t in gguf_text.SAMPLES]
    assert tokens == wanted
