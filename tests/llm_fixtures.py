"""The pocket model for tests, fetched once into the user's cache, and the models' shape in miniature."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fourbit.errors import ModelError
from fourbit.llm.registry import fetch_model


@pytest.fixture(scope="session")
def pocket() -> Path:
    """Path of the pocket GGUF. Where no source of it answers, the test is skipped on a laptop and fails in CI."""
    try:
        return fetch_model("smollm2", progress=False)
    except ModelError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
