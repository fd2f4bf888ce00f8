"""One drill from its scenario to its report."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drill.collect import collect
from drill.expect import judge
from drill.play import Play
from drill.report import Problem, Report
from drill.scenario import Scenario
from drill.stage import Stage

Tell = Callable[[str], None]
OnEvent = Callable[[str, dict[str, Any]], None]


async def perform(
    scenario: Scenario,
    keep: Path | None = None,
    tell: Tell = lambda _line: None,
    on_event: OnEvent = lambda _badge, _event: None,
) -> Report:
    """Plays a drill and returns its report; the parts' logs and the sound go to `keep`. Raises DidNotStart.

    `tell` hears what happens, one line each, and `on_event` all that the badges say.
    """
    with _folder() as folder:
        stage = Stage(scenario, folder, tell, on_event)
        try:
            await stage.start()
            play = Play(stage)
            await play.begin()
            await play.run()
            report = await collect(play, keep)
            before_the_end = len(stage.troubles)
        finally:
            # also when it is interrupted: the stage is cleared before anything else happens
            await asyncio.shield(stage.stop())
            if keep is not None:
                _keep_logs(folder, keep)
    for trouble in stage.troubles[before_the_end:]:
        report.errors.append(Problem(trouble.at - play.zero, trouble.part, trouble.text))
    report.failed = judge(scenario.expects, report)
    return report


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tocsin-drill-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _keep_logs(folder: Path, keep: Path) -> None:
    logs = folder / "logs"
    if not logs.is_dir():
        return
    (keep / "logs").mkdir(parents=True, exist_ok=True)
    for file in logs.iterdir():
        (keep / "logs" / file.name).write_bytes(file.read_bytes())
