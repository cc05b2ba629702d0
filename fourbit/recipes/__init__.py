"""Commands that make the files in ``fourbit/assets``: ``python -m fourbit.recipes.fashion20k`` and its neighbors."""
