"""The model on this machine: transformers and PEFT behind the seam, base and adapters together.

Nothing is downloaded and no foreign code runs: folders pass `checks.py` first, adapters must be
complete and finite. Rows of one batch may use different adapters (PEFT's `adapter_names`) and
different schemas; how a batch runs stands in `decode.py`, how texts are scored in `scoring.py`.

    model = LocalModel.load(Path("model"), {"team": Path("adapter")})
    replies = model.generate([Request((Message("user", "..."),), adapter="team")])
"""

# ruff: noqa: E402, N803, N806 - tensor names carry their shape, see the legend
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hauslm.lm.threads import SLEEPING, settle

settle(SLEEPING)  # OpenMP reads it once, when torch is loaded
# PEFT loads bitsandbytes, which asks for a package that would fetch kernels from a hub. None is needed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import torch

from hauslm.base.errors import HauslmError, RefusedError, UsageError, did_you_mean
from hauslm.base.files import sha256_file, sha256_tree
from hauslm.base.words import say
from hauslm.lm import adapters as adapter_files
from hauslm.lm import attention, lanes, scoring
from hauslm.lm.cache import SlotCache, slot_mask
from hauslm.lm.checks import check_base
from hauslm.lm.decode import Decoder
from hauslm.lm.interface import BASE, Reply, Request, Scored, TokenLogprob
from hauslm.lm.loading import (
    context_length,
    eos_ids,
    load_folder,
    sliding_window,
    without_control_spellings,
)
from hauslm.lm.schema import Grammars
from hauslm.lm.textside import TextSide

MERGE_TOLERANCE = 2e-3  # nats over about ten tokens
SMALL_MODEL = 64_000_000  # parameters
SMALL_PASS = 1_000_000_000  # parameters times tokens of one forward pass


