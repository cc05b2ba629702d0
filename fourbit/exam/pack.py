"""The exam pack: an exam as data, and the properties that judge it.

A pack is a folder with `pack.safetensors` (inputs, expected outputs, the mistakes' outputs, names and
explanations: no code) and `properties.py` (what must hold, copied from the author's folder).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from fourbit.codec import decode, encode
from fourbit.errors import ExamError
from fourbit.exam.author import Property, Raised
from fourbit.exam.verdict import NamedMistake

VERSION = 1
PACK, PROPERTIES = "pack.safetensors", "properties.py"


@dataclass(frozen=True)
class PackedCase:
    """A case with the reference's outcome and those of the mistakes that differ from it."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tags: frozenset[str]
    seed: int
    expected: Any
    mistakes: Mapping[str, Any]
    changed: frozenset[str]

    def recorded(self, mistake: str) -> Any:
        """The outcome of a mistake on this case."""
        return self.mistakes.get(mistake, self.expected)

    def shows(self, mistake: str) -> bool:
        """Whether this case tells the mistake from the reference."""
        return mistake in self.mistakes or self.changed_by(mistake) != self.changed_by("")

    def changed_by(self, mistake: str) -> bool:
        """Whether the mistake changes an input of this case in place; the empty id asks about the reference."""
        return mistake in self.changed

    @cached_property
    def inputs(self) -> bytes:
        """The inputs as `fourbit.exam.call.answer` takes them; nothing of the expected outcome is among them."""
        return encode({"args": self.args, "kwargs": dict(self.kwargs), "seed": self.seed})


@dataclass(frozen=True)
class PackedRace:
    """A race as the grader's pack holds it: our cells as (name, source), which no student's pack has."""

    name: str
    args: tuple[Any, ...]
    each: list[tuple[Any, ...]]
    times: float
    weight: float
    apart: float
    cells: list[tuple[str, str]]


@dataclass(frozen=True)
class PackedExercise:
    name: str
    entry: str
    points: float
    difficulty: int
    seconds: float
    same_form: bool
    may_change_inputs: bool
    cases: tuple[PackedCase, ...]
    properties: tuple[Property, ...]
    mistakes: tuple[NamedMistake, ...]
    race: PackedRace | None = None


@dataclass(frozen=True)
class Pack:
    """The exam of one lab; `visible` tells the student's from the grader's."""

    lab: str
    visible: bool
    exercises: Mapping[str, PackedExercise]

    def __getitem__(self, name: str) -> PackedExercise:
        if name not in self.exercises:
            raise ExamError(f"lab {self.lab} has no exercise {name!r}; it has {', '.join(self.exercises)}")
        return self.exercises[name]


def load_pack(folder: Path | str) -> Pack:
    """Read the pack in `folder`; packs are cached until their file changes.

    Raises:
        ExamError: when a file is missing, damaged or of another version.
    """
    path = Path(folder).resolve() / PACK
    if not path.is_file():
        raise ExamError(f"no exam pack at {path}; open the notebook from its own lab folder, which holds exam/{PACK}")
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _load(path: Path, _modified: int) -> Pack:
    try:
        tree = decode(path.read_bytes())
    except Exception as error:
        raise ExamError(f"{path} is damaged ({error}); fetch the lab's exam folder again") from None
    if tree.get("version") != VERSION:
        raise ExamError(
            f"{path} is of version {tree.get('version')}, this Fourbit reads {VERSION}; update Fourbit or the lab"
        )
    module = load_module(path.with_name(PROPERTIES), f"fourbit_properties_{tree['lab']}")
    exercises = [_exercise(item, module) for item in tree["exercises"]]
    return Pack(tree["lab"], tree["visible"], {e.name: e for e in exercises})


def _exercise(item: Mapping[str, Any], module: ModuleType) -> PackedExercise:
    return PackedExercise(
        cases=tuple(_case(c) for c in item["cases"]),
        properties=tuple(_property(p, module) for p in item["properties"]),
        mistakes=tuple(NamedMistake(**m) for m in item["mistakes"]),
        race=PackedRace(**item["race"]) if "race" in item else None,
        **{k: item[k] for k in ("name", "entry", "points", "difficulty", "seconds", "same_form", "may_change_inputs")},
    )


def _case(item: Mapping[str, Any]) -> PackedCase:
    return PackedCase(
        name=item["name"],
        args=item["args"],
        kwargs=item["kwargs"],
        tags=frozenset(item["tags"]),
        seed=item["seed"],
        expected=unpack_output(item["expected"]),
        mistakes={key: unpack_output(value) for key, value in item["mistakes"].items()},
        changed=frozenset(item["changed"]),
    )


def _property(item: Mapping[str, Any], module: ModuleType) -> Property:
    holds: Callable[..., Any] = getattr(module, item["function"])
    if item["arguments"]:
        holds = partial(holds, **item["arguments"])
    tags = None if item["tags"] is None else frozenset(item["tags"])
    return Property(item["name"], holds, item["weight"], item["gate"], tags)


def pack_output(output: Any) -> Any:
    """An outcome as a value for the codec: exceptions become a marked pair."""
    return ("raised", output.type, output.message) if isinstance(output, Raised) else ("value", output)


def unpack_output(packed: tuple[Any, ...]) -> Any:
    return Raised(packed[1], packed[2]) if packed[0] == "raised" else packed[1]


def load_module(path: Path, name: str) -> ModuleType:
    """Import one file by path under `name`, without leaving bytecode beside it.

    Raises:
        ExamError: when the file is missing or does not import.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ExamError(f"{path} is missing; it belongs to the exam pack")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        source = path.read_text(encoding="utf-8")
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise ExamError(f"{path} does not import: {type(error).__name__}: {error}") from error
    return module
