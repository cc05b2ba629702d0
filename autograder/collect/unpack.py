"""One attempt's files as the student meant them: archives opened, wrappers taken off, everything within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from autograder.collect.archives import MAX_ENTRIES, Member, Refusal, is_archive, list_tar, list_zip
from autograder.collect.paths import RefusedError, check_portable, is_junk, shown
from autograder.reading.untrusted import SKIPPED_FOLDERS, Caps

TIMESTAMP = "timestamp.txt"  # nbgrader reads the time of submission from it
_STAMP_SIZE = 64  # bytes that it can take
_NOTES = 20  # of one kind or another, for one attempt
_NESTED = 3  # an archive in an archive in an archive, and no further
_OTHER_ARCHIVES = (".rar", ".7z", ".gz", ".bz2", ".xz")
_NOTEBOOK = re.compile(r"\.ipynb(\.(txt|json))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Unpacked:
    """The files of one attempt by path, what was noticed, and the newest time that came with them."""

    files: dict[str, bytes]
    notes: tuple[str, ...]
    seen: datetime | None


def is_notebook(name: str) -> bool:
    """Whether a file is called like a notebook, or like what browsers make of one."""
    return bool(_NOTEBOOK.search(name))


def unpack(members: Sequence[Member], names: Sequence[str], assignment: str, caps: Caps) -> Unpacked:
    """Read the files of one attempt.

    Args:
        names: what the assignment's notebooks are called, without their ending.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        found = _Opener(caps, notes, stack).open(list(members))
        found = [member for member in found if not is_junk(member.parts) and not SKIPPED_FOLDERS & {*member.parts[:-1]}]
        found = _without_wrappers(found, assignment, notes)
        found = _one_each(_renamed(found, names), names, notes)
        files = _read(found, caps, notes)
        seen = max((member.seen for member in found if member.seen), default=None)
    for name in [name for name in files if name.casefold() == TIMESTAMP]:
        del files[name]
        notes.append(f"its {name} was left out: the student's side wrote it")
    if len(notes) > _NOTES:
        notes[_NOTES:] = [f"and {len(notes) - _NOTES:,} more of the kind"]
    return Unpacked(files, tuple(notes), seen)


@dataclass
class _Opener:
    """Opens a student's archives within one budget of bytes and entries for all of them together."""

    caps: Caps
    notes: list[str]
    stack: ExitStack
    spent: int = 0

    def open(self, members: list[Member]) -> list[Member]:
        """Put the contents of archives in their place, as long as there is no notebook: beside one they are data."""
        for depth in range(_NESTED + 1):
            archives = [member for member in members if is_archive(member.parts[-1])]
            if any(is_notebook(member.name) for member in members) or not archives:
                break
            if depth == _NESTED:
                self.notes.append(f"archives inside archives were opened {_NESTED} deep and no further")
                break
            members = [member for member in members if not is_archive(member.parts[-1])]
            for archive in archives:
                # Several archives keep apart what is in them; one is only a wrapper.
                above = archive.parts[:-1] if len(archives) == 1 else (*archive.parts[:-1], archive.parts[-1] + ".d")
                members += [replace(m, parts=(*above, *m.parts), seen=archive.seen) for m in self._contents(archive)]
                if len(members) > MAX_ENTRIES:
                    self.notes.append(f"its archives hold more than {MAX_ENTRIES:,} files; the rest was left out")
                    return members[:MAX_ENTRIES]
        for member in members:
            if member.parts[-1].casefold().endswith(_OTHER_ARCHIVES) and not is_archive(member.parts[-1]):
                self.notes.append(f"{shown(member.name)}: cannot be opened here; ask for a zip")
        return members

    def _contents(self, archive: Member) -> Sequence[Member]:
        try:
            left = 2 * self.caps.total - self.spent
            data = archive.read(min(self.caps.total, left))
            self.spent += len(data)
            if archive.parts[-1].casefold().endswith(".zip"):
                listing, opened = list_zip(data)
                self.stack.callback(opened.close)
            else:
                listing, size = list_tar(data, min(self.caps.total, left))
                self.spent += size
        except RefusedError as error:
            self.notes.append(str(Refusal(archive.name, str(error))))
            return ()
        self.notes += [str(refusal) for refusal in listing.refused[: _NOTES + 1]]
        return listing.members


def _without_wrappers(members: list[Member], assignment: str, notes: list[str]) -> list[Member]:
    """Take off folders that everything lies in, and nbgrader's folder of the assignment."""
    while members and all(len(member.parts) > 1 for member in members):
        tops = {member.parts[0] for member in members}
        if len(tops) == 1:
            members = [member.below() for member in members]
        elif assignment in tops and not any(is_notebook(m.name) for m in members if m.parts[0] != assignment):
            left = sorted(tops - {assignment})
            notes.append(
                f"only its folder {assignment}/ was taken, and not {', '.join(shown(top) for top in left[:5])}"
            )
            members = [member.below() for member in members if member.parts[0] == assignment]
        else:
            break
    return members


def _renamed(members: list[Member], names: Sequence[str]) -> list[Member]:
    """Undo the number that Canvas and browsers put behind the name of a file that was handed in again."""
    there = {member.name for member in members}
    renamed = []
    for member in members:
        found = re.fullmatch(r"(.+?)(?:-\d+| ?\(\d+\))(\.ipynb)", member.parts[-1], re.IGNORECASE)
        wanted = (*member.parts[:-1], f"{found[1]}.ipynb") if found else ()
        if found and found[1] in names and "/".join(wanted) not in there:
            there.add("/".join(wanted))
            member = replace(member, parts=wanted)
        renamed.append(member)
    return renamed


def _one_each(members: Iterable[Member], names: Sequence[str], notes: list[str]) -> list[Member]:
    """Keep one file of each name, and no file where a folder has to be.

    Names that differ in case only are the same: on many machines one would overwrite the other.
    """
    expected = {f"{name}.ipynb" for name in names}
    kept: dict[str, Member] = {}
    for member in members:
        key = member.name.casefold()
        other = kept.get(key)
        if other is None or member.name in expected or other.name not in expected:
            kept[key] = member
        if other is not None:
            both = f"{shown(member.name)} is there twice"
            if member.name != other.name:
                both = f"{shown(other.name)} and {shown(member.name)} differ in case only"
            notes.append(
                f"{both}; {shown(kept[key].name)} was taken{', the last of them' if kept[key] is member else ''}"
            )
    folders = {"/".join(m.parts[:depth]).casefold() for m in kept.values() for depth in range(1, len(m.parts))}
    for key in [key for key in kept if key in folders]:
        notes.append(f"{shown(kept[key].name)} was left out: a folder has the same name")
        del kept[key]
    return list(kept.values())


def _read(members: Sequence[Member], caps: Caps, notes: list[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    notebooks_first = sorted(members, key=lambda member: not is_notebook(member.name))
    for member in notebooks_first:
        if len(member.parts) > caps.depth:
            notes.append(str(Refusal(member.name, f"it lies more than {caps.depth} folders deep")))
            continue
        if len(files) >= caps.files - 1:  # a time stamp will be added
            notes.append(f"only {len(files)} files were taken, notebooks first; there were {len(members):,}")
            break
        limit = min(caps.notebook if member.name.endswith(".ipynb") else caps.file, caps.total - _STAMP_SIZE - total)
        try:
            check_portable(member.parts)
            data = member.read(limit)
        except RefusedError as error:
            notes.append(str(Refusal(member.name, str(error))))
            continue
        files[member.name] = data
        total += len(data)
    return files
