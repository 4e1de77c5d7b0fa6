"""What is inside a decoder, counted? Its linear layers, its parameters, what LoRA adds to them.

Counts follow from the `Architecture` alone, so they hold for models nobody has published. What the
counts cost in bytes, time and money is for `memory`, `speed` and `money`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hauslm.base.errors import UsageError, did_you_mean
from hauslm.base.words import say
from hauslm.catalog.schema import Architecture

Targets = Literal["attention", "all-linear", "mlp"] | tuple[str, ...]

# Block layouts whose linear layers, norms and biases are counted below. A configuration of another
# layout is not guessed at: the formula says so and the trace builds the real model instead.
UNDERSTOOD_FAMILIES = frozenset(
    [
        "llama",
        "mistral",
        "ministral3",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "phi3",
        "olmo2",
        "olmo3",
        "gpt_oss",
        "granite",
        "smollm3",
    ]
)
FOUR_NORMS = frozenset(("gemma2", "gemma3", "gemma3_text"))
HEAD_NORMS = frozenset(("qwen3", "qwen3_moe", "gemma3", "gemma3_text"))
WIDE_NORMS = frozenset(("olmo2", "olmo3"))  # one norm over all query heads, one over all key heads
FUSED_NAMES = frozenset(("phi3",))
GEMMA_NORMS = frozenset(("gemma", "gemma2", "gemma3", "gemma3_text"))

# Mixtures whose experts, one fused tensor since transformers 5, PEFT's "all-linear" adapts as well
# (with the router); of others it reaches the attention only. Checked with peft 0.21.
ADAPTED_EXPERTS = frozenset(("qwen3_moe", "mixtral"))

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")
MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block: `name` as the modules are called, sizes in features.

    `reads` names the tensor that goes in: layers with the same one can share what autograd saves.
    `copies` is how many of it a block has (the experts of a mixture), `active` how many of those
    a token meets.
    """

    name: str
    n_in: int
    n_out: int
    reads: Literal["attention_input", "attention_output", "mlp_input", "mlp_product"]
    copies: int = 1
    active: float = 1.0
    expert: bool = False

    @property
    def parameters(self) -> int:
        return self.n_in * self.n_out * self.copies


@dataclass(frozen=True)
class Counts:
    """Parameters of a model by where they sit."""

    embedding: int
    head: int  # 0 when it is the embedding matrix itself
    linear: int  # the matrices inside the blocks: what quantisation shrinks
    rest: int  # norms, biases, router, attention sinks: never quantised

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.linear + self.rest


def require_understood(architecture: Architecture) -> None:
    """Raise UsageError H150 for a block layout that the formula does not know."""
    if architecture.family not in UNDERSTOOD_FAMILIES:
        raise UsageError(
            "H150",
            say(
                "The memory formula does not know the architecture '{family}'.",
                family=architecture.family,
            ),
            next_step=say("Use --evidence trace: it builds the real model from its configuration."),
        )


def query_size(architecture: Architecture) -> int:
    return architecture.n_heads * architecture.head_dim


def key_value_size(architecture: Architecture) -> int:
    return architecture.n_kv_heads * architecture.head_dim


def linears(architecture: Architecture) -> tuple[Linear, ...]:
    """The linear layers of one block, under the names their modules carry in transformers."""
    hidden, query, pair = (
        architecture.hidden_size,
        query_size(architecture),
        key_value_size(architecture),
    )
    fused = architecture.family in FUSED_NAMES
    if fused:
        attention = [Linear("qkv_proj", hidden, query + 2 * pair, "attention_input")]
    else:
        attention = [
            Linear("q_proj", hidden, query, "attention_input"),
            Linear("k_proj", hidden, pair, "attention_input"),
            Linear("v_proj", hidden, pair, "attention_input"),
        ]
    attention.append(Linear("o_proj", query, hidden, "attention_output"))
    copies = architecture.n_experts or 1
    active = float(architecture.experts_per_token or 1) if architecture.n_experts else 1.0
    size = architecture.intermediate_size
    if architecture.n_experts:
        size = architecture.moe_intermediate_size or size
    expert = bool(architecture.n_experts)
    names = (("gate_up_proj", 2 * size),) if fused else (("gate_proj", size), ("up_proj", size))
    mlp = [Linear(n, hidden, out, "mlp_input", copies, active, expert) for n, out in names]
    mlp.append(Linear("down_proj", size, hidden, "mlp_product", copies, active, expert))
    return (*attention, *mlp)


