"""Run by a Python that has llama-cpp-python: what does this GGUF file answer? Knows nothing of hauslm.

Standard input: {"model", "lora", "prompts": [[token ids]], "new_tokens", "threads", "texts",
"quantize": {"to", "type"}}. Standard output, last line: {"version", "answers": [[ids]], "tokens": [[ids]]}.
`exact_cache` keeps keys and values in float32 instead of llama.cpp's float16.
A prompt is token ids, so that the weights are compared and not the cutting of text (that is `texts`).
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    import llama_cpp

    result: dict[str, Any] = {"version": llama_cpp.__version__}
    if "quantize" in job:
        _quantize(llama_cpp, job)
        print("\n" + json.dumps(result))
        return
    model = llama_cpp.Llama(
        model_path=job["model"],
        lora_path=job.get("lora"),
        n_ctx=job.get("n_ctx", 1024),
        n_threads=job.get("threads", 2),
        n_gpu_layers=0,
        **({"type_k": 0, "type_v": 0} if job.get("exact_cache") else {}),  # 0: float32
        logits_all=False,
        verbose=False,
    )
    end = model.token_eos()
    result["answers"] = []
    for prompt in job.get("prompts", []):
        model.reset()
        answer: list[int] = []
        for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == end or len(answer) == job["new_tokens"]:
                break
            answer.append(int(token))
        result["answers"].append(answer)
    result["tokens"] = [
        model.tokenize(t.encode(), add_bos=False, special=job.get("special", False))
        for t in job.get("texts", [])
    ]
    print("\n" + json.dumps(result))


def _quantize(llama_cpp: Any, job: dict[str, Any]) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{job['quantize']['type'].upper()}")
    params.nthread = job.get("threads", 2)
    code = llama_cpp.llama_model_quantize(
        job["model"].encode(), job["quantize"]["to"].encode(), params
    )
    if code != 0:
        raise SystemExit(f"quantisation failed ({code})")


if __name__ == "__main__":
    main()
