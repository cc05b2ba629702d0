"""The reference networks and their checkpoints: layout, counts, damage, and the accuracy that their records state."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from fourbit import codec
from fourbit.data import Dataset, load, to_float
from fourbit.data.assets import FOLDER, find_asset, record_asset
from fourbit.errors import DataError, FourbitError
from fourbit.measure import total_macs
from fourbit.models import (
    CHECKPOINTS,
    PLANS,
    build,
    cached_logits,
    checkpoint_record,
    count_parameters,
    evaluating,
    load_checkpoint,
)
from fourbit.training import evaluate, predict_logits


@pytest.fixture(scope="module")
def fashion() -> Dataset:
    return load("fashion-20k")


# -- networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("T4", 436_906, 5_533_312), ("S6", 42_506, 1_241_920), ("S5", 4_988, 224_728), ("S3", 1_702, 120_112)],
)
def test_parameters_and_macs(name: str, parameters: int, macs: int) -> None:
    model = build(name)
    assert (count_parameters(model), total_macs(model, torch.zeros(1, 1, 28, 28))) == (parameters, macs)


def test_layers_have_the_names_of_their_places() -> None:
    assert " ".join(name for name, _ in build("T4").named_children()) == (
        "conv0 bn0 relu0 conv1 bn1 relu1 pool2 conv3 bn3 relu3 conv4 bn4 relu4 pool5 conv6 bn6 relu6 "
        "flatten fc1 fc1_relu fc2"
    )
    assert [name for name, _ in build("S3").named_children()][-3:] == ["pool4", "flatten", "fc2"]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 100), (3, 33, 2)])
def test_networks_fit_other_images(name: str, channels: int, size: int, classes: int) -> None:
    model = build(name, channels, size, classes)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, classes)


@pytest.mark.parametrize("name", PLANS)
def test_networks_travel_through_the_codec(name: str) -> None:
    model = build(name, seed=1).eval()
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(codec.decode(codec.encode(model))(x), model(x))


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = build("S5", seed=3), build("S5", seed=3), build("S5", seed=4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.conv0.weight, second.conv0.weight)
    assert not torch.equal(first.conv0.weight, other.conv0.weight)


def test_unknown_networks_and_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(FourbitError, match="'T5'; the networks are T4, S6, S5, S3"):
        build("T5")
    with pytest.raises(FourbitError, match="use 8x8 or larger"):
        build("T4", size=6)
    assert build("T4", size=8).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_evaluating_gives_each_layer_its_own_mode_back() -> None:
    model = build("S5").train()
    model.bn0.eval()
    with evaluating(model):
        assert not any(layer.training for layer in model.modules())
    assert not model.bn0.training
    assert model.training
    assert model.bn1.training


# -- checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_reaches_what_its_record_says(name: str, fashion: Dataset) -> None:
    model, record = load_checkpoint(name), checkpoint_record(name)
    assert not any(layer.training for layer in model.modules())
    assert (count_parameters(model), total_macs(model, torch.zeros(1, 1, 28, 28))) == (record.parameters, record.macs)
    assert evaluate(model, fashion.val) == pytest.approx(record.accuracy_val, abs=0.005)
    # A quarter of the test images: 2,500 of 10,000, so the figure itself has a standard error of half a point.
    assert evaluate(model, fashion.test[::4]) == pytest.approx(record.accuracy_test, abs=0.02)


def test_the_records_are_good_enough_for_the_labs() -> None:
    accuracy = {name: checkpoint_record(name).accuracy_test for name in CHECKPOINTS}
    assert accuracy["teacher20"] > 0.895
    assert accuracy["teacher60"] > 0.92
    assert accuracy["s6"] > 0.885
    assert accuracy["s5"] > 0.865


def test_no_checkpoint_has_seen_more_than_its_train_split() -> None:
    assert {name: checkpoint_record(name).images for name in CHECKPOINTS} == {
        "teacher20": 18_000, "teacher60": 58_000, "s6": 18_000, "s5": 18_000,
    }  # fmt: skip


def test_each_call_returns_its_own_copy_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first = load_checkpoint("s5")
    with torch.no_grad():
        first.fc2.weight.zero_()
    assert load_checkpoint("s5").fc2.weight.any()
    assert torch.equal(torch.get_rng_state(), state)


def test_cached_logits_are_the_teachers_for_both_mirrorings(fashion: Dataset) -> None:
    logits, teacher = cached_logits("teacher60"), load_checkpoint("teacher60")
    assert logits.train.shape == (18_000, 2, 10)
    assert logits.val.shape == (2_000, 2, 10)
    assert logits.train.dtype == torch.float32
    for mirrored, x in enumerate((fashion.train.x[:100], fashion.train.x[:100].flip(3))):
        # float16 has 11 significant bits; another CPU may add a little.
        torch.testing.assert_close(logits.train[:100, mirrored], predict_logits(teacher, x), rtol=2e-3, atol=2e-3)
    accuracy = (logits.val[:, 0].argmax(1) == fashion.val.y).float().mean()
    assert float(accuracy) == pytest.approx(checkpoint_record("teacher60").accuracy_val, abs=0.005)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match="'teacher6'; there are teacher20, teacher60, s6, s5"):
        load_checkpoint("teacher6")
    with pytest.raises(DataError, match="'teacher20'; there are those of 'teacher60'"):
        cached_logits("teacher20")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with the checkpoint s5."""
    for file in ("MANIFEST.json", "s5.json", "s5.safetensors"):
        shutil.copy(FOLDER / file, tmp_path)
    return tmp_path


def test_a_damaged_checkpoint_is_refused(copied: Path) -> None:
    path = copied / "s5.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"s5\.safetensors is damaged"):
        load_checkpoint("s5", copied)
    path.unlink()
    with pytest.raises(DataError, match=r"s5\.safetensors cannot be read"):
        load_checkpoint("s5", copied)


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"name": "s5"})])
def test_a_damaged_record_is_refused(copied: Path, text: str) -> None:
    (copied / "s5.json").write_text(text)
    with pytest.raises(DataError, match=r"s5\.json cannot be read"):
        load_checkpoint("s5", copied)


@pytest.mark.parametrize("data", [b"no tensors", save({"conv0.weight": torch.zeros(6, 1, 3, 3)})])
def test_a_listed_file_that_holds_other_things_is_refused(copied: Path, data: bytes) -> None:
    (copied / "s5.safetensors").write_bytes(data)
    asset = replace(find_asset("s5", copied), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    record_asset(asset, copied)
    with pytest.raises(DataError, match="s5"):
        load_checkpoint("s5", copied)


def test_checkpoints_take_images_as_to_float_gives_them(fashion: Dataset) -> None:
    model: nn.Sequential = load_checkpoint("s5")
    with torch.no_grad():
        logits = model(to_float(fashion.val.x[:8]))
    torch.testing.assert_close(logits, predict_logits(model, fashion.val.x[:8]))
