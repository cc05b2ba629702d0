"""Classes that both processes have, because the instructor's text defines them: their objects cross by attributes."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from autograder.plain.kinds import tells_all


class Sharing:
    """A side of the codec; ``shared`` names the classes, "module:qualified name"."""

    namespace: dict[str, Any]
    shared: Collection[str] = ()

    def shared_name(self, value: Any) -> str:
        """The name of a value's class if its objects cross by attributes, or ""."""
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        known = name in self.shared and self.shared_class(name) is kind and tells_all(value)
        return name if known else ""

    def shared_class(self, name: str) -> type | None:
        """The class here that goes by a name, or None."""
        if name not in self.shared:
            return None
        module, _, path = name.partition(":")
        found = self.namespace.get(path) if module == "__main__" else getattr(sys.modules.get(module), path, None)
        return found if isinstance(found, type) else None
