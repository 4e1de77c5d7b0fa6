"""What does the backward pass keep of each token? Bytes per token and layer, itemised.

Derived operator by operator for the block of Llama and its relatives, and checked against `trace`,
which runs the real model. h hidden size, f intermediate size, kv key/value heads x head size; for
a 16-bit Llama block without checkpointing the items add up to 14h + 4kv + 6f (attention adapted,
lean) to 20h + 4kv + 8f (full fine-tuning).
"""

from __future__ import annotations

from hauslm.estimate import shape
from hauslm.estimate.setup import TrainingSetup


def activation_bytes(s: TrainingSetup) -> float:
    """Bytes of one activation element; fp32 weights stay fp32 unless autocast turns them to bf16."""
    return 4.0 if s.base_dtype == "fp32" and s.arithmetic != "autocast" else 2.0


def _stream_bytes(s: TrainingSetup) -> float:
    """Bytes of one element of the residual stream: the embedding's format decides."""
    return 4.0 if s.base_dtype == "fp32" or s.kbit_upcast else 2.0


def checkpoint_bytes(s: TrainingSetup) -> float:
    """Kept per token by a checkpointed layer: its input."""
    return _stream_bytes(s) * s.architecture.hidden_size


def layer_bytes(s: TrainingSetup) -> float:
    """Saved per token by one layer that is not checkpointed (averaged over layers)."""
    return _norm_bytes(s) + _attention_bytes(s) + _mlp_bytes(s) + _input_bytes(s)


def _norm_bytes(s: TrainingSetup) -> float:
    """RMSNorm keeps its input in fp32; a trained norm weight keeps the normalised input as well."""
    a = s.architecture
    act = activation_bytes(s)
    norms = 4 if a.family in shape.FOUR_NORMS else 2
    size = norms * a.hidden_size
    if a.family in shape.HEAD_NORMS or a.family in shape.WIDE_NORMS:
        size += shape.query_size(a) + shape.key_value_size(a)
    trained = (4.0 if a.family in shape.GEMMA_NORMS else act) if s.method == "full" else 0.0
    return size * (4.0 + trained)


def _attention_bytes(s: TrainingSetup) -> float:
    """Queries, keys, values, output; the log-sum-exp of fused kernels, or eager's score matrices."""
    a = s.architecture
    act = activation_bytes(s)
    query, pair = shape.query_size(a), shape.key_value_size(a)
    if s.attention in ("masked", "eager"):
        pair = query  # repeat_kv writes one copy per query head
    size = act * (2 * query + 2 * pair) + 4.0 * a.n_heads
    if a.family in shape.FUSED_NAMES:
        # the values are a view of the joint product, which keeps queries and keys alive as well
        size += act * (query + pair)
    if s.attention == "eager":
        # softmax output in fp32, and its cast for the product with the values
        capped = act if a.family == "gemma2" else 0.0  # tanh of the scores
        scores = 4.0 + (act if act < 4 else 0.0) + capped
        if a.family == "gpt_oss":
            scores = act  # its softmax, with the sinks, stays in the base's format
        size += a.n_heads * s.seq_len * scores - act * query
    return size


def _mlp_bytes(s: TrainingSetup) -> float:
    """Gate, activated gate and up; of a mixture, those of the experts a token meets."""
    a = s.architecture
    act = activation_bytes(s)
    if not a.n_experts:
        return act * 3 * a.intermediate_size
    size = a.moe_intermediate_size or a.intermediate_size
    met = a.experts_per_token or 1
    # the token is copied to each of its experts and their answers are weighted and added up;
    # gpt-oss clamps gate and up first, which keeps both once more
    kept = 5 if a.family == "gpt_oss" else 3
    return met * act * (kept * size + 2 * a.hidden_size)


