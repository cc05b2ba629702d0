"""What the chapter on long context measures with: bounded caches, page bounds, and the explorable's data."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fourbit.llm.catalog import find
from fourbit.llm.config import LlmConfig
from fourbit.llm.model import Transformer
from tests.llm_fixtures import pocket as pocket_path
from tests.scripts import load_script

__all__ = ["pocket_path"]

TINY = LlmConfig("llama", 3, 32, 64, 4, 2, 8, 50, 1e4, 1e-5, True, False, 128)


@pytest.fixture(scope="module")
def figures(root: Path) -> Iterator[Path]:
    folder = root / "lecture_notes" / "figures"
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def streaming(figures: Path) -> ModuleType:
    return load_script(figures / "_streaming.py")


@pytest.fixture(scope="module")
def chapter(figures: Path, streaming: ModuleType) -> ModuleType:
    return load_script(figures / "measure_long_context.py")


@pytest.fixture(scope="module")
def exports(root: Path, chapter: ModuleType) -> ModuleType:
    return load_script(root / "site" / "exports_attention.py")


@pytest.fixture(scope="module")
def stored(figures: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((figures / "long_context.json").read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A random model whose heads are far from uniform."""
    torch.manual_seed(0)
    model = Transformer(TINY).eval().requires_grad_(False)
    for layer in model.layers:
        for name in ("q_proj", "k_proj"):
            layer.self_attn.get_submodule(name).weight.mul_(4)
    return model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(TINY.vocabulary, (2, 96), generator=torch.Generator().manual_seed(1))


def reference(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    logs = model(tokens)[:, :-1].log_softmax(-1)
    return -logs.gather(2, tokens[:, 1:, None])[..., 0]


@pytest.mark.parametrize("cache_places", [False, True])
def test_a_stream_that_keeps_everything_is_the_model(
    streaming: ModuleType, model: Transformer, tokens: torch.Tensor, cache_places: bool
) -> None:
    wanted = reference(model, tokens)
    for chunk in (1, 32, 96):
        losses = streaming.Stream(model, cache_places=cache_places).losses(tokens, chunk)
        assert torch.allclose(losses, wanted, atol=1e-4)
    roomy = streaming.Stream(model, streaming.sinks(4), 96, cache_places=cache_places).losses(tokens)
    assert torch.allclose(roomy, wanted, atol=1e-4)


def test_a_window_is_the_model_with_a_banded_mask(streaming: ModuleType, tokens: torch.Tensor) -> None:
    """One layer, one token at a time: what a window of 16 sees is what a reading of these 16 tokens alone sees."""
    torch.manual_seed(0)
    config = LlmConfig("llama", 1, 32, 64, 4, 2, 8, 50, 1e4, 1e-5, True, False, 128)
    model = Transformer(config).eval().requires_grad_(False)
    losses = streaming.Stream(model, streaming.sinks(0), 16).losses(tokens, 1)
    for end in (20, 50, 94):
        alone = reference(model, tokens[:, end - 15 : end + 2])[:, -1]
        assert torch.allclose(losses[:, end], alone, atol=1e-4)


def test_places_in_the_cache_change_nothing_within_a_window(
    streaming: ModuleType, model: Transformer, tokens: torch.Tensor
) -> None:
    by_text, by_cache = (
        streaming.Stream(model, streaming.sinks(0), 64, cache_places=where).losses(tokens) for where in (False, True)
    )
    assert torch.allclose(by_text, by_cache, atol=1e-4)
    with_sinks = streaming.Stream(model, streaming.sinks(4), 64, cache_places=True).losses(tokens)
    assert not torch.allclose(by_cache, with_sinks, atol=1e-2)


def test_policies_keep_what_they_promise(streaming: ModuleType) -> None:
    mass = torch.rand(2, 3, 20, generator=torch.Generator().manual_seed(2))
    slots = streaming.Slots(torch.zeros(2, 3, 20, 8), torch.zeros(2, 3, 20, 8), torch.zeros(2, 3, 20), mass)
    assert streaming.sinks(2)(slots, 8)[1, 2].tolist() == [0, 1, 14, 15, 16, 17, 18, 19]
    kept = streaming.heavy(slots, 8)
    for row, sums in zip(kept.flatten(0, 1).tolist(), mass.flatten(0, 1).tolist(), strict=True):
        assert row == sorted(row)
        assert row[4:] == [16, 17, 18, 19]
        assert min(sums[i] for i in row[:4]) >= max(sums[i] for i in range(16) if i not in row)


def test_no_score_of_a_page_exceeds_its_bound(streaming: ModuleType) -> None:
    draw = torch.Generator().manual_seed(3)
    query, keys = torch.randn(3, 5, 8, generator=draw), torch.randn(3, 64, 8, generator=draw)
    scores = (query @ keys.transpose(1, 2)).unflatten(-1, (-1, streaming.PAGE)).amax(-1)
    bounds = streaming.page_bounds(query, keys)
    assert (bounds >= scores - 1e-5).all()
    assert (bounds < scores + 20).all()
    same = keys[:, :1].expand(-1, streaming.PAGE, -1)  # all keys of a page alike: the bound is the score
    assert torch.allclose(streaming.page_bounds(query, same), query @ same[:, :1].transpose(1, 2), atol=1e-5)


def test_selected_pages_fill_the_budget(streaming: ModuleType) -> None:
    draw = torch.Generator().manual_seed(4)
    for n, new in ((112, 32), (109, 13), (60, 4)):
        seen = streaming.quest(64)(torch.randn(1, 2, new, 8, generator=draw), torch.randn(1, 2, n, 8, generator=draw))
        assert seen[..., -new:].all()
        read = seen.sum(-1)
        assert ((read <= 64) & (read > 64 - streaming.PAGE)).all() if n > 64 else (read == n).all()


def test_codes_of_a_row_sum_to_all_levels(exports: ModuleType) -> None:
    maps = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64).pow(8).tril()
    maps = maps / maps.sum(-1, keepdim=True)
    codes = exports.coded(maps)
    assert (codes.sum(-1, dtype=torch.int64) == exports.LEVELS).all()
    assert ((codes.double() / exports.LEVELS - maps).abs() <= 1 / exports.LEVELS).all()


