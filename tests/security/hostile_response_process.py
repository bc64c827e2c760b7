"""Processes hostile responses in a separate process: `python -m tests.security.hostile_response_process URLS`.

URLS is JSON that maps a name to a URL and the processor of its response. The output is JSON that maps each name to the
peak memory above the idle level, in kilobytes, and to the outcome.
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
from django_phi_oidc.http.http_transport import HTTPTransport
from django_phi_oidc.http.transport import TransportRequest, TransportResponse
from django_phi_oidc.oidc.jwks import JSONWebKeySet
from django_phi_oidc.oidc.metadata import process_jwks_response, process_metadata_response
from django_phi_oidc.oidc.token import extract_received_tokens, process_token_response
from django_phi_oidc.oidc.userinfo import process_userinfo_response

DECLARATION = parse_provider(
    "default",
    {"issuer": "https://op.example", "client_id": "portal", "client_secret": "s", "allow_loopback_http": True},
)
NO_KEYS = JSONWebKeySet(keys=())
PROCESSORS: dict[str, Callable[[TransportResponse], Any]] = {
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
DEADLINE_SECONDS = 2.0


def read_memory_kilobytes(name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1])


def reset_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def process_url(transport: HTTPTransport, url: str, processor: str) -> str:
    """Return the rule code of a refusal, or the type of the result."""
    try:
        response = transport.send(TransportRequest(method="GET", url=url, headers={}), timeout_seconds=DEADLINE_SECONDS)
        return type(PROCESSORS[processor](response)).__name__
    except SignInRefused as refusal:
        return refusal.code


def main() -> None:
    """Warm up, then process each response."""
    urls: dict[str, list[str]] = json.loads(sys.argv[1])
    transport = HTTPTransport(DECLARATION)
    for processor in PROCESSORS.keys() - {"control"}:
        process_url(transport, urls["valid"][0], processor)
    gc.collect()
    idle_kilobytes = read_memory_kilobytes("VmRSS")
    results = {}
    for name, (url, processor) in urls.items():
        reset_peak_memory()
        outcome = process_url(transport, url, processor)
        results[name] = [read_memory_kilobytes("VmHWM") - idle_kilobytes, outcome]
    transport.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
