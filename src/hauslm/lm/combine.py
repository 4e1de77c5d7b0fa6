"""How do several adapters become one? PEFT's weighted sum, checked against the sum of what they do.

`cat` is exact: the combined update is the weighted sum of the updates, its rank the sum of the ranks.
`svd` keeps the strongest directions up to the highest rank; `linear` (equal ranks only) adds the
matrices themselves, which is another thing than adding the updates. The answer says how far off it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.words import say
from hauslm.lm.checks import MAX_RANK, check_adapter, check_base, token_rows
from hauslm.lm.quiet import quiet

METHODS = ("cat", "svd", "linear")
EXACT = 1e-4  # relative: float32 sums in another order


def combine(
    base: Path, adapters: Sequence[tuple[Path, float]], target: Path, method: str = "cat"
) -> dict[str, Any]:
    """Write the weighted combination to `target` as a plain PEFT folder; how exact it is.

    H757 if PEFT cannot combine these, H758 if `cat` is not the sum.
    """
    with quiet():
        return _combine(base, adapters, target, method)


def _combine(
    base: Path, adapters: Sequence[tuple[Path, float]], target: Path, method: str
) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    check_base(base)
    configs = [check_adapter(folder) for folder, _ in adapters]
    for config, (folder, _) in zip(configs, adapters, strict=True):
        if config.get("use_dora") or config.get("modules_to_save") or token_rows(config):
            raise _refused(
                folder, say("Adapters with DoRA, saved modules or added tokens cannot be combined.")
            )
    if method == "cat" and sum(int(c.get("r", 8)) for c in configs) > MAX_RANK:
        raise _refused(target, say("The ranks add up to more than {limit}.", limit=MAX_RANK))
    model = AutoModelForCausalLM.from_pretrained(
        base, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    names = [f"a{i}" for i in range(len(adapters))]
    peft: Any = PeftModel.from_pretrained(
        model, adapters[0][0], adapter_name=names[0], local_files_only=True
    )
    for name, (folder, _) in list(zip(names, adapters, strict=True))[1:]:
        peft.load_adapter(folder, adapter_name=name, local_files_only=True)
    weights = [w for _, w in adapters]
    try:
        peft.add_weighted_adapter(names, weights, "combined", combination_type=method)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).split("\n")[0][:200]
        raise _refused(
            target, say("PEFT cannot combine these ({reason}).", reason=reason)
        ) from error
    off = _distance(peft, names, weights)
    if method == "cat" and off > EXACT:
        raise RefusedError(
            "H758",
            say("The combination is not the sum of its parts (relative difference {off:.4f}).", off=off),
            where=str(target),
            next_step=say("Keep the adapters apart; nothing was written."),
        )  # fmt: skip
    peft.set_adapter("combined")
    peft.save_pretrained(target, selected_adapters=["combined"], safe_serialization=True)
    inner = target / "combined"  # PEFT puts a named adapter into a folder of its name
    for file in inner.iterdir() if inner.is_dir() else ():
        file.replace(target / file.name)
    if inner.is_dir():
        inner.rmdir()
    (target / "README.md").unlink(missing_ok=True)
    return {"method": method, "relative_difference": off}


def _distance(peft: Any, names: Sequence[str], weights: Sequence[float]) -> float:
    """Largest relative difference, over modules, between the combined update and the weighted sum."""
    worst = 0.0
    for module in peft.modules():
        if "combined" not in getattr(module, "lora_A", {}):
            continue
        wanted = sum(
            w * module.get_delta_weight(n)
            for n, w in zip(names, weights, strict=True)
            if n in module.lora_A
        )
        found = module.get_delta_weight("combined")
        scale = float(wanted.norm()) or 1.0
        worst = max(worst, float((found - wanted).norm()) / scale)
    return worst


def _refused(where: Path, what: Any) -> RefusedError:
    return RefusedError(
        "H757",
        what,
        where=str(where),
        next_step=say("Choose other adapters or another --method: {names}", names=", ".join(METHODS)),
    )  # fmt: skip
