"""Grading on a Dask cluster: with real schedulers and workers, some of which share nothing, differ, or die."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("distributed")

from autograder.books.gradebook import read_standings
from autograder.cluster import connect
from autograder.grade import ClassResult, Progress, grade_assignment
from autograder.jail import JailMode, describe
from autograder.nbgrader_course import open_course
from autograder.results import GradingError, SubmissionRecord
from tests.apart import lies_in_tmp, new_namespaces
from tests.clusters import Dask, dask
from tests.plain_course import GOOD, make_course, released, submit

pytestmark = pytest.mark.linux


def make_class(folder: Path, size: int) -> Path:
    """A course in which every third student answers everything, and every third nothing."""
    course, template = make_course(folder)
    some = {name: text for name, text in GOOD.items() if name in ("mean", "why")}
    for number in range(size):
        submit(course, f"s{number:02}", released(template, ({}, some, GOOD)[number % 3]))
    return course.root


def grades(course: Path) -> dict[str, Any]:
    standings = read_standings(open_course(course), "ps1")
    return {student: (standing.score, standing.max_score) for student, standing in standings.items()}


def told(record: SubmissionRecord) -> Any:
    """A record without what differs from run to run."""
    return json.loads(
        record.to_json(), object_hook=lambda item: {name: value for name, value in item.items() if name != "seconds"}
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClassResult]:
    """The class as this machine alone grades it."""
    course = make_class(tmp_path_factory.mktemp("local") / "course", 12)
    return course, grade_assignment(course, "ps1", jobs=2)


def copy_of(course: Path, folder: Path) -> Path:
    """The course before it was graded."""
    left_out = shutil.ignore_patterns(".autograder", "autograded", "feedback", "gradebook.db*")
    return Path(shutil.copytree(course, folder / "course", ignore=left_out))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Dask]:
    with dask(tmp_path) as made:
        yield made


@pytest.mark.slow
def test_workers_that_share_only_the_scheduler_grade_as_one_machine_does(
    local: tuple[Path, ClassResult], tmp_path: Path, root: Path
) -> None:
    course = copy_of(local[0], tmp_path)
    apart = new_namespaces()
    if subprocess.run([*apart, "ip", "link", "add", "name", "line", "type", "veth"], capture_output=True).returncode:
        pytest.skip("this user may make no network namespaces here")
    done = subprocess.run(
        [*apart, sys.executable, "-m", "tests.apart", str(course)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found = json.loads(done.stdout.splitlines()[-1])
    alone = {"scheduler": True, "other": False, "course": False, "tmp": lies_in_tmp()}
    assert found["looks"] == [alone, alone]
    assert found["killed"] == -9
    assert found["code"] == 0, found
    assert sorted(found["settled"]) == [record.student for record in local[1].records]
    assert json.loads(found["last"])["jail"] == local[1].jail
    assert grades(course) == grades(local[0])


def test_a_worker_with_two_threads_grades_the_same_and_the_rest_is_not_run_again(
    local: tuple[Path, ClassResult], tmp_path: Path, hub: Dask
) -> None:
    course = copy_of(local[0], tmp_path)
    hub.worker("--nthreads", "2")
    result = grade_assignment(course, "ps1", cluster=hub.address)
    assert [told(record) for record in result.records] == [told(record) for record in local[1].records]
    again = grade_assignment(course, "ps1", jobs=1)
    assert again.graded == ()


def test_a_worker_that_its_nanny_replaces_costs_nothing(
    local: tuple[Path, ClassResult], tmp_path: Path, hub: Dask
) -> None:
    course = copy_of(local[0], tmp_path)
    nanny = hub.worker("--nanny")
    before: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done == 3:
            worker = next(p for p in psutil.Process(nanny.pid).children() if "spawn_main" in " ".join(p.cmdline()))
            before.extend(p.pid for p in [worker, *worker.children(recursive=True)])
            worker.kill()

    result = grade_assignment(course, "ps1", cluster=hub.address, on_progress=kill)
    assert len(before) > 1  # the worker and its zygote
    assert [told(record) for record in result.records] == [told(record) for record in local[1].records]
    psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=60)
    assert not [pid for pid in before if psutil.pid_exists(pid) and psutil.Process(pid).ppid() != nanny.pid]


def test_a_scheduler_that_goes_away_ends_the_run_and_loses_nothing(
    local: tuple[Path, ClassResult], tmp_path: Path, hub: Dask
) -> None:
    course = copy_of(local[0], tmp_path)
    hub.worker()
    settled: list[str] = []

    def kill(progress: Progress) -> None:
        settled.append(progress.record.student)
        if len(settled) == 4:
            hub.end(hub.scheduler)

    with pytest.raises(GradingError, match=r"is gone\. What was graded is kept"):
        grade_assignment(course, "ps1", cluster=hub.address, on_progress=kill)
    result = grade_assignment(course, "ps1", cluster="", jobs=1)
    assert set(settled) <= set(result.unchanged)
    assert grades(course) == grades(local[0])


def test_no_scheduler_is_said_at_once() -> None:
    with pytest.raises(GradingError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9.*`dask scheduler`"):
        connect("tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["nonsense", "gopher://host:70", "tls://127.0.0.1:9", "no/such/file.json"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(GradingError, match=address):
        connect(address)


def test_workers_are_waited_for_and_a_scheduler_file_names_the_place(tmp_path: Path, hub: Dask) -> None:
    notices: list[str] = []
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": hub.address}))
    with pytest.raises(GradingError, match=r"no worker has joined .* dask worker"):
        connect(str(file), wait_seconds=0.5, notice=notices.append)
    assert notices == [f"waiting for workers to join {hub.address}"]


@pytest.mark.parametrize(
    ("preload", "reason"),
    [
        ("import sys; sys.modules['autograder'] = None", "the grading tools are not installed there"),
        ("import fourbit; fourbit.__version__ = '0.0.1'", r"fourbit 0\.0\.1 \(here "),
    ],
)
def test_a_worker_with_another_grader_is_refused(tmp_path: Path, hub: Dask, preload: str, reason: str) -> None:
    hub.worker("--preload", preload)
    with pytest.raises(GradingError, match=reason) as caught:
        connect(hub.address)
    assert "pip install" in str(caught.value)


def test_workers_that_isolate_less_are_refused_unless_asked_for(tmp_path: Path, hub: Dask) -> None:
    if describe().mode is JailMode.PLAIN:
        pytest.skip("nothing is isolated here")
    weaker = ["unshare", "--user", "--map-root-user", "sh", "-c",
              'echo 0 >/proc/sys/user/max_mnt_namespaces && exec "$@"', "sh"]  # fmt: skip
    if subprocess.run([*weaker, "true"], capture_output=True).returncode:
        pytest.skip("this user may make no user namespaces here")
    hub.worker()
    hub.worker(under=weaker)
    with pytest.raises(GradingError, match=r"do not isolate submissions alike.*--jail plain"):
        connect(hub.address)
    with pytest.raises(GradingError, match=f"does not enforce the isolation {describe().mode}"):
        connect(hub.address, jail=describe().mode)
    with connect(hub.address, jail=JailMode.PLAIN) as cluster:
        assert cluster.mode is JailMode.PLAIN
        assert sorted(cluster.workers().values()) == [1, 1]


def test_a_worker_that_joins_later_grades_only_if_it_fits(hub: Dask) -> None:
    notices: list[str] = []
    first = hub.worker()
    with connect(hub.address, notice=notices.append) as cluster:
        assert len(cluster.workers()) == 1
        hub.worker()
        hub.worker("--preload", "import fourbit; fourbit.__version__ = '0.0.1'")
        for _ in range(600):
            if len(cluster.workers()) == 2 and notices:
                break
            os.sched_yield()
            subprocess.run(["sleep", "0.1"], check=True)
        assert len(cluster.workers()) == 2
        assert "left out" in notices[-1]
        hub.end(first)
        for _ in range(600):
            if len(cluster.workers()) == 1:
                break
            subprocess.run(["sleep", "0.1"], check=True)
        assert len(cluster.workers()) == 1
