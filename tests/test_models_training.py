"""Training and evaluation: determinism, augmentation, hooks, and runs that cannot go on."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fourbit.data import Dataset, Split, load
from fourbit.errors import FourbitError
from fourbit.models import CHECKPOINTS, build, cached_logits, load_checkpoint
from fourbit.recipes import students
from fourbit.threads import use_threads
from fourbit.training import Batch, TrainingError, augment, evaluate, fit, predict_logits, seed_everything


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    return load("fashion-20k")


def digest(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def trained(split: Split, seed: int = 0, **options: object) -> nn.Sequential:
    model = build("S5", seed=0)
    fit(model, split, epochs=1, seed=seed, **options)  # type: ignore[arg-type]
    return model


def test_the_same_seed_gives_the_same_bits_whatever_else_draws_random_numbers(fashion: Dataset) -> None:
    first = trained(fashion.train[:512], pad=1)
    torch.rand(17)
    assert digest(trained(fashion.train[:512], pad=1)) == digest(first)
    assert digest(trained(fashion.train[:512], pad=1, seed=1)) != digest(first)


def test_training_leaves_the_global_generator_and_the_images_alone(fashion: Dataset) -> None:
    state, before = torch.get_rng_state(), fashion.train.x[:256].clone()
    trained(fashion.train[:256], pad=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(fashion.train.x[:256], before)


def test_a_small_network_learns(fashion: Dataset) -> None:
    model, epochs = build("S5", seed=0), []
    run = fit(model, fashion.train[:4096], epochs=2, after_epoch=lambda epoch, loss: epochs.append((epoch, loss)))
    assert run.steps == 64
    assert epochs == list(enumerate(run.losses, 1))
    assert run.losses[1] < run.losses[0]
    assert evaluate(model, fashion.val) > 0.6
    assert not any(layer.training for layer in model.modules())
    assert all(p.is_contiguous() and p.requires_grad for p in model.parameters())


def test_what_a_step_hook_sets_to_zero_stays_zero(fashion: Dataset) -> None:
    model = load_checkpoint("s5")
    mask = model.fc1.weight.abs() > model.fc1.weight.abs().median()

    @torch.no_grad()
    def prune(network: nn.Module) -> None:
        network.get_submodule("fc1").weight.mul_(mask)  # type: ignore[operator,union-attr]

    fit(model, fashion.train[:1024], epochs=1, lr=0.01, after_step=prune)
    assert torch.equal(model.fc1.weight != 0, mask)


def test_frozen_parameters_stay_as_they_are(fashion: Dataset) -> None:
    model = load_checkpoint("s5")
    model.conv0.weight.requires_grad_(False)
    frozen, free = model.conv0.weight.clone(), model.fc2.weight.clone()
    fit(model, fashion.train[:256], epochs=1)
    assert torch.equal(model.conv0.weight, frozen)
    assert not torch.equal(model.fc2.weight, free)


def test_a_distillation_loss_finds_the_teachers_logits_of_each_image(fashion: Dataset) -> None:
    teacher, logits, worst = load_checkpoint("teacher60"), cached_logits("teacher60").train, []

    def distill(output: torch.Tensor, batch: Batch) -> torch.Tensor:
        soft = logits[batch.index, batch.flipped.long()]
        with torch.no_grad():
            worst.append(float((teacher(batch.x) - soft).abs().max()))
        assert torch.equal(batch.y, fashion.train.y[batch.index])
        return F.kl_div(output.log_softmax(1), soft.softmax(1), reduction="batchmean")

    fit(build("S5", seed=0), fashion.train[:256], epochs=1, loss=distill)
    assert max(worst) < 0.05  # half precision of logits up to about 30, and channels_last against contiguous sums


def test_augmentation_mirrors_about_half_and_shifts_by_at_most_pad() -> None:
    x = torch.randint(1, 256, (400, 2, 6, 5), dtype=torch.uint8)
    same, flipped = augment(x, torch.Generator().manual_seed(0), flip=False, pad=0)
    assert torch.equal(same, x)
    assert not flipped.any()
    mirrored, flipped = augment(x, torch.Generator().manual_seed(0), flip=True, pad=0)
    assert 150 < int(flipped.sum()) < 250
    assert torch.equal(mirrored[flipped], x[flipped].flip(3))
    assert torch.equal(mirrored[~flipped], x[~flipped])
    shifted, _ = augment(x, torch.Generator().manual_seed(0), flip=False, pad=1)
    padded, found = F.pad(x, (1, 1, 1, 1)), set()
    for image, source in zip(shifted, padded, strict=True):
        places = [(r, c) for r in range(3) for c in range(3) if torch.equal(source[:, r : r + 6, c : c + 5], image)]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 9


def test_few_images_make_one_smaller_batch_and_none_is_refused(fashion: Dataset) -> None:
    assert fit(build("S5"), fashion.train[:10], epochs=3).steps == 3
    for split, epochs in ((fashion.train[:0], 1), (fashion.train[:10], 0)):
        with pytest.raises(TrainingError, match="nothing to train"):
            fit(build("S5"), split, epochs=epochs)
    with pytest.raises(TrainingError, match="accuracy of no images"):
        evaluate(build("S5"), fashion.val[:0])


def test_a_run_that_diverges_stops_and_leaves_a_usable_module(fashion: Dataset) -> None:
    model = build("S5", seed=0)
    with pytest.raises(TrainingError, match="try a lower lr"):
        fit(model, fashion.train[:256], epochs=2, loss=lambda logits, batch: logits.mean() * float("nan"))
    assert not model.training


def test_accuracy_and_logits_do_not_depend_on_the_batch_and_keep_modes(fashion: Dataset) -> None:
    model = load_checkpoint("s5").train()
    assert evaluate(model, fashion.val[:700], batch=64) == evaluate(model, fashion.val[:700])
    assert model.training
    logits = predict_logits(model, fashion.val.x[:700])
    assert logits.shape == (700, 10)
    assert not logits.requires_grad
    assert evaluate(model, fashion.val[:700]) == int((logits.argmax(1) == fashion.val.y[:700]).sum()) / 700


def test_seed_everything_seeds_torch_and_returns_a_generator_of_that_seed() -> None:
    first = seed_everything(7)
    drawn = torch.rand(3), torch.rand(3, generator=first)
    second = seed_everything(7)
    assert torch.equal(torch.rand(3), drawn[0])
    assert torch.equal(torch.rand(3, generator=second), drawn[1])


THREADS = """
import importlib, os, torch
torch.set_num_threads(3)
os.environ.pop("FOURBIT_THREADS", None)
import fourbit.data
print(torch.get_num_threads())
os.environ["FOURBIT_THREADS"] = "2"
importlib.reload(fourbit.threads)
print(torch.get_num_threads())
os.environ["FOURBIT_THREADS"] = "many"
try:
    importlib.reload(fourbit.threads)
except Exception as error:
    print(error)
"""


def test_one_thread_unless_the_environment_says_otherwise() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    one, two, error = done.stdout.splitlines()
    assert (one, two) == ("1", "2")
    assert "FOURBIT_THREADS is 'many'; set it to a whole number" in error


def test_no_threads_at_all_are_refused() -> None:
    with pytest.raises(FourbitError, match="give 1 or more"):
        use_threads(0)


def test_a_recipe_writes_checkpoint_record_and_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    students.main(["--out", str(tmp_path), "--limit", "256"])
    assert "S5 trained on fashion-20k" in capsys.readouterr().out
    assert evaluate(load_checkpoint("s5", tmp_path), load("fashion-20k").val) > 0.05
    assert {path.name for path in tmp_path.iterdir()} == {
        "MANIFEST.json", "s5.json", "s5.safetensors", "s6.json", "s6.safetensors",
    }  # fmt: skip
    assert set(CHECKPOINTS) > {"s5", "s6"}
