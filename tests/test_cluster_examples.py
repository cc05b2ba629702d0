"""The cluster examples of the site: what they say exists, and the SLURM script runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("nbgrader")
pytest.importorskip("distributed")
pytest.importorskip("kubernetes")

from kubernetes.client import models

from autograder.books.gradebook import read_standings
from autograder.nbgrader_course import open_course
from tests.plain_course import GOOD, make_course, released, submit

EXAMPLES = Path(__file__).resolve().parents[1] / "site" / "examples"
PAGE = EXAMPLES.parent / "cluster.md"
KINDS = {
    "Namespace": "V1Namespace",
    "NetworkPolicy": "V1NetworkPolicy",
    "Service": "V1Service",
    "Deployment": "V1Deployment",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "Job": "V1Job",
}


def documents() -> list[dict[str, Any]]:
    texts = [(EXAMPLES / name).read_text() for name in ("kubernetes.yaml", "grade-job.yaml")]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def unknown(value: Any, kind: str, place: str = "") -> Iterator[str]:
    """Yield what Kubernetes has no field for, or another type."""
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for number, item in enumerate(value):
            yield from unknown(item, inner[1], f"{place}[{number}]")
    elif re.fullmatch(r"[Dd]ict[\[(].*", kind):
        if not isinstance(value, dict):
            yield f"{place} is no mapping"
    elif hasattr(models, kind):
        model = getattr(models, kind)
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        for name, item in value.items():
            if name not in names:
                yield f"{place}.{name}"
            else:
                yield from unknown(item, model.openapi_types[names[name]], f"{place}.{name}")
    elif not isinstance(value, {"str": str, "int": int, "bool": bool, "object": object}[kind]):
        yield f"{place} is no {kind}"


def test_the_manifests_name_fields_that_exist() -> None:
    found = documents()
    assert sorted(document["kind"] for document in found) == sorted([*KINDS, "Deployment"])
    assert [bad for document in found for bad in unknown(document, KINDS[document["kind"]], document["kind"])] == []
    broken = {"kind": "Job", "spec": {"template": {"spec": {"hostUser": False, "containers": {}}}}}
    assert list(unknown(broken, "V1Job", "Job")) == [
        "Job.spec.template.spec.hostUser",
        "Job.spec.template.spec.containers is no list",
    ]


def test_the_manifests_fit_together() -> None:
    by_kind = {(document["kind"], document["metadata"].get("name")): document for document in documents()}
    service = by_kind["Service", "scheduler"]
    scheduler, worker = by_kind["Deployment", "scheduler"], by_kind["Deployment", "worker"]
    for deployment in (scheduler, worker):
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= scheduler["spec"]["template"]["metadata"]["labels"].items()
    port = service["spec"]["ports"][0]["port"]
    address = f"tcp://{service['metadata']['name']}:{port}"
    assert str(port) in container(scheduler)["command"]
    assert address in container(worker)["command"]
    job = next(document for document in documents() if document["kind"] == "Job")
    assert address in container(job)["command"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in job["spec"]["template"]["spec"]["volumes"]]
    assert [("PersistentVolumeClaim", claim) in by_kind for claim in claims] == [True]
    assert not [v for v in worker["spec"]["template"]["spec"]["volumes"] if "emptyDir" not in v]
    assert len({container(document)["image"] for document in (scheduler, worker, job)}) == 1


def container(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return dict(found)


def commands() -> Iterator[list[str]]:
    """Every command of the examples, as words."""
    for document in documents():
        if document["kind"] in ("Deployment", "Job"):
            yield container(document)["command"]
    text = (EXAMPLES / "slurm.sh").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        for start in [number for number, word in enumerate(words) if word in ("dask", "fourbit")][:1]:
            yield words[start:]


@cache
def help_of(*command: str) -> str:
    module = {"dask": "dask", "fourbit": "fourbit"}[command[0]]
    done = subprocess.run(
        [sys.executable, "-m", module, *command[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
    )
    return done.stdout


def test_every_option_of_the_examples_exists() -> None:
    found = list(commands())
    assert len(found) == 6
    for command in found:
        known = set(re.findall(r"--[a-z][a-z-]+", help_of(*command[:2])))
        options = {word.split("=")[0] for word in command if word.startswith("--")}
        assert options
        assert options <= known, command


def test_the_page_shows_the_files() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for name in ("slurm.sh", "kubernetes.yaml", "grade-job.yaml", "Containerfile"):
        assert (EXAMPLES / name).read_text() in blocks, name


@pytest.mark.slow
@pytest.mark.linux
def test_the_slurm_script_grades_over_an_encrypted_connection(tmp_path: Path) -> None:
    """On this machine, where the script's srun is a stand-in that runs its command on the spot."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    script = EXAMPLES / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    course, template = make_course(tmp_path / "course")
    for number in range(3):
        submit(course, f"s{number}", released(template, GOOD))
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "srun").write_text('#!/bin/sh\ntest "$1" = --cpus-per-task=1 && shift && exec "$@"\n')
    (programs / "srun").chmod(0o755)
    clone = tmp_path / "fourbit"
    (clone / ".venv" / "bin").mkdir(parents=True)
    here = Path(sys.executable).parent
    (clone / ".venv" / "bin" / "activate").write_text(f'export PATH="{programs}:{here}:$PATH"\n')
    environment = {**os.environ, "HOME": str(tmp_path), "SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(script), "ps1", str(course.root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "tls://" in done.stderr
    assert "tcp://" not in done.stderr
    assert [standing.score for standing in read_standings(open_course(course.root), "ps1").values()] == [9, 9, 9]
    assert not list(tmp_path.glob(".fourbit-grade-*"))
