"""Which peak learning rate fits a method, a family and a size? One formula, with its source.

Sources: Thinking Machines, "LoRA Without Regret" (2025-09-29), and tinker-cookbook `hyperparam_utils.py`;
Dettmers et al., QLoRA (arXiv:2305.14314), section 4, for the quantised base.
"""

from __future__ import annotations

from hauslm.base.words import Sentence, say

# tinker: lr = 5e-5 * 10 * (2000 / hidden) ** exponent; 10 is LoRA over full fine-tuning.
FULL_LEARNING_RATE = 5e-5
LORA_OVER_FULL = 10.0
REFERENCE_HIDDEN = 2000
EXPONENT = {"llama": 0.781, "mistral": 0.781, "qwen2": 0.0775, "qwen3": 0.0775}
# The formula is calibrated for hidden sizes from 2048 to 8192; below, it is not let run away.
HIGHEST_LEARNING_RATE = 2e-3
QLORA_LEARNING_RATE = 2e-4
QLORA_LARGE_LEARNING_RATE = 1e-4
QLORA_LARGE_PARAMETERS = 13e9


def learning_rate(
    model_type: str, hidden: int, parameters: float, method: str
) -> tuple[float, Sentence]:
    """(peak learning rate, the reason for it) of `method`: lora, qlora or full. `parameters` of the base."""
    exponent = EXPONENT.get(model_type)
    if method == "qlora" and hidden >= 2048:
        value = (
            QLORA_LARGE_LEARNING_RATE
            if parameters > QLORA_LARGE_PARAMETERS
            else QLORA_LEARNING_RATE
        )
        return (
            value,
            say("QLoRA's own value: 2e-4, 1e-4 above 13 billion parameters (arXiv:2305.14314)."),
        )
    if exponent is None:
        value = QLORA_LEARNING_RATE / (LORA_OVER_FULL if method == "full" else 1)
        return (
            value,
            say(
                "There is no calibrated value for the family {family}; this is the cautious one of QLoRA.",
                family=model_type,
            ),
        )
    full = FULL_LEARNING_RATE * (REFERENCE_HIDDEN / hidden) ** exponent
    if method == "full":
        return (
            min(full, HIGHEST_LEARNING_RATE / LORA_OVER_FULL),
            say(
                "Full fine-tuning: a tenth of LoRA's value by hidden size {hidden} (LoRA Without Regret).",
                hidden=hidden,
            ),
        )
    value = full * LORA_OVER_FULL
    if value > HIGHEST_LEARNING_RATE:
        return (
            HIGHEST_LEARNING_RATE,
            say(
                "By hidden size {hidden} the formula of LoRA Without Regret gives more; {value:g} is our limit outside its calibrated range.",
                hidden=hidden,
                value=HIGHEST_LEARNING_RATE,
            ),
        )
    return (
        value,
        say(
            "5e-4 x (2000 / hidden size {hidden})^{exponent}, the formula of LoRA Without Regret (2025).",
            hidden=hidden,
            exponent=exponent,
        ),
    )
