"""Which training values hold when nobody says otherwise, from where are they, and when to warn?

Every default carries its source; every advice says what was found where. Formulas only, no torch.

Sources
    tinker  Thinking Machines, "LoRA Without Regret", 2025-09-29, and tinker-cookbook
            `chat_sl/results/sft_sweep.md` and `hyperparam_utils.py` (learning-rate formula, batch size)
    peft    PEFT method comparison (MetaMathQA -> GSM8K, Llama-3.2-3B), state 2026-11
    qlora   Dettmers et al. 2023, arXiv:2305.14314, section 4 and `scripts/finetune_guanaco_7b.sh`
    capacity  about 2 bit of knowledge per parameter: Allen-Zhu & Li 2024, arXiv:2404.05405
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hauslm.base.words import Sentence, say
from hauslm.estimate import rate

DIVERGED_LEARNING_RATE = 3e-3

TARGET_BATCH_EXAMPLES = 16  # qlora: 16; tinker: LoRA suffers above 32
LARGEST_BATCH_EXAMPLES = 32
WANTED_STEPS = 40  # fewer optimizer steps than this cannot follow a warm-up and a decay
SMALLEST_BATCH_EXAMPLES = 4

MICRO_BATCH_TOKENS_CPU = 2048  # above, larger products bring nothing on two cores (measured)
MICRO_BATCH_TOKENS_GPU = 8192  # below, the launches of the kernels cost more than their work

BITS_PER_PARAMETER = 2.0  # capacity
BITS_PER_TOKEN = 3.0  # new information in a token of scientific text (assumed)

VALIDATIONS_PER_RUN = 5
VALIDATION_SHARE = 0.2  # of the training time, at most, unless the user asks for more
FORWARD_SHARE = 0.4  # a validation token costs this much of a training token (no backward)

ATTENTION_ONLY = {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "Wqkv"}


@dataclass(frozen=True)
class Chosen:
    """A value and the reason for it."""

    value: Any
    reason: Sentence


def learning_rate(model_type: str, hidden: int, parameters: float, method: str) -> Chosen:
    """Peak learning rate by method, family and size (estimate/rate.py)."""
    return Chosen(*rate.learning_rate(model_type, hidden, parameters, method))


def batch_bins(bins: int, examples: int, epochs: float, max_steps: int | None) -> Chosen:
    """Sequences per optimizer step: 16 examples, fewer where the run would have too few steps."""
    per_bin = max(1.0, examples / max(1, bins))
    wanted = TARGET_BATCH_EXAMPLES
    while (
        wanted > SMALLEST_BATCH_EXAMPLES
        and max_steps is None
        and bins * per_bin * epochs / wanted < WANTED_STEPS
    ):
        wanted //= 2
    value = max(1, round(wanted / per_bin))
    if wanted == TARGET_BATCH_EXAMPLES:
        reason = say(
            "About 16 examples per step: LoRA loses with batches above 32 (LoRA Without Regret), QLoRA used 16."
        )
    else:
        reason = say(
            "About {wanted} examples per step, so that this small corpus still gives enough steps.",
            wanted=wanted,
        )
    return Chosen(value, reason)


def advice(
    *,
    method: str,
    target_modules: list[str] | str,
    dropout: float,
    learning_rate_given: float,
    learning_rate_advised: float,
    examples_per_step: float,
    trainable: int,
    tokens: int,
) -> list[Sentence]:
    """What a specialist would say about these values; empty when there is nothing to say."""
    said: list[Sentence] = []
    if (
        method != "full"
        and isinstance(target_modules, list)
        and set(target_modules) <= ATTENTION_ONLY
    ):
        said.append(
            say(
                "Only attention layers are adapted; with all linear layers the same number of parameters learned more and forgot less (PEFT method comparison: GSM8K 0.494 against 0.478). adapter.target_modules: all-linear changes it."
            )
        )
    if method != "full" and dropout > 0:
        said.append(
            say(
                "LoRA dropout {dropout:.2f} costs 3 to 5 per cent of the time on a CPU and memory for its masks; LoRA Without Regret trains without it.",
                dropout=dropout,
            )
        )
    if method != "full" and learning_rate_given >= DIVERGED_LEARNING_RATE:
        said.append(
            say(
                "Learning rate {given:.4f}: at 0.003 every LoRA run of the published sweep on models with 3 and 8 billion parameters diverged (tinker-cookbook). {advised:.5f} is the value by method and size.",
                given=learning_rate_given,
                advised=learning_rate_advised,
            )
        )
    elif not 0.1 <= learning_rate_given / learning_rate_advised <= 5:
        said.append(
            say(
                "Learning rate {given:.6f} is far from {advised:.6f}, the value by method and size.",
                given=learning_rate_given,
                advised=learning_rate_advised,
            )
        )
    if method != "full" and examples_per_step > 2 * LARGEST_BATCH_EXAMPLES:
        said.append(
            say(
                "About {examples:.0f} examples per step: LoRA loses against full fine-tuning with large batches, and a higher rank does not help (LoRA Without Regret); 8 to 32 is usual.",
                examples=examples_per_step,
            )
        )
    if method != "full" and tokens * BITS_PER_TOKEN > trainable * BITS_PER_PARAMETER:
        said.append(
            say(
                "{tokens:,} training tokens hold about {ratio:.1f} times what {trainable:,} adapter parameters can store (2 bits each, arXiv:2404.05405); a higher rank adapter.r holds more.",
                tokens=tokens,
                trainable=trainable,
                ratio=tokens * BITS_PER_TOKEN / (trainable * BITS_PER_PARAMETER),
            )
        )
    return said


def validation_interval(steps: int, train_tokens: int, validation_tokens: int) -> Chosen:
    """Steps between validations: five a run, fewer where they would cost over a fifth of the time."""
    if validation_tokens <= 0:
        return Chosen(steps, say("There are no validation examples."))
    affordable = VALIDATION_SHARE * train_tokens / (FORWARD_SHARE * validation_tokens)
    times = max(1, min(VALIDATIONS_PER_RUN, int(affordable)))
    if times == VALIDATIONS_PER_RUN:
        return Chosen(max(1, -(-steps // times)), say("Five validations in a run."))
    return Chosen(
        max(1, -(-steps // times)),
        say(
            "{times} validations in a run: more would cost over a fifth of the training time.",
            times=times,
        ),
    )
