"""A process of its own that meets hostile answers: `python -m tests.security.hostile_response_process URLS`.

URLS is JSON: a name to a URL and the judge of its answer. Prints JSON: a name to the kilobytes by which the process
was then above what it had been when idle, at the worst moment, and to the outcome.
"""

import gc
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.errors import SignInRefused
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import process_jwks_response, process_metadata_response
from django_phi_oidc.oidc.token import extract_received_tokens, process_token_response
from django_phi_oidc.oidc.transport import TransportRequest, TransportResponse
from django_phi_oidc.oidc.userinfo import process_userinfo_response
from django_phi_oidc.provider.http_transport import HTTPTransport

DECLARATION = parse_provider(
    "default",
    {"issuer": "https://op.example", "client_id": "portal", "client_secret": "s", "allow_loopback_http": True},
)
NO_KEYS = JSONWebKeySet(keys=())
JUDGES: dict[str, Callable[[TransportResponse], Any]] = {
    "none": lambda response: response,
    "metadata": lambda response: process_metadata_response(response, declaration=DECLARATION),
    "jwks": process_jwks_response,
    "received": extract_received_tokens,
    "token": lambda response: process_token_response(response, declaration=DECLARATION),
    "userinfo": lambda response: process_userinfo_response(
        response, expected_sub="x", keys=NO_KEYS, declaration=DECLARATION, now=datetime.now(UTC)
    ),
    "control": lambda response: (b"x" * 30_000_000).count(b"y"),
}
SECONDS = 2.0


def kilobytes(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def forget_the_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def meet(transport: HTTPTransport, url: str, judge: str) -> str:
    """Return what comes of it: a code of ours, or what was accepted."""
    try:
        answer = transport.send(TransportRequest(method="GET", url=url, headers={}), timeout_seconds=SECONDS)
        return type(JUDGES[judge](answer)).__name__
    except SignInRefused as refusal:
        return refusal.code


def main() -> None:
    """Get warm, then meet each in turn."""
    urls: dict[str, list[str]] = json.loads(sys.argv[1])
    transport = HTTPTransport(DECLARATION)
    for judge in JUDGES.keys() - {"control"}:
        meet(transport, urls["good"][0], judge)
    gc.collect()
    idle = kilobytes("VmRSS")
    met = {}
    for name, (url, judge) in urls.items():
        forget_the_peak()
        outcome = meet(transport, url, judge)
        met[name] = [kilobytes("VmHWM") - idle, outcome]
    transport.close()
    print(json.dumps(met))


if __name__ == "__main__":
    main()
