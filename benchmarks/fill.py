"""Fill a model's context and say what the process held at most, beside the plan: benchmarks/decode.py calls it."""

from __future__ import annotations

import json
import sys
import time

import torch

from fourbit import kernels
from fourbit.llm.engine import Engine
from fourbit.llm.plan import plan_file
from fourbit.measure.memory import peak_resident, resident


def main() -> None:
    path, context, kv, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    kernels.load(threads=threads)
    planned = plan_file(path, context, kv, baseline=resident())
    engine = Engine.open(path, context=context, threads=threads, kv=kv)
    tokens = torch.randint(3, engine.config.vocabulary, (context,), generator=torch.Generator().manual_seed(0)).tolist()
    began = time.perf_counter()
    engine.forward(tokens)
    seconds = time.perf_counter() - began
    parts = {part: getattr(planned, part) for part in ("weights", "kv_cache", "activations", "overhead", "total")}
    found = {"kv": kv, "peak": peak_resident(), "plan": parts, "ratio": peak_resident() / planned.total}
    print(json.dumps(found | {"prefill_tokens_per_second": context / seconds, "threads": threads}))


if __name__ == "__main__":
    main()
