"""What every test may rely on, and what is asked of a machine that claims to test everything.

A test that needs a program which a bare machine does not have (a browser, mosquitto) calls `pytest.skip` with the
command that installs it. With TOCSIN_REQUIRE_ALL=1, as in continuous integration, a skip is a failure.
"""

import os
import shutil
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# a machine that is busy with drills draws slowly, and slowness is measured in bench/ alone
settings.register_profile("tocsin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tocsin")

REQUIRE_ALL = os.environ.get("TOCSIN_REQUIRE_ALL") == "1"


def _refuse(report: Any) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"TOCSIN_REQUIRE_ALL=1 and this was not run. {reason}"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that the operating system has."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("Chromium is not installed; on Debian and Ubuntu: apt install chromium")
    return program


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drills come last: they mostly wait, and beside tests that compute they would measure the machine."""
    items.sort(key=lambda item: item.path.name == "test_drills.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    _refuse(report)
    return report
