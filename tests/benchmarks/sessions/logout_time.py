"""Time of a logout with django_phi_oidc, and of a minimal one: the logout of Django and two POST requests."""

import json
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from tests.benchmarks.sign_in.measurement import BEGIN, OP, Portal, Result, Sample, racing
from tests.benchmarks.sign_in.measurement import _ask as get
from tests.support.http_browser import Browser

LOGOUT_PATHS = {"bare": "/leave/", "phi_oidc": "/oidc/logout/"}


def measure_logout(
    *, url: str, round_trips: Sequence[float], warm_up: int, rounds: int, log: Callable[[str], None]
) -> dict[float, dict[str, Result]]:
    """Return the results by round-trip time in seconds and by contender. url: of the PostgreSQL server."""
    results: dict[float, dict[str, Result]] = {}
    with racing(list(LOGOUT_PATHS), url=url) as (op, portals):
        for round_trip in round_trips:
            op.set_round_trip(round_trip)
            results[round_trip] = {portal.contender: Result() for portal in portals}
            for number in range(-warm_up, rounds):
                for portal in portals if number % 2 else portals[::-1]:
                    sample = _log_out(portal, op)
                    if number >= 0:
                        results[round_trip][portal.contender].samples.append(sample)
            log(f"{rounds} logouts each at {round_trip * 1000:.0f} ms, after {warm_up}.")
    return results


def _log_out(portal: Portal, op: OP) -> Sample:
    browser = Browser(portal.base)
    page = browser.get(op.authorize(BEGIN[portal.contender](browser).location))
    assert (page.status, urlsplit(page.location).path) == (302, "/home/"), (portal.contender, page)
    browser.cookies["csrftoken"] = secrets.token_hex(16)
    requests, connections = op.counts()
    response = browser.post(LOGOUT_PATHS[portal.contender])
    assert response.status == 302, (portal.contender, response)
    measured = json.loads(get(urlsplit(portal.base).netloc, "/measured").body)
    after = op.counts()
    assert not browser.get("/home/").body, f"{portal.contender} did not sign out"
    sample = Sample(**measured, requests=after[0] - requests, connections=after[1] - connections)
    assert sample.requests == 2, (portal.contender, sample)
    return sample
