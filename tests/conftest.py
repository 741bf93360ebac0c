"""Real models as a fixture, and one line at the end of a run: how many tests on them ran and how many were skipped."""

from __future__ import annotations

import pytest
from kit.real import RealModel, real_model

COUNTS = pytest.StashKey[dict[str, int]]()


@pytest.fixture(scope="session", autouse=True)
def _no_costs_of_this_machine(tmp_path_factory: pytest.TempPathFactory):
    """Plans must not depend on whether somebody calibrated this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def model(request: pytest.FixtureRequest) -> RealModel:
    """A real model, named by `kit.real.real_models` or `all_models`."""
    return real_model(request.param)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten rather than compared."""
    return bool(request.config.getoption("--update-golden"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-real", action="store_true", help="fail if no test on a real model could run")
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files with what the code says now")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = {"ran": 0, "skipped": 0}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    decided = report.when == "call" or (report.when == "setup" and report.skipped)
    if decided and item.get_closest_marker("real"):
        item.config.stash[COUNTS]["skipped" if report.skipped else "ran"] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash[COUNTS]
    terminalreporter.write_line(f"tests on real models: {counts['ran']} ran, {counts['skipped']} skipped")
    if _missing(config):
        terminalreporter.write_line("no test on a real model ran, and --require-real asks for one", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _missing(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _missing(config: pytest.Config) -> bool:
    return bool(config.getoption("--require-real")) and config.stash[COUNTS]["ran"] == 0