def test_lost_attention_is_that_of_the_keys_outside(exports: ModuleType) -> None:
    maps = torch.eye(6).cumsum(0)  # every token gives 1 to each token up to its own
    assert exports.lost(maps, 0, 2).tolist() == [0, 0, 1, 2, 3, 4]
    assert exports.lost(maps, 1, 2).tolist() == [0, 0, 0, 1, 2, 3]


def test_the_committed_attention_is_the_models(exports: ModuleType, pocket_path: Path) -> None:
    assert exports.stale() == [], "run: python site/exports_attention.py"


def test_the_chapter_reports_the_model_that_is_fetched(chapter: ModuleType, stored: dict[str, Any]) -> None:
    said = "run: python lecture_notes/figures/measure_long_context.py"
    assert stored["checkpoint"] == find("smollm2").files[0].sha256, said
    assert set(stored) >= set(chapter.PARTS)
    assert stored["pages"]["slack"] > -1e-4  # no score of any page was above its bound


def test_a_window_needs_the_first_token(chapter: ModuleType, pocket_path: Path) -> None:
    """On one passage: the window alone costs much, the same window with the first token in it little."""
    pocket = chapter.Pocket.load(pocket_path)
    row = torch.tensor([pocket.tokens[40_000:40_224]])
    with torch.no_grad():
        losses = {
            name: float(pocket.stream(*given, **more).losses(row)[:, 128:].mean())
            for name, given, more in (
                ("dense", (), {}),
                ("window", (chapter.sinks(0), 96), {}),
                ("one", (chapter.sinks(1), 96), {"cache_places": True}),
            )
        }
    assert losses["window"] > losses["dense"] + 0.4
    assert losses["one"] < losses["dense"] + 0.25
