"""Throughput of recording events, with the contenders taking turns and several concurrent writers."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.audit.processes import database, environment_of, process, read_line
from tests.benchmarks.worker_protocol import send_command

Writers = tuple[int, int]
"""Processes, and threads of each."""


@dataclass(slots=True)
class Rates:
    """The results of one contender with one number of writers."""

    rates: list[float] = field(default_factory=list)
    """Events per second of all writers."""
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the writers per event."""


@dataclass(frozen=True, slots=True)
class Written:
    """The events of a contender: reported as committed by its writers, and found in its table."""

    reported: int
    found: int


class Team:
    """The writers of a contender."""

    def __init__(self, contender: str, process: subprocess.Popen[str]) -> None:
        self.contender = contender
        self._process = process

    def wait_until_ready(self) -> None:
        """Wait for the tables and the connections."""
        line = read_line(self._process)
        assert line == "ready\n", f"{self.contender}: {line!r}"

    def begin_turn(self, writers: Writers, seconds: float) -> Callable[[], dict[str, Any]]:
        """Let the writers write, and return a function that waits for the end and returns what they did.

        These are the events, the CPU seconds, and the seconds of the 99th percentile (p99) and of the slowest write.
        """
        return send_command(self._process, *writers, seconds)

    def finish(self) -> Written:
        """Stop the writers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return Written(**json.loads(read_line(self._process)))


def measure_writes(
    contenders: Sequence[str],
    *,
    url: str,
    writers: Sequence[Writers],
    rounds: int,
    seconds: float,
    log: Callable[[str], None],
) -> tuple[dict[Writers, dict[str, Rates]], dict[str, Written]]:
    """Return the rates by number of writers and contender, and the events of each contender. url: of the server.

    Each contender has one turn per round, and each round starts with another one.
    """
    results = {count: {contender: Rates() for contender in contenders} for count in writers}
    with _teams(contenders, url=url, processes=max(processes for processes, _ in writers)) as teams:
        for count in writers:
            for number in range(rounds):
                shift = number % len(teams)
                for team in (*teams[shift:], *teams[:shift]):
                    turn = team.begin_turn(count, seconds)()
                    result = results[count][team.contender]
                    result.rates.append(turn["events"] / seconds)
                    result.cpu.append(turn["cpu"] / max(turn["events"], 1))
            log(f"{rounds} turns of {seconds:g} s with {count[0]} processes of {count[1]} threads.")
        return results, {team.contender: team.finish() for team in teams}


@contextmanager
def _teams(contenders: Sequence[str], *, url: str, processes: int) -> Iterator[list[Team]]:
    """Start the writers of each contender with a separate database on one server, and stop them at the end."""
    with ExitStack() as stack:
        teams = []
        for contender in contenders:
            name = stack.enter_context(database(url))
            teams.append(stack.enter_context(team_of(contender, url=url, name=name, processes=processes)))
        for team in teams:
            team.wait_until_ready()
        yield teams


@contextmanager
def team_of(contender: str, *, url: str, name: str, processes: int) -> Iterator[Team]:
    """Start the writers of a contender in that database, and stop them at the end."""
    with process("tests.benchmarks.audit.writers", str(processes), **environment_of(contender, url, name)) as running:
        yield Team(contender, running)
