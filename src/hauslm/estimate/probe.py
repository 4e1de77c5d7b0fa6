"""What does a few real steps on the real device cost? Measured, kept, used to recalibrate.

A model with the real widths, formats, adapter and settings but few layers and random weights trains
for some steps in a process of its own, twice, with two numbers of layers; what a layer costs follows
from the difference. The result is a pair of factors, measured over predicted, for what lives for a
while in memory and for speed. They go into the machine profile, a JSON file that the caller names.

This module imports torch only in the child process.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hauslm.base.errors import MissingError
from hauslm.base.files import write_json
from hauslm.base.quantity import Quantity, measured
from hauslm.base.words import say
from hauslm.catalog.schema import Architecture
from hauslm.estimate.memory import MemoryEstimate, training_memory
from hauslm.estimate.setup import TrainingSetup

PROFILE_VERSION = 1
LAYERS = (1, 2)
STEPS = 3
WARM_UP_TOKENS = 16
TIME_LIMIT_S = 600
# A probe must not push the machine out of memory: it takes at most this many tokens on a CPU.
MOST_TOKENS_ON_CPU = 2048


@dataclass(frozen=True)
class Measured:
    """Factors measured / predicted, the speed that follows for the whole setup, and when."""

    memory_factor: float
    speed_factor: float
    speed: Quantity
    date: str
    device: str

    @property
    def source(self) -> str:
        return f"probe on {self.device}, {self.date}"

    def parts(self, predicted: MemoryEstimate) -> Mapping[str, float]:
        """The predicted parts in bytes, those that live for a while scaled by the measurement."""
        moving = ("activations", "logits")
        return {
            k: v * (self.memory_factor if k in moving else 1.0) for k, v in predicted.bytes.items()
        }


def device_for(gpu_name: str | None) -> str | None:
    """torch's name of the device to probe: "cpu" for None, "cuda" if such a card is here."""
    if gpu_name is None:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        return None
    words = set(torch.cuda.get_device_name(0).lower().replace("-", " ").split())
    wanted = [w for w in gpu_name.lower().replace("-", " ").split() if any(c.isdigit() for c in w)]
    return "cuda" if any(w in words or f"nvidia {w}" in words for w in wanted) else None


def probe(config: dict[str, Any], setup: TrainingSetup, device: str) -> Measured:
    """Run the steps in a child process. MissingError H546 if they fail there."""
    small = _affordable(setup, device)
    answers = [in_child(config, _with_layers(small, n), device) for n in LAYERS]
    return _compare(setup, small, answers, device)


