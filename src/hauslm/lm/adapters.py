"""Which adapter works on which row? LoRA adapters in one base model: loading, checking, routing.

PEFT keeps the active adapter in the layers themselves, so there is one router per model:
before a forward pass it is told which adapter each row uses, and touches the layers only if that is
new. Inside PEFT adapters get neutral names ('a0', 'a1'), since a name there may hit an attribute.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hauslm.base.errors import RefusedError, UsageError
from hauslm.base.files import sha256_file
from hauslm.base.words import Sentence, say
from hauslm.lm.checks import check_adapter, token_rows
from hauslm.lm.interface import BASE

PEFT_BASE = "__base__"  # PEFT's own word for "no adapter" in adapter_names


@dataclass(frozen=True)
class Loaded:
    internal: str
    sha256: str
    mixes: bool  # can share a forward pass with other adapters
    folder: Path


class Adapters:
    """The adapters of one transformers model (which PEFT changes in place)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: Any = None
        self._loaded: dict[str, Loaded] = {}
        self._routed: tuple[str, ...] | None = None
        self._hooks = ExitStack()
        self._counter = 0
        self._running = 0  # forward passes under the present route
        self._free = threading.Condition(threading.RLock())
        self.merged = ""  # the adapter that was folded into the weights

    def names(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    def sha256(self, name: str) -> str:
        return self._loaded[name].sha256

    def folder(self, name: str) -> Path:
        return self._loaded[name].folder

    # ------------------------------------------------------------ loading

    def load(self, name: str, folder: Path) -> None:
        """Attach the adapter in `folder`: checked, complete, finite. H800, H806, H807, H809."""
        if not name or name == BASE or name in self._loaded:
            raise UsageError(
                "H800",
                say("An adapter cannot be called '{name}' here.", name=name),
                next_step=say("Choose a name that is not taken."),
            )
        config = check_adapter(folder)
        file = folder / "adapter_model.safetensors"
        tensors = _tensors(file)
        self._check_rows(config, folder)
        with self._alone():
            internal = f"a{self._counter}"
            self._counter += 1
            try:
                self._attach(internal, config, tensors, folder)
            except BaseException:
                self._detach(internal)
                raise
        mixes = not config.get("use_dora", False) and not token_rows(config)
        self._loaded[name] = Loaded(internal, sha256_file(file), mixes, folder)

    def _check_rows(self, config: dict[str, Any], folder: Path) -> None:
        """Rows of added tokens exist only in a base that was made longer; H807 otherwise."""
        last = max((i for rows in token_rows(config).values() for i in rows), default=-1)
        size = self._model.get_input_embeddings().weight.shape[0]
        if last >= size:
            raise RefusedError(
                "H807",
                say(
                    "The adapter was trained with added tokens (up to number {last}); this base has {size:,} rows.",
                    last=last,
                    size=size,
                ),
                where=str(folder),
                next_step=say("Name the same tokens in model.added_tokens of the project file."),
            )

    def _attach(
        self, internal: str, config: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path
    ) -> None:
        from peft import LoraConfig, PeftModel, set_peft_model_state_dict
        from peft.utils import get_peft_model_state_dict

        # How the tensors began is of no matter: every one of them is overwritten below.
        known = {k: v for k, v in config.items() if k != "runtime_config"}
        known |= {"init_lora_weights": True, "inference_mode": True, "auto_mapping": None}
        known |= {"task_type": None}
        lora = LoraConfig(**known)
        try:
            if self._peft is None:
                self._peft = PeftModel(self._model, lora, adapter_name=internal)
            else:
                self._peft.add_adapter(internal, lora)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = str(error).split("\n")[0][:200]
            raise _refused(
                folder, say("The adapter does not fit this base model ({reason}).", reason=reason)
            ) from error
        expected = get_peft_model_state_dict(
            self._peft, adapter_name=internal, save_embedding_layers=False
        )
        _compare(expected, tensors, folder)
        set_peft_model_state_dict(self._peft, tensors, adapter_name=internal)
        self._peft.requires_grad_(False)
        self._peft.eval()

    def unload(self, name: str) -> None:
        with self._alone():
            self._detach(self._loaded.pop(name).internal)

    def _detach(self, internal: str) -> None:
        if self._peft is None:
            return
        if set(self._peft.peft_config) <= {internal}:
            self._peft.unload()
            self._peft = None
        elif internal in self._peft.peft_config:
            remaining = next(n for n in self._peft.peft_config if n != internal)
            self._peft.base_model.set_adapter(remaining, inference_mode=True)
            self._peft.delete_adapter(internal)

    # ------------------------------------------------------------ routing

    def mixable(self, adapters: Sequence[str]) -> list[list[int]]:
        """Row indices that may go through the model together."""
        different = set(adapters)
        if len(different) == 1 or all(n == BASE or self._loaded[n].mixes for n in different):
            return [list(range(len(adapters)))]
        return [[i for i, n in enumerate(adapters) if n == name] for name in sorted(different)]

    @contextmanager
    def routed(self, adapters: Sequence[str]) -> Iterator[None]:
        """Inside the block row i of a forward pass uses adapter `adapters[i]`.

        Several threads may be inside at once if they want the same; others wait.
        """
        wanted = tuple(adapters)
        if len(set(wanted)) == 1:
            wanted = wanted[:1]  # one adapter for all rows, however many
        with self._free:
            if self.merged and wanted != (self.merged,):
                raise UsageError(
                    "H800",
                    say(
                        "'{name}' was merged into the base; only it can be asked.", name=self.merged
                    ),
                    next_step=say("Load the base model again."),
                )
            self._free.wait_for(lambda: wanted == self._routed or not self._running)
            if wanted != self._routed and self._peft is not None and not self.merged:
                self._route(wanted)
            self._routed = wanted
            self._running += 1
        try:
            yield
        finally:
            with self._free:
                self._running -= 1
                self._free.notify_all()

    def _route(self, wanted: tuple[str, ...]) -> None:
        self._hooks.close()
        tuner = self._peft.base_model
        if wanted == (BASE,):
            tuner.disable_adapter_layers()
        elif len(wanted) == 1:
            tuner.enable_adapter_layers()
            tuner.set_adapter(self._loaded[wanted[0]].internal, inference_mode=True)
        else:
            tuner.enable_adapter_layers()
            names = [PEFT_BASE if n == BASE else self._loaded[n].internal for n in wanted]
            self._hooks.enter_context(tuner._enable_peft_forward_hooks(adapter_names=names))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No forward pass runs inside the block; the route is set anew afterwards."""
        with self._free:
            self._free.wait_for(lambda: not self._running)
            self._hooks.close()
            self._routed = None
            yield

    def merge(self, name: str) -> None:
        """Fold an adapter into the weights, for good."""
        with self._alone():
            self._route((name,))
            self._peft.merge_adapter([self._loaded[name].internal])
            self.merged = name


def _refused(folder: Path, what: Sentence) -> RefusedError:
    return RefusedError(
        "H807",
        what,
        where=str(folder),
        next_step=say("Get the adapter again from its source and compare its hash."),
    )


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors, all finite; H807 otherwise."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(str(file))
    except (SafetensorError, OSError, ValueError) as error:
        raise _refused(
            file.parent,
            say("{file} is damaged ({reason}).", file=file.name, reason=str(error)[:200]),
        ) from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise _refused(
                file.parent, say("The tensor {name} holds values that are not finite.", name=name)
            )
    return tensors


def _compare(expected: dict[str, Any], found: dict[str, torch.Tensor], folder: Path) -> None:
    """Exactly the tensors that the configuration calls for, in exactly their shapes; else H807."""
    missing = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    if missing:
        raise _refused(
            folder,
            say(
                "{count} tensors of the adapter are missing ({name}).",
                count=len(missing),
                name=missing[0],
            ),
        )
    if surplus:
        raise _refused(
            folder,
            say(
                "The adapter holds {count} tensors too many ({name}).",
                count=len(surplus),
                name=surplus[0],
            ),
        )
    for name, tensor in expected.items():
        if tuple(tensor.shape) != tuple(found[name].shape):
            raise _refused(
                folder,
                say(
                    "The tensor {name} has shape {found}, the base model calls for {wanted}.",
                    name=name,
                    found=str(tuple(found[name].shape)),
                    wanted=str(tuple(tensor.shape)),
                ),
            )
