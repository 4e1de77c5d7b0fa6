"""How is a model trained or served? The settings that memory, speed and trace are asked about.

Values only; what they cost is for `memory` and `speed`, which of them are wise is for `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hauslm.base.errors import UsageError
from hauslm.base.words import Sentence, say
from hauslm.catalog.schema import Architecture
from hauslm.estimate import shape
from hauslm.estimate.shape import Targets

Method = Literal["lora", "qlora", "full"]
# int8 is LLM.int8 (bitsandbytes); fp8 and int8_mm are a frozen base whose products, forward and
# backward, run in 8 bit (train/eightbit.py).
Quantisation = Literal["none", "nf4", "nf4_dq", "int8", "fp8", "int8_mm", "mxfp4"]
Dtype = Literal["bf16", "fp16", "fp32"]
Arithmetic = Literal["lean", "autocast", "mixed"]
Attention = Literal["sdpa", "flash", "documents", "masked", "eager"]
Loss = Literal["naive", "naive_shifted", "naive_upcast", "naive_kept", "kernel", "fused"]
Optimizer = Literal["adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit"]
Sharding = Literal["none", "ddp", "fsdp"]
Device = Literal["cuda", "cpu"]

# 8-bit products by compute capability: fp8 from Ada on, int8 on Ampere; before, neither pays.
FP8_CAPABILITY, INT8_CAPABILITY = (8, 9), (8, 0)

EIGHT_BIT_PRODUCTS: dict[str, Quantisation] = {"int8": "int8_mm", "fp8": "fp8"}

# torch's names of the formats.
DTYPES: dict[Dtype, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def eight_bit_format(capability: tuple[int, int] | None) -> Literal["full", "int8", "fp8"]:
    """The 8-bit products that pay on a CUDA device of this capability; None: a CPU, where int8 has an
    instruction of its own (VNNI) and fp8 is only emulated. full: none does."""
    if capability is None:
        return "int8"
    if capability >= FP8_CAPABILITY:
        return "fp8"
    return "int8" if capability >= INT8_CAPABILITY else "full"


@dataclass(frozen=True)
class TrainingSetup:
    """One training configuration of one model; lengths in tokens, `checkpointed_layers` of L.

    `arithmetic` says how LoRA computes: "lean" in the base's number format (train/lean.py, torchtune,
    LitGPT), "autocast" as PEFT does under `bf16=True` (input cast up to the adapter's fp32 and down
    again), "mixed" as PEFT does without autocast (fp32 adapter path beside a 16-bit base: the default
    when nobody sets `bf16`). `attention`: sdpa, flash and documents (per-document) keep no scores;
    masked is SDPA with a dense mask (padding, packing on stock transformers), which repeats keys and
    values for grouped queries; eager keeps the scores. `kbit_upcast`: embeddings, head and norms in
    fp32 (peft.prepare_model_for_kbit_training), which makes the residual stream fp32 too.
    `quantise_experts`: since transformers 5 the experts of a mixture are fused tensors, which
    bitsandbytes leaves in 16 bit; before, they were linear layers like others. `trained_whole`:
    parameters that are trained and saved whole beside the adapter, in the adapter's format.
    """

    architecture: Architecture
    method: Method
    seq_len: int
    micro_batch_size: int = 1
    base_dtype: Dtype = "bf16"
    quantisation: Quantisation = "none"
    rank: int = 16
    targets: Targets = "all-linear"
    dora: bool = False
    dropout: float = 0.0
    adapter_dtype: Dtype = "fp32"
    arithmetic: Arithmetic = "lean"
    attention: Attention = "sdpa"
    checkpointed_layers: int = 0
    loss: Loss = "fused"
    optimizer: Optimizer = "adamw"
    gradient_accumulation_steps: int = 1
    kbit_upcast: bool = False
    quantise_experts: bool = False
    device: Device = "cuda"
    ranks: int = 1
    sharding: Sharding = "none"
    trained_whole: int = 0  # parameters of modules_to_save

    @property
    def tokens(self) -> int:
        """Tokens of one micro-step on one device."""
        return self.seq_len * self.micro_batch_size

    @property
    def all_checkpointed(self) -> TrainingSetup:
        return replace(self, checkpointed_layers=self.architecture.n_layers)

    def check(self, any_family: bool = False) -> None:
        """Raise UsageError H152 for a combination that cannot exist, H150 for an unknown layout."""
        if not any_family:
            shape.require_understood(self.architecture)
        refusal = _refusal(self)
        if refusal is not None:
            what, step = refusal
            raise UsageError("H152", what, next_step=step)


def _refusal(s: TrainingSetup) -> tuple[Sentence, Sentence] | None:
    """What makes the combination impossible, and the way out."""
    if s.method == "full" and s.quantisation != "none":
        return (
            say(
                "A model in {format} cannot be fine-tuned in full: rounded weights do not learn.",
                format=s.quantisation,
            ),
            say("Choose qlora, or full with a 16-bit base."),
        )
    if s.method == "qlora" and s.quantisation == "none":
        return (
            say("qlora needs a quantised base model."),
            say("Choose lora, or qlora with nf4 or int8."),
        )
    if s.quantisation == "mxfp4":
        return (
            say("mxfp4 weights answer but do not train: their kernels have no backward pass."),
            say("Choose lora with a 16-bit base, or inference."),
        )
    experts = s.method != "full" and shape.adapts_experts(s.architecture, s.targets)
    if experts and (s.dora or s.dropout):
        return (
            say("PEFT adapts fused experts neither with DoRA nor with dropout."),
            say("Choose --targets attention, or plain LoRA without dropout."),
        )
    if s.dora and s.quantisation in ("int8", "int8_mm"):
        return (
            say("PEFT cannot read the norm of an int8 weight, which DoRA needs."),
            say("Choose DoRA on a 16-bit or nf4 base."),
        )
    if s.sharding == "fsdp" and s.ranks < 2:
        return (
            say("FSDP shares the weights among several GPUs; there is one."),
            say("Give --gpus with at least 2."),
        )
    if not 0 <= s.dropout < 1:
        return (say("Dropout must be at least 0 and below 1."), say("Give a share such as 0.05."))
    if s.method == "full" and s.dora:
        return (
            say("DoRA is an adapter; full fine-tuning has none."),
            say("Choose lora or qlora."),
        )
    if s.seq_len < 1 or s.micro_batch_size < 1 or s.rank < 1:
        return (
            say("Length, micro-batch and rank must be at least 1."),
            say("Give positive whole numbers."),
        )
    if not 0 <= s.checkpointed_layers <= s.architecture.n_layers:
        return (
            say(
                "The model has {layers} layers; {count} cannot be checkpointed.",
                layers=s.architecture.n_layers,
                count=s.checkpointed_layers,
            ),
            say("Give a number from 0 to {layers}.", layers=s.architecture.n_layers),
        )
    return None


@dataclass(frozen=True)
class InferenceSetup:
    """One serving configuration: `sequences` at once, each `context` tokens (prompt and answer).

    `prefill_tokens` is how many prompt tokens one forward pass takes at most (vLLM's chunked
    prefill: 8192; transformers: the whole batch of prompts). `kv_bytes` per element: 2 for 16 bit,
    1 for fp8/int8, 0.5625 for 4 bit with a 16-bit scale and zero per 64.
    """

    architecture: Architecture
    context: int
    sequences: int = 1
    base_dtype: Dtype = "bf16"
    quantisation: Quantisation = "none"
    kv_bytes: float = 2.0
    prefill_tokens: int = 8192
    adapters: int = 0
    rank: int = 16
    targets: Targets = "all-linear"
    device: Device = "cuda"
    ranks: int = 1
