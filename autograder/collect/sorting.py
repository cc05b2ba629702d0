"""From files and folders to pieces that each belong to somebody, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path

from autograder.collect.archives import (
    MAX_ENTRIES,
    Listing,
    Member,
    is_archive,
    list_file,
    list_folder,
    list_tar,
    list_zip,
)
from autograder.collect.layouts import (
    Claim,
    classroom_names,
    is_gradescope_file,
    plain_name,
    read_gradescope,
    read_name,
    read_pattern,
)
from autograder.collect.paths import RefusedError, safe_parts, shown
from autograder.collect.roster import Roster
from autograder.results import GradingError

_METADATA = 256 * 2**20  # bytes; Gradescope writes all results of a class into it
_CLASS_TAR = 2**30


@dataclass(frozen=True)
class Piece:
    """Files that belong to one attempt, or are a part of it.

    Attributes:
        source: which of the places that were named it is from.
        claims: readings of the name, the likeliest first.
        origin: where it was found, for people.
    """

    source: str
    claims: tuple[Claim, ...]
    members: tuple[Member, ...]
    origin: str


@dataclass(frozen=True)
class Left:
    """What was not taken, and why."""

    origin: str
    reason: str


@dataclass(frozen=True)
class Sorter:
    """Sorts what an instructor names for one assignment.

    Attributes:
        names: what the assignment's notebooks are called, without their ending.
        stack: keeps archives open until everything was read.
    """

    assignment: str
    names: Sequence[str]
    roster: Roster
    zone: tzinfo
    pattern: re.Pattern[str] | None
    stack: ExitStack

    def sort(self, places: Sequence[Path]) -> Iterator[Piece | Left]:
        """Yield the pieces of all `places`: archives, folders and single files.

        Raises:
            GradingError: when one of them is not there.
        """
        for place in places:
            if not place.exists():
                raise GradingError(f"there is no file or folder {place}; name an archive, a folder or a notebook")
            yield from self._place(str(place), place)

    def sort_downloads(self, folder: Path) -> Iterator[Piece | Left]:
        """Yield the pieces of a folder into which an instructor put downloads: archives of a class, and the rest."""
        listing = list_folder(folder)
        tops = [member.parts[0] for member in listing.members if len(member.parts) == 1]
        classes = {name for name in tops if is_archive(name) and not self._is_somebodys(name) and not self.pattern}
        for name in sorted(classes):
            yield from self._place(name, folder / name)
        rest = tuple(member for member in listing.members if member.parts[0] not in classes)
        yield from self._container(str(folder), Listing(rest, listing.refused), folder.name)

    def _place(self, source: str, place: Path) -> Iterator[Piece | Left]:
        if place.is_dir():
            listing = list_folder(place)
            if self._is_somebodys(place.name):
                yield self._piece(source, place.name, listing.members, place.name)
            else:
                yield from self._container(source, listing, place.name)
            return
        member = list_file(place)
        if not is_archive(place.name) or (self._is_somebodys(place.name) and not self.pattern):
            # Files of one folder belong together, named one by one or not.
            yield from self._container(str(place.parent), Listing((member,)), place.parent.name)
            return
        try:
            listing = self._open(place)
        except RefusedError as error:
            yield Left(place.name, f"{error}")
            return
        if self._is_one_submission(listing) and not self.pattern:
            yield from self._child(source, place.name, (member,), "")
        else:
            yield from self._container(source, listing, place.name)

    def _open(self, place: Path) -> Listing:
        """List the archive of a class."""
        if not place.is_file():
            raise RefusedError("it is not a file (a pipe, device or socket)")
        if place.name.casefold().endswith(".zip"):
            listing, opened = list_zip(place, 10 * MAX_ENTRIES)
            self.stack.callback(opened.close)
            return listing
        return list_tar(list_file(place).read(_CLASS_TAR), _CLASS_TAR)[0]

    def _container(self, source: str, listing: Listing, origin: str) -> Iterator[Piece | Left]:
        """Sort what holds the work of several people."""
        for refusal in listing.refused:
            yield Left(f"{origin}: {shown(refusal.name)}", refusal.reason)
        members = listing.members
        if self.pattern:
            yield from self._by_pattern(source, members, origin)
            return
        while wrapper := self._wrapper(members):
            members, origin = tuple(member.below() for member in members), f"{origin}/{wrapper}"
        children: dict[str, list[Member]] = {}
        for member in members:
            children.setdefault(member.parts[0], []).append(member)
        described = self._described(members)
        folders = [name for name, inside in children.items() if len(inside[0].parts) > 1]
        named = classroom_names(folders, self.assignment)
        for name, inside in children.items():
            if described and (is_gradescope_file(name) or name in described):
                for claim in described.get(name, ()):
                    yield Piece(source, (claim,), _below(inside), f"{origin}: {shown(name)}")
            elif name in named and not self._is_somebodys(name):
                yield Piece(source, (named[name],), _below(inside), f"{origin}: {shown(name)}")
            else:
                yield from self._child(source, name, inside, origin)

    def _child(self, source: str, name: str, inside: Sequence[Member], origin: str) -> Iterator[Piece | Left]:
        """Sort a file or folder by its own name."""
        where = f"{origin}: {shown(name)}" if origin else shown(name)
        is_file = len(inside[0].parts) == 1
        stem = re.sub(r"\.ipynb$", "", name, flags=re.IGNORECASE)
        if is_file and not read_name(name, self.assignment, self.zone):
            if not (stem != name or is_archive(name)):
                yield Left(where, "it is neither a notebook nor an archive, and its name says of nobody's")
                return
            if stem in self.names:
                yield Left(
                    where, "whose it is cannot be told; rename it STUDENT.ipynb, or put it into a folder STUDENT/"
                )
                return
        yield self._piece(source, name, inside if is_file else _below(inside), where)

    def _piece(self, source: str, name: str, members: Sequence[Member], origin: str) -> Piece:
        claims = read_name(name, self.assignment, self.zone) or (plain_name(name),)
        return Piece(source, claims, tuple(members), origin)

    def _by_pattern(self, source: str, members: Sequence[Member], origin: str) -> Iterator[Piece | Left]:
        assert self.pattern is not None
        for member in members:
            claim = read_pattern(self.pattern, member.name, self.zone)
            if claim is None:
                yield Left(f"{origin}: {shown(member.name)}", "the pattern does not match its name")
            else:
                only = replace(member, parts=member.parts[-1:])
                yield Piece(source, (claim,), (only,), f"{origin}: {shown(member.name)}")

    def _is_somebodys(self, name: str) -> bool:
        """Whether a name by itself says whose a thing is."""
        if read_name(name, self.assignment, self.zone):
            return True
        return bool(self.roster.students) and bool(self.roster.tell((plain_name(name),))[0].student)

    def _is_one_submission(self, listing: Listing) -> bool:
        """Whether an archive holds the assignment's notebook itself, and not the work of several people."""
        wanted = {f"{name}.ipynb" for name in self.names}
        inside = {member.name for member in listing.members}
        tops = {member.parts[0] for member in listing.members}
        return bool(wanted & inside) or (len(tops) == 1 and bool(tops & {self.assignment, *self.names}))

    def _wrapper(self, members: Sequence[Member]) -> str:
        """Return the folder that only holds the others together, as many exports have it; "" when there is none."""
        tops = {member.parts[0] for member in members}
        if len(tops) != 1 or any(len(member.parts) < 2 for member in members):
            return ""
        top = next(iter(tops))
        inside = {member.parts[1] for member in members}
        holds_notebook = any(f"{name}.ipynb" in inside for name in self.names)
        if self._is_somebodys(top) or holds_notebook or (len(inside) < 2 and not self.roster.students):
            return ""
        return top

    def _described(self, members: Sequence[Member]) -> dict[str, list[Claim]]:
        """Return what Gradescope's own file says about the folders beside it."""
        for member in members:
            if len(member.parts) == 1 and is_gradescope_file(member.parts[0]):
                try:
                    return read_gradescope(member.read(_METADATA), self.zone)
                except RefusedError:
                    return {}
        return {}


def file_parts(claim: Claim, member: Member, names: Sequence[str]) -> tuple[str, ...]:
    """Return the path of a file inside its attempt, by the student's own name for it.

    Raises:
        RefusedError: for a name that cannot be used.
    """
    if claim.file:
        return safe_parts(claim.file)
    if claim.layout == "called like the student" and member.name.casefold().endswith(".ipynb") and len(names) == 1:
        return (f"{names[0]}.ipynb",) if len(member.parts) == 1 else member.parts
    return member.parts


def _below(members: Sequence[Member]) -> tuple[Member, ...]:
    return tuple(member.below() for member in members)
