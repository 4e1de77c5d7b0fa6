"""Run by a Python that has llama-cpp-python: token ids in, token ids out, with the time it took.

Knows nothing of hauslm. One JSON object a line. First {"model", "threads", "context", "flash", "exact"};
answer {"version"}. Then {"prompts": [[ids]], "new_tokens", "ends": [ids]} as often as wanted; answer
{"answers": [[ids]], "wall", "cpu"}. llama-cpp-python keeps what a prompt has in common with the one before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    out = os.fdopen(os.dup(1), "w")  # llama.cpp may write to standard output
    os.dup2(2, 1)
    import llama_cpp

    start: dict[str, Any] = json.loads(sys.stdin.readline())
    model = llama_cpp.Llama(
        model_path=start["model"], n_ctx=start["context"], n_threads=start["threads"],
        n_threads_batch=start["threads"], n_batch=2048, n_ubatch=512, n_gpu_layers=0, verbose=False,
        flash_attn=start["flash"], **({"type_k": 0, "type_v": 0} if start["exact"] else {}),
    )  # fmt: skip
    print(json.dumps({"version": llama_cpp.__version__}), file=out, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        ends, answers = set(job["ends"]), []
        wall, cpu = time.perf_counter(), time.process_time()
        for prompt in job["prompts"]:
            answer: list[int] = []
            for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
                if token in ends:
                    break
                answer.append(int(token))
                if len(answer) == job["new_tokens"]:
                    break
            answers.append(answer)
        found = {
            "answers": answers,
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
        }
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
