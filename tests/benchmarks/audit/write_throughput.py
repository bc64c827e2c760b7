"""How fast events are recorded, each contender in its turn, with some writers at once."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.audit.processes import database, environment_of, line_of, process


@dataclass(slots=True)
class Rates:
    """What the turns of one contender came to, with one number of writers."""

    rates: list[float] = field(default_factory=list)
    """Events per second, of all writers together."""
    cpu: list[float] = field(default_factory=list)
    """Of the writers, seconds for each event."""


@dataclass(frozen=True, slots=True)
class Written:
    """The events of a contender: those that its writers say they have committed, and those that are there."""

    told: int
    found: int


class Team:
    """The writers of a contender, waiting for their turns."""

    def __init__(self, contender: str, process: subprocess.Popen[str]) -> None:
        self.contender = contender
        self._process = process

    def wait_until_ready(self) -> None:
        """Wait for the tables and the connections."""
        said = line_of(self._process)
        assert said == "ready\n", f"{self.contender}: {said!r}"

    def take_turn(self, writers: int, seconds: float) -> dict[str, Any]:
        """Return how many events so many writers wrote in that time, and their CPU time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{writers} {seconds}\n")
        self._process.stdin.flush()
        return dict(json.loads(line_of(self._process)))

    def finish(self) -> Written:
        """Let them go home."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return Written(**json.loads(line_of(self._process)))


def measure_recording(
    contenders: Sequence[str],
    *,
    url: str,
    writers: Sequence[int],
    rounds: int,
    seconds: float,
    told: Callable[[str], None],
) -> tuple[dict[int, dict[str, Rates]], dict[str, Written]]:
    """Return the rates by number of writers and contender, and what was written in all. url: of the server.

    Each contender has one turn in each round, each round beginning with another one.
    """
    results = {each: {contender: Rates() for contender in contenders} for each in writers}
    with _teams(contenders, url=url, writers=max(writers)) as teams:
        for each in writers:
            for number in range(rounds):
                shift = number % len(teams)
                for team in (*teams[shift:], *teams[:shift]):
                    turn = team.take_turn(each, seconds)
                    result = results[each][team.contender]
                    result.rates.append(turn["events"] / seconds)
                    result.cpu.append(turn["cpu"] / max(turn["events"], 1))
            told(f"{rounds} turns of {seconds:g} s with {each} writers.")
        return results, {team.contender: team.finish() for team in teams}


@contextmanager
def _teams(contenders: Sequence[str], *, url: str, writers: int) -> Iterator[list[Team]]:
    """Start the writers of each contender, with a database of their own on one server; stop them in the end."""
    with ExitStack() as stack:
        teams = []
        for contender in contenders:
            environment = environment_of(contender, url, stack.enter_context(database(url)))
            running = process("tests.benchmarks.audit.writers", str(writers), **environment)
            teams.append(Team(contender, stack.enter_context(running)))
        for team in teams:
            team.wait_until_ready()
        yield teams
