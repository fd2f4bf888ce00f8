"""What the documents say of the repository is true: dependencies, commands, links."""

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# installed apart, for its stubs would shadow the library of CPython
APART = {"micropython-esp32-stubs", "micropython-stdlib-stubs"}
DOCUMENTS = [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").glob("*.md"))]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!;]", name.strip())[0]).lower()


def declared() -> set[str]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {plain(entry) for entries in lists for entry in entries} - {"tocsin"}


def test_every_dependency_is_pinned_and_explained() -> None:
    pinned = {plain(line) for line in (TOP / "constraints.txt").read_text().splitlines() if line}
    assert declared() <= pinned
    table = (TOP / "docs" / "dependencies.md").read_text(encoding="utf-8")
    first = [line.split("|")[1] for line in table.splitlines() if re.match(r"\| [a-z]", line)]
    explained = {plain(name) for cell in first for name in cell.split(",")} - {"package"}
    assert declared() | APART == explained


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_target_that_is_named_exists() -> None:
    makefiles = "\n".join(path.read_text() for path in (TOP / "Makefile", TOP / "hardware" / "hardware.mk"))
    targets = set(re.findall(r"^([a-z-]+):", makefiles, re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", document.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, document.name


def test_no_file_has_two_subjects() -> None:
    folders = ("protocol", "firmware", "hub", "station", "drill", "bench", "hardware", "tests")
    for folder in folders:
        for file in (TOP / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 600, file
