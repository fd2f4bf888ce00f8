"""The security page names tests and drills; each of them exists."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "security.md").read_text()


def test_every_test_that_the_security_page_names_exists() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    missing = [name for name in set(re.findall(r"`(test_\w+)`", PAGE)) if f"def {name}(" not in sources]
    assert not missing, f"docs/security.md names tests that do not exist: {missing}"


def test_every_drill_that_the_security_page_names_exists() -> None:
    rows = [line for line in PAGE.splitlines() if "drill" in line and line.startswith("|")]
    cells = [line.split("|")[4] for line in rows]
    named = {n for cell in cells for n in re.findall(r"`(\w+)`", cell) if not n.startswith("test_")}
    assert named
    missing = [name for name in named if not (REPOSITORY / "tests" / "drills" / f"{name}.toml").exists()]
    assert not missing, f"docs/security.md names drills that do not exist: {missing}"