class LocalModel(TextSide):
    """`LanguageModel` over a causal model of transformers. Make one with `load`.

    `batch_size`: most rows that `generate` decodes at once, per lane. `lanes`: how many such batches
    run side by side (more than one only for small models on a CPU). `notices`: what a reader must
    know about how it ran (for example a batch that had to be halved).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, folder: Path, batch_size: int = 8
    ) -> None:
        config = model.config.get_text_config()
        limit = context_length(config, tokenizer)
        super().__init__(tokenizer, name, limit, eos_ids(model, tokenizer))
        self.folder = folder
        self.batch_size = batch_size
        self.notices: list[Any] = []
        self.device = str(next(model.parameters()).device)
        self._model = model
        self._adapters = adapter_files.Adapters(model)
        self.vocabulary_size = int(model.get_output_embeddings().weight.shape[0])
        self._window, self._mixed_windows = sliding_window(config)
        self._float_mask = config._attn_implementation != "sdpa"
        self._own_attention = not self._float_mask and self.device == "cpu"
        if self._own_attention:
            config._attn_implementation = attention.register()
        self._last_layer = attention.trim_last_mlp(model)
        self._parameters = sum(p.numel() for p in model.parameters())
        self._grammars: Grammars | None = None
        small = self.device == "cpu" and self._parameters < SMALL_MODEL
        self.lanes = min(lanes.MAX_LANES, lanes.cores()) if small else 1
        self._base_sha256 = ""
        self._check_engine()

    @classmethod
    def load(
        cls,
        base: Path,
        adapters: Mapping[str, Path] | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        name: str = "",
        quantisation: str = "none",
        batch_size: int = 8,
    ) -> LocalModel:
        """The base model in folder `base` and its adapters, by name.

        `dtype`: auto (float32 on CPU, as stored on a GPU), float32, bfloat16 or float16.
        `device`: auto, cpu, cuda or cuda:N. `quantisation`: none, nf4 or int8 (GPU only).
        Raises MissingError H809 (incomplete folder), RefusedError H805-H808 (unsafe or unusable).
        """
        base = Path(base)
        check_base(base)
        model, tokenizer = load_folder(base, dtype, device, quantisation)
        loaded = cls(model, tokenizer, name=name or base.name, folder=base, batch_size=batch_size)
        for adapter, path in (adapters or {}).items():
            loaded.load_adapter(adapter, Path(path))
        return loaded

    # ------------------------------------------------------------ adapters

    def adapters(self) -> tuple[str, ...]:
        return self._adapters.names()

    def load_adapter(self, name: str, path: Path) -> None:
        """Load one more adapter under `name`; nothing changes if it is refused (H806, H807)."""
        self._adapters.load(name, Path(path))

    def unload_adapter(self, name: str) -> None:
        self._need_adapter(name)
        self._adapters.unload(name)

    def adapter_sha256(self, name: str) -> str:
        """sha256 of the adapter's safetensors file; '' for the base."""
        return "" if name == BASE else self._adapters.sha256(name)

    def adapter_folder(self, name: str) -> Path:
        """Where the adapter was loaded from; its canary and chat template lie there, if it has any."""
        return self._adapters.folder(name)

    @property
    def base_sha256(self) -> str:
        """One hash over the base's weights, configuration and tokenizer files."""
        if not self._base_sha256:
            names = [
                p.name
                for p in self.folder.iterdir()
                if p.suffix in (".safetensors", ".json", ".jinja")
            ]
            self._base_sha256 = sha256_tree(self.folder, names)
        return self._base_sha256

    @property
    def tokenizer_sha256(self) -> str:
        return sha256_file(self.folder / "tokenizer.json")

    @property
    def dtype(self) -> str:
        """Number format of the weights: float32, bfloat16, ..."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def engine(self) -> dict[str, str]:
        """What computes, as far as it can change an answer's last digits."""
        versions = {n: version(n) for n in ("torch", "transformers", "peft", "llguidance")}
        merged = {"merged": self._adapters.merged} if self._adapters.merged else {}
        kind = self.device.split(":")[0]
        return {"name": "transformers", "device": kind, "dtype": self.dtype, **versions, **merged}

    def merge(self, name: str) -> None:
        """Fold one adapter into the weights: faster, and from then on this model is that adapter.

        For float32 models only, where folding changes nothing but rounding; that is checked on fixed
        prompts (RefusedError H817 beyond `MERGE_TOLERANCE` nats). There is no way back.
        """
        self._need_adapter(name)
        if self.dtype != "float32" or name == BASE:
            raise RefusedError(
                "H817",
                say("Only adapters of float32 models are merged; {dtype} would lose digits.",
                    dtype=self.dtype),
                next_step=say("Use the adapter unmerged; the result is the same."),
            )  # fmt: skip
        probes = [("The samples were", " analysed in three steps."), ("", "Die Messungen zeigen")]
        before = self.score(probes, name)
        self._adapters.merge(name)
        after = self.score(probes, name)
        gap = max(abs(a.logprob - b.logprob) for a, b in zip(before, after, strict=True))
        if not gap <= MERGE_TOLERANCE:
            raise RefusedError(
                "H817",
                say("Merged and unmerged adapter differ by {gap:.4f} nats.", gap=gap),
                next_step=say("Use the adapter unmerged."),
            )

    def _need_adapter(self, name: str) -> None:
        if name != BASE and name not in self.adapters():
            raise UsageError(
                "H800",
                say("There is no adapter called '{name}'.", name=name),
                next_step=did_you_mean(name, (*self.adapters(), BASE)),
            )

    # ------------------------------------------------------------ the seam

    def prompt_ids(self, request: Request) -> list[int]:
        """The prompt's token ids; H800, H803, H804, H810 if the request cannot be answered."""
        self._need_adapter(request.adapter)
        return super().prompt_ids(request)

    def decoder(self, batch_size: int | None = None) -> Decoder:
        """A running batch of one's own: `admit` requests, `step` until nothing is pending."""
        return Decoder(self, batch_size or self.batch_size)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        prompts = [self.prompt_ids(r) for r in requests]
        for request in requests:
            self.matcher(request)  # a schema that cannot be enforced fails before the first token
        while True:
            try:
                return lanes.answer(self, requests, prompts)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if self.batch_size == 1:
                    raise RefusedError(
                        "H816",
                        say("Not even one answer fits into the device memory."),
                        next_step=say("Use shorter texts, a smaller model or quantisation."),
                    ) from error
                self.batch_size = max(1, self.batch_size // 2)
                self.notices.append(
                    say("Out of memory: the batch was halved to {rows} rows.", rows=self.batch_size)
                )

    def stream(self, request: Request) -> Iterator[str | TokenLogprob | Reply]:
        """The answer as it comes: text, log-probabilities if asked for, the reply at the end."""
        decoder = self.decoder(1)
        decoder.admit(request)
        while decoder.pending:
            for event in decoder.step():
                yield from event.logprobs
                if event.text:
                    yield event.text
                if event.reply is not None:
                    yield event.reply

    def score(self, pairs: Sequence[tuple[str, str]], adapter: str = BASE) -> list[Scored]:
        """See `LanguageModel.score`; H803 for a pair beyond the context, which is never cut."""
        self._need_adapter(adapter)
        return scoring.score(self, pairs, adapter)

    # ------------------------------------------------------------ what decode.py needs

    def matcher(self, request: Request) -> Any:
        """A fresh grammar matcher for the request's schema; None if it has none (H801, H802)."""
        if request.json_schema is None:
            return None
        if self._grammars is None:
            from llguidance import LLTokenizer

            self._grammars = Grammars(
                LLTokenizer(
                    without_control_spellings(self._rust),
                    n_vocab=max(self.vocabulary_size, self._known_tokens),
                    eos_token=sorted(self.eos_ids),
                )
            )
        return self._grammars.matcher(request.json_schema)

    def bitmasks(self, matchers: Sequence[Any]) -> torch.Tensor:
        """Which tokens may follow: int32 [len(matchers), V/32 rounded up]."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        words = allocate_token_bitmask(len(matchers), max(self.vocabulary_size, self._known_tokens))
        for row, matcher in enumerate(matchers):
            fill_next_token_bitmask(matcher, words, row)
        return torch.from_numpy(words)

    def forbid_unknown_tokens(self, logits_NV: torch.Tensor) -> None:
        """Outputs without a token (padding of the vocabulary) are never chosen."""
        if logits_NV.shape[1] > self._known_tokens:
            logits_NV[:, self._known_tokens :] = float("-inf")

    def forbid_control_tokens(self, logits_NV: torch.Tensor, rows: Sequence[int]) -> None:
        """In JSON a control token's spelling ('[INST]') is text and is written letter by letter."""
        control = torch.tensor(sorted(self.control_ids), device=logits_NV.device, dtype=torch.long)
        index = torch.tensor(list(rows), device=logits_NV.device)
        logits_NV[index[:, None], control] = float("-inf")

    def mixable(self, adapters: Sequence[str]) -> list[list[int]]:
        """Groups of row indices that may share a forward pass (DoRA cannot be mixed)."""
        return self._adapters.mixable(adapters)

    def attention_mask(
        self,
        positions_BK: torch.Tensor,
        used: int,
        make: Callable[..., torch.Tensor] = slot_mask,
        starts: Sequence[int] | None = None,
    ) -> Any:
        """The mask for rows in slots, in the form that the architecture expects. `starts`: the first
        of each row's positions, where they follow each other."""
        full = self._as_mask(make(positions_BK, used))
        if starts is not None:
            attention.see_up_to(full, starts)
        if self._window is None or used <= self._window:
            return full
        sliding = self._as_mask(make(positions_BK, used, self._window))
        if self._mixed_windows:
            return {"full_attention": full, "sliding_attention": sliding}
        return sliding

    def _as_mask(self, visible: torch.Tensor) -> torch.Tensor:
        if not self._float_mask:
            return visible
        lowest = torch.finfo(self._model.dtype).min
        return torch.zeros_like(visible, dtype=self._model.dtype).masked_fill(~visible, lowest)

    @torch.inference_mode()
    def forward_last(
        self,
        tokens_BK: torch.Tensor,
        positions_BK: torch.Tensor,
        mask: Any,
        cache: SlotCache,
        adapters: Sequence[str],
        ends: Sequence[int],
    ) -> torch.Tensor:
        """Logits [B, V] (float32) at token `ends[b]` of each row b."""
        wanted = sorted(set(ends))
        asked = attention.only(wanted, tokens_BK.shape[1], self._last_layer, tokens_BK.device)
        with self._adapters.routed(adapters), self.threads(tokens_BK.numel()), asked as index:
            output: Any = self._model(
                input_ids=tokens_BK,
                position_ids=positions_BK,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=index,
            )
        logits_BUV: torch.Tensor = output.logits
        if len(wanted) == 1:
            logits_BV = logits_BUV[:, 0]
        else:
            own = torch.tensor([wanted.index(e) for e in ends], device=tokens_BK.device)
            logits_BV = logits_BUV[torch.arange(len(ends), device=tokens_BK.device), own]
        return logits_BV.float().clone()

    @contextmanager
    def threads(self, tokens: int) -> Iterator[None]:
        """Passes over few `tokens`, and everything about a small model, run on one CPU thread.

        Waiting for each other costs threads more than such a pass takes (measured: six times, with
        other work on the machine). The rule looks at sizes alone, so that results stay the same.
        """
        before = torch.get_num_threads()
        small = self._parameters < SMALL_MODEL or self._parameters * tokens < SMALL_PASS
        if self.device != "cpu" or not small or before == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # ------------------------------------------------------------ what lanes.py needs

    def prefix_pays(self, prefix: int, rest: int) -> bool:
        """Whether copying `prefix` tokens saves more than it costs rows with `rest` more tokens.

        It saves the matrices of the prefix (2 FLOP per parameter and token). With the attention of
        attention.py that is all there is to say. The fused kernels lose their causal shortcut: with a
        mask all of `rest` x (prefix + rest) is computed, half of which is not needed (QK and PV, 2 FLOP
        each per layer and hidden unit).
        """
        if self._own_attention:
            return True
        config = self._model.config.get_text_config()
        saved = 2 * self._parameters * prefix
        unit = 2 * config.num_hidden_layers * config.hidden_size
        return bool(saved > unit * (rest * rest + 2 * rest * prefix))

    # ------------------------------------------------------------ what scoring.py needs

    @torch.inference_mode()
    def hidden(
        self,
        tokens_BT: torch.Tensor,
        adapter: str,
        positions_BT: torch.Tensor | None = None,
        parts_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Last hidden states [B, T, E] of whole texts; with `parts_BT`, of a context (part 0) and of
        several continuations that do not see each other (`scoring.part_mask`)."""
        extra: dict[str, Any] = {}
        if positions_BT is not None and parts_BT is not None:
            mask = self.attention_mask(
                positions_BT,
                tokens_BT.shape[1],
                lambda positions, _, window=None: scoring.part_mask(positions, parts_BT, window),
            )
            extra = {"position_ids": positions_BT, "attention_mask": mask}
        routed = self._adapters.routed([adapter] * tokens_BT.shape[0])
        with routed, self.threads(tokens_BT.numel()):
            output: Any = self._model.base_model(input_ids=tokens_BT, use_cache=False, **extra)
        states_BTE: torch.Tensor = output.last_hidden_state
        return states_BTE

    def head(self, hidden_NE: torch.Tensor) -> torch.Tensor:
        """Logits [N, V] (float32) from hidden states, as the model itself computes them."""
        logits_NV: torch.Tensor = self._model.get_output_embeddings()(hidden_NE).float()
        config = self._model.config.get_text_config()
        if scale := getattr(config, "logit_scale", None):  # Cohere multiplies
            logits_NV = logits_NV * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite divides
            logits_NV = logits_NV / divisor
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV

    # ------------------------------------------------------------ is it right?

    @torch.inference_mode()
    def _check_engine(self) -> None:
        """Compare our cache, mask and head with the plain model on five tokens; H808 if unequal."""
        tokens = torch.tensor(
            [[t % self._known_tokens for t in (7, 3, 11, 5, 2)]], device=self.device
        )
        try:
            plain = self._model(input_ids=tokens, use_cache=False).logits[0].float()
            cache = SlotCache(1)
            positions = torch.arange(5, device=self.device)[None]
            cache.aim([0], positions[:, :3], 3, fresh=True)
            self.forward_last(tokens[:, :3], positions[:, :3], None, cache, [BASE], [2])
            cache.aim([0], positions[:, 3:], 5)
            mask = self.attention_mask(positions[:, 3:], 5)
            ours = self.forward_last(tokens[:, 3:], positions[:, 3:], mask, cache, [BASE], [1])[0]
            scored = self.head(self.hidden(tokens, BASE)[0])
        except HauslmError:
            raise
        except Exception as error:  # any failure of a foreign architecture means: not this engine
            raise self._unsupported(f"{type(error).__name__}: {error}"[:200]) from error
        spread = float(plain.std()) or 1.0
        tolerance = 1e-3 if plain.dtype == self._model.dtype else 0.2
        worst = max(float((ours - plain[-1]).abs().max()), float((scored - plain).abs().max()))
        if not worst <= tolerance * max(spread, 1e-3):
            raise self._unsupported(f"max |Δ| = {worst:.3g}")

    def _unsupported(self, reason: str) -> RefusedError:
        return RefusedError(
            "H808",
            say("The architecture of {name} does not run in this engine ({reason}).",
                name=self.name, reason=reason),
            next_step=say("Serve the model with vLLM and analyse with 'engine: openai'."),
        )  # fmt: skip
