"""Collecting an assignment: sort what was named, tell whose it is, keep every attempt, put the one that counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from autograder.collect.archives import Member
from autograder.collect.attempts import Attempt, Attempts, is_late
from autograder.collect.layouts import EXCHANGE, Claim
from autograder.collect.options import Options, downloads_folder, name_pattern, stated_time
from autograder.collect.paths import RefusedError, shown
from autograder.collect.receipts import receipts_path
from autograder.collect.records import Collected, Taken
from autograder.collect.roster import Roster, add_list, read_gradebook
from autograder.collect.sorting import Left, Piece, Sorter, file_parts
from autograder.collect.times import course_zone
from autograder.collect.unpack import Unpacked, is_notebook, unpack
from autograder.nbgrader_course import NbgraderCourse, open_course
from autograder.reading.notebook_files import holds_notebook
from autograder.reading.untrusted import Caps
from autograder.results import GradingError, plain

_SKEW = timedelta(minutes=5)  # between a student's clock and the exchange's


def collect(
    course_dir: Path | str, assignment: str, places: Sequence[Path] = (), options: Options | None = None
) -> Collected:
    """Collect what `places` hold for `assignment`: archives, folders, single files.

    Args:
        places: empty = what lies where ``nbgrader zip_collect`` looks, ``downloaded/<assignment>/archive``.

    Raises:
        GradingError: when nothing can be collected as asked; one broken file or archive is no reason.
    """
    options = options or Options()
    course = open_course(course_dir)
    source = course.require(assignment)
    names = sorted(path.stem for path in source.glob("*.ipynb"))
    zone = course_zone(course, options.zone)
    clock = _Clock(stated_time(options.deadline, zone, "--deadline"), stated_time(options.received, zone, "--received"))
    places = [Path(place).resolve() for place in places]
    archive = None if places else downloads_folder(course, assignment)
    roster = read_gradebook(course, assignment)
    for path in options.roster:
        add_list(roster, path, zone)
    with ExitStack() as stack, _lock(course, assignment, options.dry_run):
        sorter = Sorter(assignment, names, roster, zone, name_pattern(course, options.pattern), stack)
        run = _Collecting(course, assignment, names, roster, options, clock)
        run.gather(sorter.sort(places) if archive is None else sorter.sort_downloads(archive))
        run.keep()
        return run.finish()


@dataclass(frozen=True)
class _Clock:
    """What the instructor says about times (UTC)."""

    deadline: datetime | None
    received: datetime | None


@dataclass
class _Group:
    """The pieces of one attempt."""

    student: str
    how: str
    claim: Claim
    origin: str
    members: list[Member] = field(default_factory=list)
    accounts: set[str] = field(default_factory=set)


class _Collecting:
    """One run over what was named."""

    def __init__(
        self,
        course: NbgraderCourse,
        assignment: str,
        names: Sequence[str],
        roster: Roster,
        options: Options,
        clock: _Clock,
    ) -> None:
        self.course, self.assignment, self.names = course, assignment, names
        self.roster, self.options, self.clock = roster, options, clock
        self.attempts = Attempts(course, assignment, Caps(), dry=options.dry_run)
        self.groups: dict[tuple[object, ...], _Group] = {}
        self.taken: list[Taken] = []
        self.left: list[Left] = []
        self.notes: list[str] = []

    def gather(self, pieces: Iterable[Piece | Left]) -> None:
        """Put pieces together that belong to one attempt of one student."""
        aside = 0
        for piece in pieces:
            if isinstance(piece, Left):
                self.left.append(piece)
            elif piece.claims[0].aside:
                aside += 1
            else:
                self._add(piece)
        if aside:
            self.notes.append(f"{aside} files that only describe an attempt were passed over")

    def _add(self, piece: Piece) -> None:
        told, claim = self.roster.tell(piece.claims, new=self.options.new_students)
        problem = claim.problem or ("" if told.student else told.how)
        owners = {member.owner for member in piece.members if member.owner}
        if claim.layout == EXCHANGE and owners & (self.roster.students - {told.student}):
            problem = f"its name says {shown(told.student)}, but its files belong to {', '.join(sorted(owners))}"
        if problem:
            self.left.append(Left(piece.origin, problem))
            return
        whole = not claim.file and claim.layout != "by the pattern"
        apart = piece.origin if whole else ""
        key = (piece.source, claim.layout, told.student, claim.handles[0], claim.at, claim.order, apart)
        group = self.groups.setdefault(key, _Group(told.student, told.how, claim, piece.origin))
        group.accounts |= {value for kind, value in claim.handles if kind in ("lms", "participant")}
        for member in piece.members:
            try:
                group.members.append(replace(member, parts=file_parts(claim, member, self.names)))
            except RefusedError as error:
                self.left.append(Left(piece.origin, str(error)))

    def keep(self) -> None:
        """Keep each attempt; one that cannot be read or written is told and left."""
        self._leave_namesakes()
        found: set[str] = set()
        for group in sorted(self.groups.values(), key=_in_order):
            try:
                if group.student not in found:
                    found.add(group.student)
                    if self.attempts.keep_found(group.student) is not None:
                        self.notes.append(f"{group.student}: what lay in submitted/ before is kept as an attempt")
                self._keep(group)
            except (GradingError, OSError) as error:
                self.left.append(Left(group.origin, plain(error, 300)))

    def finish(self) -> Collected:
        """Put the attempt that counts of everybody into ``submitted/``."""
        new = {taken.student for taken in self.taken if taken.new}
        for student in sorted({taken.student for taken in self.taken}):
            try:
                self._put(student, student in new)
            except (GradingError, OSError) as error:
                self.left.append(Left(student, plain(error, 300)))
        there = {*self.course.submissions(self.assignment), *(taken.student for taken in self.taken)}
        return Collected(
            self.course.root,
            self.assignment,
            tuple(self._with_verdict(taken) for taken in sorted(self.taken, key=_by_student)),
            tuple(self.left),
            tuple(sorted(self.roster.students - there)),
            tuple(self.notes),
            self.options.dry_run,
        )

    def _keep(self, group: _Group) -> None:
        unpacked = unpack(group.members, self.names, self.assignment, Caps())
        if not unpacked.files:
            reason = unpacked.notes[0] if unpacked.notes else "there is no file in it"
            self.left.append(Left(group.origin, reason))
            return
        at, at_from, stated = self._time(group)
        now = datetime.now(UTC)
        deadline = self._deadline(group.student)
        early = deadline is not None and now <= deadline
        attempt = Attempt(
            group.student,
            unpacked.files,
            f"{group.claim.layout}, {group.origin}" + (f"; {at_from}" if at_from else ""),
            at,
            group.claim.late,
            None if group.claim.order else unpacked.seen,
            holds_notebook(unpacked.files, Caps()),
            stated,
            (now, "collected before the deadline") if early else None,
        )
        receipt, new = self.attempts.keep(attempt)
        notes, count = _notes(group, unpacked, attempt.readable), len(unpacked.files)
        self.taken.append(Taken(group.student, group.origin, group.how, receipt, new, count, notes=notes))

    def _deadline(self, student: str) -> datetime | None:
        return self.roster.deadline(student, self.clock.deadline)

    def _time(self, group: _Group) -> tuple[datetime | None, str, bool]:
        """Return when an attempt was handed in, who says so, and whether that is the instructor."""
        claim = group.claim
        if claim.at is not None:
            # A student makes the exchange's folder and names it; the kernel stamps what is done to its files.
            changed = max((m.changed for m in group.members if m.changed), default=None)
            if claim.layout == EXCHANGE and changed is not None and changed > claim.at + _SKEW:
                return changed, "when the exchange's files were last changed, later than their name says", False
            return claim.at, claim.at_from, False
        if group.student in self.roster.times:
            at, where = self.roster.times[group.student]
            return at, where, False
        if self.clock.received is not None:
            return self.clock.received, "time given by --received", True
        return None, "", False

    def _put(self, student: str, new: bool) -> None:
        counting = self.attempts.counting(student)
        if not new and counting is not None and counting.found:
            self.notes.append(f"{student}: submitted/ was changed by hand since it was collected; it stays as it is")
            return
        chosen = self.attempts.choose(student, self._deadline(student))
        if chosen is not None:
            self.attempts.put(chosen)

    def _with_verdict(self, taken: Taken) -> Taken:
        counting = self.attempts.counting(taken.student)
        counts = counting is not None and counting.attempt == taken.receipt.attempt
        late = is_late(taken.receipt, self._deadline(taken.student))
        return replace(taken, counts=counts, late=late)

    def _leave_namesakes(self) -> None:
        """Leave the work of two accounts that were taken for one student by nothing but their name."""
        accounts: dict[tuple[str, str], set[frozenset[str]]] = {}
        for group in self.groups.values():
            if group.how == "name" and group.accounts:
                accounts.setdefault((group.student, group.claim.layout), set()).add(frozenset(group.accounts))
        for key, group in list(self.groups.items()):
            if len(accounts.get((group.student, group.claim.layout), ())) > 1 and group.how == "name":
                reason = f"several accounts have the name of {group.student}; give --roster FILE.csv with their numbers"
                self.left.append(Left(group.origin, reason))
                del self.groups[key]


def _notes(group: _Group, unpacked: Unpacked, readable: bool) -> tuple[str, ...]:
    notes = list(unpacked.notes)
    if group.claim.layout == EXCHANGE:  # where nbgrader puts a time stamp into every submission
        notes = [note for note in notes if not note.startswith("its timestamp.txt")]
    if not readable:
        there = any(is_notebook(name) for name in unpacked.files)
        notes.append("its notebook cannot be read" if there else "there is no notebook in it")
    return tuple(notes)


def _by_student(taken: Taken) -> tuple[str, int]:
    return taken.student, taken.receipt.attempt


def _in_order(group: _Group) -> tuple[str, datetime, str, str]:
    """Sort attempts so that their numbers follow their times."""
    seen = [member.seen for member in group.members if member.seen and not group.claim.order]
    moment = group.claim.at or max(seen, default=datetime.min.replace(tzinfo=UTC))
    return group.student, moment, group.claim.order.zfill(9), group.origin


@contextmanager
def _lock(course: NbgraderCourse, assignment: str, dry_run: bool) -> Iterator[None]:
    """Keep two runs of one assignment apart.

    Raises:
        GradingError: when another run is at it.
    """
    if dry_run:
        yield
        return
    path = receipts_path(course, assignment).with_name("collect.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise GradingError(f"{assignment} is being collected already, by another process; wait for it") from None
    try:
        yield
    finally:
        lock.release()
