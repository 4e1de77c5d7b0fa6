"""EVA: start A from the principal components of the activations (Paischer et al. 2024, arXiv:2410.07170).

The ranks stay equal (rho 1): redistributed ranks are for tools that read rank patterns, and not all do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.words import N_
from hauslm.train.adapters import plain_config

NAME = "eva"
WHEN = N_(
    "When the documents differ much from the base's texts: the adapter starts where they vary most."
)
BASES = ("none", "nf4", "int8")
EIGHT_BIT = True


def config(values: dict[str, Any]) -> dict[str, Any]:
    from peft import EvaConfig

    return plain_config(values) | {
        "init_lora_weights": "eva",
        "eva_config": EvaConfig(rho=1.0, use_label_mask=False),
    }


def seen(compute: Any, rows: Sequence[Any]) -> None:
    """Components of the inputs of every adapted module over the first rows."""
    import torch
    from peft import initialize_lora_eva_weights

    def forward(model: Any, batch: dict[str, torch.Tensor]) -> Any:
        return compute.hidden(rows[int(batch["place"])])

    def flat(layer_input: Any, model_input: Any, layer_name: str) -> torch.Tensor:
        tensor = layer_input if isinstance(layer_input, torch.Tensor) else layer_input[0]
        return tensor.reshape(-1, tensor.shape[-1]).float()

    compute.model.eval()
    initialize_lora_eva_weights(
        compute.model,
        dataloader=[{"place": torch.tensor(i)} for i in range(len(rows))],
        forward_fn=forward,
        prepare_model_inputs_fn=None,
        prepare_layer_inputs_fn=flat,
        show_progress_bar=False,
    )


def finish(model: Any, folder: Path) -> None:
    """A reader shall load the weights, not start the method again."""
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved.update(init_lora_weights=True, eva_config=None)
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
