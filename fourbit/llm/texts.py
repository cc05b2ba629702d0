"""Three novels by Jane Austen, in the public domain: one to calibrate on, one to evaluate on, one for hidden exams.

A model has certainly seen them in training, so their perplexity says little about *it*. It says how much a *change* of
the model costs, which is what they are for. No two uses share a novel.
"""

from __future__ import annotations

import lzma
from functools import lru_cache

from fourbit.data.assets import read_asset
from fourbit.errors import DataError

NOVELS = {  # our name -> the recipe's source, title
    "northanger-abbey": ("northangerabbey", "Northanger Abbey"),
    "persuasion": ("persuasion", "Persuasion"),
    "sense-and-sensibility": ("sensesensibility", "Sense and Sensibility"),
}
CALIBRATION, EVALUATION, HIDDEN = NOVELS


@lru_cache(maxsize=3)
def novel(name: str) -> str:
    """Return a novel's text, a paragraph to a line and an empty line between two.

    Raises:
        DataError: for another name, or when the file is missing or damaged.
    """
    if name not in NOVELS:
        raise DataError(f"no text is called {name!r}; the texts are {', '.join(NOVELS)}")
    return lzma.decompress(read_asset(name)).decode("utf-8")
