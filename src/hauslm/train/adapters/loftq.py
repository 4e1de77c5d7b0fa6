"""LoftQ: start the adapter from what quantisation lost (Li et al. 2023, arXiv:2310.08659, one step).

W is stored as nf4(W); A and B start as the best rank-r approximation of W - nf4(W), divided by the scale
alpha / r that LoRA applies. The base stays nf4(W), so the adapter loads on any nf4 copy of the base.
(PEFT's own routine needs a GPU and leaves the scale out.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import N_, say
from hauslm.train.adapters import plain_config

NAME = "loftq"
WHEN = N_("For QLoRA: the adapter starts by mending the error of the 4-bit base.")
BASES = ("nf4",)
ITERATIONS = 4  # of the randomised SVD (Halko et al. 2011, arXiv:0909.4061)


def config(values: dict[str, Any]) -> dict[str, Any]:
    return plain_config(values)


def prepare(model: Any, base_path: Path) -> None:
    """A and B of every 4-bit module from the error of its weights."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora.bnb import Linear4bit

    with torch.no_grad():
        for name, module in model.named_modules():
            if not isinstance(module, Linear4bit):
                continue
            stored: Any = module.weight
            held = dequantize_4bit(stored.data, stored.quant_state).float()
            error = _original(base_path, name).to(held.device).float() - held
            rank = module.r["default"]
            u, s, v = torch.svd_lowrank(error, q=min(rank + 8, *error.shape), niter=ITERATIONS)
            root = s[:rank].sqrt()
            layer: Any = module
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            a.copy_((v[:, :rank] * root).T)
            b.copy_(u[:, :rank] * root / module.scaling["default"])


def _original(base_path: Path, module_name: str) -> Any:
    """The unquantised weight of a module, from the base's files."""
    from safetensors import safe_open

    wanted = module_name.removeprefix("base_model.model.") + ".weight"
    for path in sorted(base_path.glob("*.safetensors")):
        with safe_open(path, framework="pt", device="cpu") as file:
            if wanted in file.keys():  # noqa: SIM118 - safe_open is no dict
                return file.get_tensor(wanted)
    raise RefusedError(
        "H614",
        say("The base's files do not hold the weight {name}.", name=wanted),
        where=str(base_path),
        next_step=say("Set adapter.variant to lora."),
    )


def extra_parameters(inputs: int, outputs: int, rank: int) -> int:
    return 0
