"""Variants that move a part of the base into the adapter: what plain PEFT must read afterwards.

PiSSA and OLoRA start from W = W' + s B0 A0 and train on W'. The saved adapter is the difference from W,
s (B A - B0 A0), written as LoRA of twice the rank: A' = [A; A0], B' = [B, -B0], with alpha' = 2 alpha so
that alpha'/r' is unchanged. It then loads on the untouched base, with every tool.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def remember(model: Any, base_path: Path) -> None:
    """Keep A0 and B0 of the fresh adapter."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model)
    model.hauslm_initial = {name: t.detach().to("cpu", copy=True) for name, t in state.items()}


def convert(model: Any, folder: Path) -> None:
    """Turn the saved adapter into LoRA of twice the rank on the untouched base."""
    import torch
    from safetensors.torch import load_file, save_file

    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    final, initial = load_file(weights), model.hauslm_initial
    both = {}
    for name, tensor in final.items():
        start = initial[name].to(tensor.dtype)
        if ".lora_A." in name:
            both[name] = torch.cat([tensor, start], dim=0).contiguous()
        else:
            both[name] = torch.cat([tensor, -start], dim=1).contiguous()
    save_file(both, weights, metadata={"format": "pt"})
    config = json.loads(settings.read_text(encoding="utf-8"))
    config["r"] *= 2
    config["lora_alpha"] *= 2
    config["init_lora_weights"] = True
    settings.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