def _input_bytes(s: TrainingSetup) -> float:
    """What the trained matrices keep of their inputs (a frozen matrix keeps nothing)."""
    act = activation_bytes(s)
    if s.method == "full":
        inputs = {x.reads: x.n_in * x.active for x in shape.linears(s.architecture)}
        inputs.pop("attention_output")  # kept by the attention already
        return act * sum(inputs.values())
    chosen = shape.adapted(s.architecture, s.targets)
    low_rank = sum(s.rank * act * x.active for x in chosen)
    masks = sum(x.n_in * x.active for x in chosen) if s.dropout else 0.0
    return low_rank + masks + _adapter_input_bytes(s, chosen) + _dora_bytes(s, chosen)


def _adapter_input_bytes(s: TrainingSetup, chosen: tuple[shape.Linear, ...]) -> float:
    act = activation_bytes(s)
    own_copy = s.dropout > 0
    width = act
    if s.adapter_dtype == "fp32" and act < 4 and s.arithmetic != "lean":
        own_copy = True  # each module casts its input to fp32 for itself
        width = act if s.arithmetic == "autocast" else 4.0
    if own_copy:
        return sum(width * x.n_in * x.active for x in chosen)
    shared = {x.reads: x.n_in * x.active for x in chosen}
    shared.pop("attention_output", None)
    return width * sum(shared.values())


def _dora_bytes(s: TrainingSetup, chosen: tuple[shape.Linear, ...]) -> float:
    """DoRA multiplies base and low-rank results by the magnitude: both are kept."""
    if not s.dora:
        return 0.0
    act = activation_bytes(s)
    own = 4.0 if s.arithmetic == "mixed" and s.adapter_dtype == "fp32" else act
    return sum((act + own) * x.n_out * x.active for x in chosen)


def in_flight_bytes(s: TrainingSetup) -> float:
    """Gradients alive per token while the backward pass is inside one MLP."""
    a = s.architecture
    act = activation_bytes(s)
    size = a.intermediate_size
    if a.n_experts:
        size = (a.moe_intermediate_size or size) * (a.experts_per_token or 1)
    hidden = a.hidden_size
    mlp_adapted = s.method != "full" and any(
        x.reads == "mlp_product" for x in shape.adapted(a, s.targets)
    )
    if not mlp_adapted:
        return act * (hidden + 3 * size)
    if s.adapter_dtype != "fp32" or act == 4 or s.arithmetic == "lean":
        return act * (hidden + 2 * size)
    if s.arithmetic == "autocast":
        return act * (5 * hidden + (5 if s.dropout else 3) * size)
    return act * (7 * hidden + 3 * size if s.dropout else 6 * hidden + 2 * size)


def transient_bytes(s: TrainingSetup) -> float:
    """The largest matrix, dequantised for one product (bitsandbytes does so above 1536 tokens). Of 8-bit
    products what train/eightbit.py makes on the way: the rounded operand in fp32 and 8 bit, int8's sums
    in int32 and fp32; fp8 on CUDA turns the matrix over."""
    if s.quantisation == "none":
        return 0.0
    if s.quantisation == "int8_mm":
        return s.tokens * max(x.n_in + 8.0 * x.n_out for x in shape.linears(s.architecture))
    if s.quantisation == "fp8":
        return max(
            5.0 * s.tokens * max(x.n_in, x.n_out) + 1.0 * x.n_in * x.n_out
            for x in shape.linears(s.architecture)
        )
    return 2.0 * max(x.n_in * x.n_out for x in shape.linears(s.architecture))


def dora_transient_bytes(s: TrainingSetup) -> float:
    """While PEFT computes the norm of one adapted matrix in the forward pass: its own copy and the
    low-rank product in fp32, their scaled copy and sum, and the unit matrix that makes the product."""
    if not s.dora:
        return 0.0
    unit = 4.0 if s.arithmetic == "mixed" else 2.0
    return max(
        16.0 * x.n_in * x.n_out + unit * x.n_in * x.n_in
        for x in shape.adapted(s.architecture, s.targets)
    )


def merged_expert_bytes(s: TrainingSetup) -> float:
    """Of one layer, whatever the number of tokens: PEFT adds the low-rank update to the fused experts
    in every pass, and the sum is kept for the backward pass."""
    if s.method == "full" or not shape.adapts_experts(s.architecture, s.targets):
        return 0.0
    return activation_bytes(s) * shape.expert_parameters(s.architecture)
