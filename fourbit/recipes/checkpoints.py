"""What the recipes of the checkpoints share: train with a progress bar, measure, save, record."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save as save_tensors
from torch import nn

from fourbit import __version__
from fourbit.data import Dataset, load, to_float
from fourbit.data.assets import FOLDER, Asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.measure import total_macs
from fourbit.models.checkpoints import CheckpointRecord
from fourbit.models.zoo import build, count_parameters
from fourbit.training import TrainingRun, evaluate, fit

LICENSE = "Apache-2.0; trained on Fashion-MNIST (MIT)"
LICENSE_FILE = "LICENSE-checkpoints.txt"


@dataclass(frozen=True)
class Spec:
    """What to train on which data, with the settings of :func:`fourbit.training.fit`."""

    name: str
    network: str
    data: str
    epochs: int
    recipe: str
    lr: float = 0.1
    pad: int = 0
    seed: int = 0
    chosen_on_val: str = "nothing"


def make(spec: Spec, out: Path, *, limit: int | None = None) -> tuple[nn.Sequential, CheckpointRecord]:
    """Train `spec`, write its checkpoint, record and manifest entry into `out`, and return the network.

    Args:
        limit: train on the first `limit` images only; for trying a recipe out.
    """
    dataset = load(spec.data)
    model = build(spec.network, seed=spec.seed)
    run = _train(model, dataset, spec, limit)
    record = _record(model, dataset, spec, run, len(dataset.train) if limit is None else limit)
    text = json.dumps(asdict(record), indent=2) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{spec.name}.json").write_text(text, encoding="utf-8", newline="\n")
    about = f"{spec.network} trained on {spec.data}, {100 * record.accuracy_test:.2f} % on its test images"
    save(model.state_dict(), spec.name, spec.recipe, about, out)
    print(f"{about} ({100 * record.accuracy_val:.2f} % on val), {record.cpu_seconds:.0f} CPU seconds")
    return model, record


def save(tensors: dict[str, torch.Tensor], name: str, recipe: str, about: str, out: Path) -> None:
    """Write `tensors` as ``<name>.safetensors`` into `out` and put it into the manifest there."""
    data = save_tensors({key: value.contiguous() for key, value in tensors.items()})
    write_atomically(out / f"{name}.safetensors", data)
    sha256 = hashlib.sha256(data).hexdigest()
    record_asset(Asset(name, f"{name}.safetensors", len(data), sha256, LICENSE, LICENSE_FILE, recipe, about), out)


def options(arguments: list[str] | None, description: str) -> argparse.Namespace:
    """Return the parsed options `out` and `limit` of a recipe."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="train on so many images only, to try the recipe out")
    return parser.parse_args(arguments)


def _train(model: nn.Sequential, dataset: Dataset, spec: Spec, limit: int | None) -> TrainingRun:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(f"Training {spec.name}", total=spec.epochs)

        def show(epoch: int, loss: float) -> None:
            bar.update(task, completed=epoch, description=f"Training {spec.name}, loss {loss:.3f}")

        return fit(
            model, dataset.train[:limit], epochs=spec.epochs, lr=spec.lr, seed=spec.seed, pad=spec.pad, after_epoch=show
        )


def _record(model: nn.Sequential, dataset: Dataset, spec: Spec, run: TrainingRun, images: int) -> CheckpointRecord:
    return CheckpointRecord(
        name=spec.name,
        network=spec.network,
        data=spec.data,
        images=images,
        epochs=spec.epochs,
        lr=spec.lr,
        pad=spec.pad,
        seed=spec.seed,
        parameters=count_parameters(model),
        macs=total_macs(model, to_float(dataset.val.x[:1])),
        accuracy_val=evaluate(model, dataset.val),
        accuracy_test=evaluate(model, dataset.test),
        cpu_seconds=round(run.cpu_seconds, 1),
        chosen_on_val=spec.chosen_on_val,
        versions={
            "fourbit": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
            "machine": platform.machine(),
            "threads": str(torch.get_num_threads()),
        },
    )