def _rest_per_layer(architecture: Architecture) -> int:
    """Norm weights, biases, router and sinks of one block."""
    hidden, query, pair = (
        architecture.hidden_size,
        query_size(architecture),
        key_value_size(architecture),
    )
    family = architecture.family
    count = hidden * (4 if family in FOUR_NORMS else 2)
    if family in HEAD_NORMS:
        count += 2 * architecture.head_dim
    if family in WIDE_NORMS:
        count += query + pair
    if family == "qwen2":
        count += query + 2 * pair
    if architecture.n_experts:
        count += hidden * architecture.n_experts
    if family == "gpt_oss":
        size = architecture.moe_intermediate_size or architecture.intermediate_size
        experts = architecture.n_experts or 1
        count += query + 2 * pair + hidden + architecture.n_heads  # biases and sinks
        count += experts * (2 * size + hidden + 1)
    return count


def counts(architecture: Architecture) -> Counts:
    """Parameters by place; exact for the published models of the understood layouts."""
    embedding = architecture.vocab_size * architecture.hidden_size
    block = sum(entry.parameters for entry in linears(architecture))
    return Counts(
        embedding=embedding,
        head=0 if architecture.tied_embeddings else embedding,
        linear=architecture.n_layers * block,
        rest=architecture.n_layers * _rest_per_layer(architecture) + architecture.hidden_size,
    )


def active_linear_parameters(architecture: Architecture) -> float:
    """Matrix parameters that one token meets in the blocks (all of them, without experts)."""
    block = sum(x.n_in * x.n_out * x.active for x in linears(architecture))
    return architecture.n_layers * block


def adapted(architecture: Architecture, targets: Targets) -> tuple[Linear, ...]:
    """The linear layers of a block that get an adapter; fused experts: see `adapts_experts`.

    Raises UsageError H151 for a module name that the block does not have.
    """
    here = linears(architecture)
    if targets == "attention":
        return tuple(x for x in here if x.name in ATTENTION)
    if targets == "all-linear":
        return tuple(x for x in here if not x.expert)
    if targets == "mlp" and not architecture.n_experts:
        return tuple(x for x in here if x.name in MLP)
    if targets == "mlp" or (architecture.n_experts and set(targets) & set(MLP)):
        raise UsageError(
            "H151",
            say(
                "The experts of this model are no modules of their own; adapters cannot name them."
            ),
            next_step=say("Use all-linear, or attention."),
        )
    names = {x.name for x in here if not x.expert}
    wanted = translated(targets, names)
    for name in wanted:
        if name not in names:
            raise UsageError(
                "H151",
                say("The model has no module named '{name}'.", name=name),
                next_step=did_you_mean(name, names),
            )
    return tuple(x for x in here if x.name in wanted)


def translated(targets: Sequence[str], names: set[str]) -> set[str]:
    """q/k/v and gate/up are one matrix in some layouts: the separate names mean the joint one."""
    joint = {
        "q_proj": "qkv_proj",
        "k_proj": "qkv_proj",
        "v_proj": "qkv_proj",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
    }
    return {joint[t] if t not in names and joint.get(t) in names else t for t in targets}


def adapts_experts(architecture: Architecture, targets: Targets) -> bool:
    """Whether the adapter reaches the fused experts and the router of a mixture."""
    return (
        targets == "all-linear"
        and bool(architecture.n_experts)
        and architecture.family in ADAPTED_EXPERTS
    )


def expert_parameters(architecture: Architecture) -> int:
    """Parameters of all experts of one block."""
    return sum(x.parameters for x in linears(architecture) if x.expert)


def _expert_adapter_parameters(architecture: Architecture, rank: int) -> int:
    """Per block, as PEFT shapes them: the joint gate/up tensor gets twice the rank."""
    a = architecture
    experts = a.n_experts or 0
    hidden, size = a.hidden_size, a.moe_intermediate_size or a.intermediate_size
    joint = 2 * rank * experts * (hidden + 2 * size)
    down = rank * experts * (size + hidden)
    return joint + down + rank * (hidden + experts)


def adapter_parameters(
    architecture: Architecture, targets: Targets, rank: int, dora: bool = False
) -> int:
    """Trainable parameters of a LoRA adapter: r(in + out) per adapted matrix, DoRA + out."""
    per_block = sum(
        (rank * (x.n_in + x.n_out) + (x.n_out if dora else 0)) * x.copies
        for x in adapted(architecture, targets)
    )
    if adapts_experts(architecture, targets):
        per_block += _expert_adapter_parameters(architecture, rank)
    return architecture.n_layers * per_block
