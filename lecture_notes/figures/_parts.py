"""What scripts share that measure a chapter part by part: each part goes into the file as soon as it is known."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

MACHINE = f"{platform.machine()}, one thread"


def measure(
    parts: Mapping[str, Callable[..., Any]],
    target: Path,
    about: Mapping[str, Any],
    description: str,
    prepare: Callable[[], tuple[Any, ...]] = tuple,
    later: Collection[str] = (),
    indent: int | None = None,
) -> None:
    """Measure the parts that the command line names, or all, on one thread, and say how long each took.

    Args:
        about: what is stored beside the parts, PyTorch's version aside: checkpoints, seeds.
        prepare: makes what every part is given.
        later: parts that take long; without a name they are measured only with --full.
        indent: of the file.
    """
    parser = argparse.ArgumentParser(description=description)
    all_but = f" but {', '.join(later)}" if later else ""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all{all_but})")
    if later:
        parser.add_argument("--full", action="store_true", help=f"{', '.join(later)} as well")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    given = prepare()
    for part in chosen.parts or [part for part in parts if part not in later or chosen.full]:
        start = time.process_time()
        store(target, part, parts[part](*given), about, indent)
        print(f"{part}: {time.process_time() - start:.0f} s", flush=True)


def store(target: Path, part: str, value: Any, about: Mapping[str, Any], indent: int | None) -> None:
    """Put a part into the file, whatever else has been put there in the meantime."""
    results: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    results |= {**about, "torch": torch.__version__, part: value}
    target.write_text(json.dumps(results, indent=indent) + "\n", encoding="utf-8")