def _affordable(s: TrainingSetup, device: str) -> TrainingSetup:
    """On a CPU fewer sequences, as memory and time are linear in them."""
    if device != "cpu" or s.tokens <= MOST_TOKENS_ON_CPU:
        return s
    return replace(s, micro_batch_size=max(1, MOST_TOKENS_ON_CPU // s.seq_len))


def _with_layers(s: TrainingSetup, layers: int) -> TrainingSetup:
    checkpointed = layers if s.checkpointed_layers == s.architecture.n_layers else 0
    return replace(
        s,
        architecture=replace(s.architecture, n_layers=layers),
        checkpointed_layers=checkpointed,
    )


def in_child(config: dict[str, Any], s: TrainingSetup, device: str) -> dict[str, float]:
    """`measure` in a process of its own, so that nothing else is in its memory. MissingError H546."""
    order = json.dumps({"config": config, "setup": asdict(s), "device": device})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hauslm.estimate.probe"],
            input=order,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(f"more than {TIME_LIMIT_S} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise _failed(lines[-1][:200] if lines else f"exit code {done.returncode}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _failed(reason: str) -> MissingError:
    return MissingError(
        "H546",
        say("The probe did not run through on this machine ({reason}).", reason=reason),
        next_step=say("Use --evidence trace, which needs no device."),
    )


def _compare(
    setup: TrainingSetup, small: TrainingSetup, answers: list[dict[str, float]], device: str
) -> Measured:
    """Measured over predicted, for the difference that the additional layers make."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    few, more = (_with_layers(small, n) for n in LAYERS)
    # Differences, so that what the runtime takes for itself in a first step drops out.
    predicted = _moving(more) - _moving(few)
    grown = answers[1]["transient_bytes"] - answers[0]["transient_bytes"]
    memory = grown / predicted if predicted > 0 and grown > 0 else 1.0
    seconds = answers[1]["step_s"] - answers[0]["step_s"]
    expected = _step_s(more) - _step_s(few)
    speed_factor = expected / seconds if seconds > 0 else 1.0
    layers = setup.architecture.n_layers
    whole = answers[0]["step_s"] + max(seconds, 1e-9) * (layers - LAYERS[0]) / (
        LAYERS[1] - LAYERS[0]
    )
    speed = measured(
        setup.ranks * small.tokens / whole, "tokens/s", today, f"probe on {device}",
        low=0.85 * small.tokens / whole, high=1.15 * setup.ranks * small.tokens / whole,
    )  # fmt: skip
    return Measured(memory, speed_factor, speed, today, device)


def _moving(s: TrainingSetup) -> float:
    parts = training_memory(s).bytes
    return parts["activations"] + parts["logits"]


def _step_s(s: TrainingSetup) -> float:
    """Relative cost of a step by the formula; only ratios of it are used."""
    from hauslm.estimate.work import training_work

    return s.tokens * training_work(s).total


def store(
    path: Path, machine: str, result: Measured, memory: MemoryEstimate, predicted: Quantity
) -> None:
    """Keep the factors of `machine` in the profile; other machines' entries stay.

    The speed factor that is kept is measured over predicted speed of the whole setting.
    """
    profile: dict[str, Any] = {"version": PROFILE_VERSION, "machines": {}}
    if path.is_file():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(old, dict) and isinstance(old.get("machines"), dict):
                profile["machines"] = old["machines"]
        except ValueError:
            pass  # a damaged profile is replaced: it can be measured again
    profile["machines"][machine] = {
        "memory_factor": result.memory_factor,
        "speed_factor": result.speed.value / predicted.value,
        "peak_gib": memory.allocated_gib,
        "tokens_per_second": result.speed.value,
        "date": result.date,
        "device": result.device,
    }
    write_json(path, profile)


# ---------------------------------------------------------------- in the child process


def _setup_from(data: dict[str, Any]) -> TrainingSetup:
    architecture = Architecture(**data.pop("architecture"))
    targets = data.pop("targets")
    fixed: Any = targets if isinstance(targets, str) else tuple(targets)
    return TrainingSetup(architecture=architecture, targets=fixed, **data)


def measure(config: dict[str, Any], s: TrainingSetup, device: str) -> dict[str, float]:
    """Seconds of the fastest step, and the most memory above what was at rest."""
    import time

    import torch

    from hauslm.estimate import trace_model

    model = trace_model.real_model(config, s, device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    update = trace_model.optimizer_of(parameters, s)

    def step(length: int, batch: int) -> float:
        ids = torch.randint(0, s.architecture.vocab_size, (batch, length), device=device)
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=s.arithmetic == "autocast"):
            loss = trace_model.loss_of(model, s, ids)
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())
        if device == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        update()
        for parameter in parameters:
            parameter.grad = None
        return taken

    # A tiny step first: libraries set themselves up, the optimizer makes its states. What is in use
    # after it is "at rest"; later a CPU allocator keeps what it had and would hide the next peak.
    step(WARM_UP_TOKENS, 1)
    at_rest = _memory(device, restart=True)
    seconds = [step(s.seq_len, s.micro_batch_size) for _ in range(STEPS)]
    peak = _memory(device, restart=False)
    return {"step_s": min(seconds), "transient_bytes": peak - at_rest, "at_rest_bytes": at_rest}


def _memory(device: str, *, restart: bool) -> float:
    """Bytes in use now (and start a new peak), or the peak since then."""
    if device == "cuda":
        import torch

        if restart:
            torch.cuda.reset_peak_memory_stats()
            return float(torch.cuda.memory_allocated())
        return float(torch.cuda.max_memory_allocated())
    if restart:
        # Linux: "5" resets the high-water mark of the resident set (proc(5)).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    name = "VmRSS:" if restart else "VmHWM:"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(row for row in status.splitlines() if row.startswith(name))
    return float(line.split()[1]) * 1024


def _main() -> None:
    order = json.loads(sys.stdin.read())
    answer = measure(order["config"], _setup_from(order["setup"]), order["device"])
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
