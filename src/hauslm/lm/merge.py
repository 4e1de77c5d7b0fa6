"""How does an adapter become part of its base? Merged into 16- or 32-bit weights, and checked.

Never into a quantised base: rounding the sum again would change the model silently. After merging, the
logits of a few prompts are compared with those of base plus adapter; a difference beyond rounding is
refused, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import say
from hauslm.lm.checks import check_adapter, check_base
from hauslm.lm.quiet import quiet

# Merging rounds W + BA once to the weights' format: relative to the largest logit, bf16 keeps 8 bits.
TOLERANCE = {"float32": 1e-3, "bfloat16": 6e-2, "float16": 1e-2}


def merge(base: Path, adapter: Path, target: Path, prompts: Sequence[str]) -> dict[str, Any]:
    """Write the merged model to `target`; returns the largest logit difference and its tolerance.

    H730 if the base is quantised, H731 if merged and unmerged logits disagree.
    """
    with quiet():
        return _merge(base, adapter, target, prompts)


def _merge(base: Path, adapter: Path, target: Path, prompts: Sequence[str]) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = check_base(base)
    check_adapter(adapter)
    if "quantization_config" in config:
        raise RefusedError(
            "H730",
            say("The base model is quantised; an adapter is never merged into rounded weights."),
            where=str(base),
            next_step=say("Merge into the 16-bit base, and quantise the merged model afterwards."),
        )
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True)
    kind = str(model.dtype).removeprefix("torch.")
    combined = PeftModel.from_pretrained(model, adapter, is_trainable=False, local_files_only=True)
    combined.eval()
    batches = [tokenizer(p, return_tensors="pt") for p in prompts]

    @torch.no_grad()
    def logits(network: Any) -> list[Any]:
        return [network(**b).logits.float() for b in batches]

    before = logits(combined)
    merged = combined.merge_and_unload(safe_merge=True)
    after = logits(merged)
    scale = max(float(b.abs().max()) for b in before) or 1.0
    difference = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)) / scale
    limit = TOLERANCE.get(kind, 1e-3)
    if difference > limit:
        raise RefusedError(
            "H731",
            say(
                "The merged model does not answer as base plus adapter do (difference {difference:.4f}, allowed {limit:.4f}).",
                difference=difference,
                limit=limit,
            ),
            where=str(target),
            next_step=say("Keep base and adapter apart; hauslm serve and analyse use them so."),
        )
    merged.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    return {"path": str(target), "dtype": kind, "difference": difference, "tolerance": limit}
