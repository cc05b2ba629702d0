"""One set of packages, however the environment is made: by make, by pip, by conda."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

INSTALLED_BY_TESTS = {"grade", "cluster", "site", "dev"}


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda(root):
    return yaml.safe_load((root / "environment.yml").read_text())


def test_conda_installs_this_project_and_pins_no_package_of_its_own(project, conda):
    own = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert conda["name"] == project["name"]
    # All else comes from pyproject.toml: a package named in both files could be named with two versions.
    assert [re.split(r"[=<>]", entry)[0] for entry in own] == ["python", "pip"]
    assert pip == ["--editable ."]


def test_conda_python_is_one_that_the_project_accepts(project, conda):
    (python,) = [entry for entry in conda["dependencies"] if str(entry).startswith("python")]
    assert SpecifierSet(project["requires-python"]).contains(python.removeprefix("python="))


def test_this_environment_satisfies_every_pin(project):
    wrong = []
    extras = project["optional-dependencies"]
    assert set(extras) - INSTALLED_BY_TESTS == {"race"}  # compiled for minutes; the benchmark asks for it by name
    for group in (project["dependencies"], *(extras[name] for name in INSTALLED_BY_TESTS)):
        for requirement in map(Requirement, group):
            try:
                found = version(requirement.name)
            except PackageNotFoundError:
                wrong.append(f"{requirement}: not installed")
                continue
            if not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{requirement}: {found} is installed")
    assert wrong == []


def test_a_student_installs_no_instructor_or_site_tools(project):
    student = {Requirement(line).name for line in project["dependencies"]}
    others = {Requirement(line).name for extra in project["optional-dependencies"].values() for line in extra}
    assert student & others == set()
    assert {"nbgrader", "mkdocs", "pytest"} <= others
    assert {"torch", "jupyterlab"} <= student


def test_torch_is_pinned_exactly(project):
    (torch,) = [line for line in project["dependencies"] if line.startswith("torch")]
    assert torch == "torch==2.13.0"


def test_the_toolkit_imports_neither_the_autograder_nor_instructor_tools():
    """What a student imports must load where only the student's packages are installed, on any platform."""
    script = """
import json, pkgutil, sys
import fourbit
for module in pkgutil.walk_packages(fourbit.__path__, "fourbit."):
    if not module.name.startswith(("fourbit.recipes", "fourbit.__main__")):
        __import__(module.name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "torch" in loaded
    assert loaded & {"autograder", "nbgrader", "jupytext", "mkdocs", "pytest"} == set()


def test_the_toolkit_imports_no_module_that_only_unix_has(root):
    unix = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
    found = {
        f"{path.relative_to(root)}: {name}"
        for path in (root / "fourbit").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in imported_names(node)
        if name in unix
    }
    assert found == set()


def imported_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    return [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) else []


@pytest.fixture
def bootstrap(root, tmp_path, monkeypatch) -> ModuleType:
    """The bootstrap module, pointed at an empty checkout."""
    module = import_module("fourbit.bootstrap")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    venv = tmp_path / ".venv"
    for name, value in {
        "ROOT": tmp_path, "VENV": venv, "STAMP": venv / "fourbit.json", "LOG": venv / "pip.log",
        "PYTHON": venv / "bin" / "python",
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def installs(bootstrap, monkeypatch) -> list[set[str]]:
    """What would have been installed, in place of installing it."""
    done: list[set[str]] = []

    def make_venv() -> None:
        bootstrap.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        bootstrap.PYTHON.touch()

    monkeypatch.setattr(bootstrap, "make_venv", make_venv)
    monkeypatch.setattr(bootstrap, "install", lambda extras: done.append(set(extras)))
    return done


def test_a_second_run_installs_nothing(bootstrap, installs):
    bootstrap.bootstrap({"grade"})
    bootstrap.bootstrap({"grade"})
    bootstrap.bootstrap(set())
    assert installs == [{"grade"}]


def test_a_changed_pyproject_installs_again_with_all_extras_so_far(bootstrap, installs):
    bootstrap.bootstrap({"grade"})
    (bootstrap.ROOT / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    bootstrap.bootstrap({"site"})
    assert installs == [{"grade"}, {"grade", "site"}]


def test_a_moved_checkout_installs_again(bootstrap, installs, monkeypatch, tmp_path):
    bootstrap.bootstrap(set())
    state = json.loads(bootstrap.STAMP.read_text())
    bootstrap.STAMP.write_text(json.dumps({**state, "root": "/elsewhere"}))
    bootstrap.bootstrap(set())
    assert len(installs) == 2


def test_a_failed_install_leaves_no_stamp(bootstrap, installs, monkeypatch):
    def fail(extras):
        raise bootstrap.SetupError("no network")

    monkeypatch.setattr(bootstrap, "install", fail)
    with pytest.raises(bootstrap.SetupError, match="no network"):
        bootstrap.bootstrap(set())
    assert not bootstrap.STAMP.exists()


def test_a_full_disk_is_told_before_anything_is_downloaded(bootstrap, installs, monkeypatch):
    usage = type("usage", (), {"free": 2**28})
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(bootstrap.SetupError, match=r"0\.2 GiB free.*Free some space"):
        bootstrap.bootstrap(set())
    assert installs == []


def test_a_python_without_ensurepip_names_the_package_to_install(bootstrap, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(bootstrap.SetupError, match=r"`ensurepip`.*\n.*apt install python3\.\d+-venv"):
        bootstrap.check_python()


def test_an_old_python_is_told_the_version_it_needs(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "OLDEST", (9, 0))
    with pytest.raises(bootstrap.SetupError, match=r"9\.0 or newer is needed; this is 3\."):
        bootstrap.check_python()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("WARNING: Retrying ... NewConnectionError: [Errno -3] Temporary failure in name resolution", "network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build of PyTorch"),
        ("SSLError(SSLCertVerificationError('CERTIFICATE_VERIFY_FAILED'))", "certificate"),
    ],
)
def test_pip_failures_are_told_in_plain_words(bootstrap, output, told):
    assert told in bootstrap.explain(output)
    assert str(bootstrap.LOG) in bootstrap.explain(output)


def test_an_unknown_pip_failure_shows_pips_own_last_error(bootstrap):
    assert "ERROR: something new" in bootstrap.explain("noise\nERROR: first\nERROR: something new\n")


def test_make_without_python_says_what_to_install(root, tmp_path):
    """`make lab` where no Python is on the PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "make", "echo"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        ["make", "lab"], cwd=root, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "no Python 3.11 or newer was found" in done.stderr
    assert "apt install python3" in done.stderr


def test_make_alone_lists_every_target(root):
    done = subprocess.run(["make"], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for target in ("demo", "test", "lab", "site"):
        assert f"\n  {target} " in done.stdout
