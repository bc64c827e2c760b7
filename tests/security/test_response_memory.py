"""Hostile responses do not exhaust memory: the peak stays within 20 MB of the idle level."""

import gzip
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.scripted_server import Peer, Script, answering, once, reply, serving

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc on this system")

LIMIT_KILOBYTES = 20_000
MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP_BOMB = gzip.compress(b" " * 1_000_000) * 200


def endless(head: bytes, chunk: bytes) -> Script:
    """Return a script that sends the head, then chunks until the client disconnects."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(head)
        while True:
            peer.send(chunk)

    return script


def document(item: str, *, prefix: str = '{"keys":[', suffix: str = "]}") -> Script:
    """Return a script that sends a mebibyte of JSON."""
    start, repeated, end = prefix.encode(), item.encode(), suffix.encode()
    body = repeated * ((MIB - len(start) - len(end)) // len(repeated))
    return once(reply(start + body.rstrip(b",") + end, "Content-Type: application/json"))


ENDLESS: dict[str, Script] = {
    "an endless body": endless(OK + b"\r\n", b" " * 65536),
    "a gibibyte": endless(OK + b"Content-Length: 1073741824\r\n\r\n", b" " * 65536),
    "a gzip bomb": once(reply(GZIP_BOMB, "Content-Encoding: gzip")),
    "a gzip bomb in transfer": once(OK + b"Transfer-Encoding: gzip\r\n\r\n" + GZIP_BOMB),
    "a chunk of a gibibyte": endless(CHUNKED + b"40000000\r\n", b" " * 65536),
    "an endless chunk extension": endless(CHUNKED + b"1;", b"x" * 65536),
    "endless trailers": endless(CHUNKED + b"1\r\n \r\n0\r\n", b"X: " + b"x" * 60_000 + b"\r\n"),
    "endless headers": endless(OK, b"X: " + b"x" * 65_000 + b"\r\n"),
    "98 headers of 64 KiB": once(OK + (b"X: " + b"x" * 65_000 + b"\r\n") * 98 + b"\r\n"),
    "a header of 98 lines": once(OK + b"X: y\r\n" + (b" " + b"x" * 65_000 + b"\r\n") * 97 + b"\r\n"),
    "an endless header": endless(OK + b"X: ", b"x" * 65536),
    "an endless status line": endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "endless interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "endless early hints": endless(b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 2000),
    "chunks of a byte": endless(CHUNKED, b"1\r\n \r\n" * 8192),
}
DOCUMENTS: dict[str, Script] = {
    "lists": document("[],"),
    "small lists": document("[0],"),
    "objects": document("{},"),
    "small objects": document('{"":0},'),
    "short texts": document('"ā",'),
    "numbers": document("9,"),
    "a text of wide characters": document("x", prefix='{"sub":"x","keys":[],"a":"😀', suffix='"}'),
    "quotes": document('"', prefix="[" * 30, suffix=""),
    "texts without JSON": document('xx""', prefix="{}" * 30, suffix=""),
    "escapes": document("\\u0061", prefix='{"sub":"', suffix='"}'),
    "keys": document(f'{{"kty":"OKP","crv":"Ed25519","x":"{"A" * 43}","a":"{"A" * 410}"}},'),
    "tokens": once(reply(b"".join(b'"access_token":"%06d",' % number for number in range(MIB // 24)))),
    "a long URL": document(
        "x", prefix='{"issuer":"https://op.example","authorization_endpoint":"https://', suffix='"}'
    ),
}
FORM = b"".join(b"ab=cd&access_token=%06d&" % number for number in range(MIB // 26))


def test_memory_stays_within_20_mb_of_idle() -> None:
    scripts: dict[str, tuple[Script, str]] = {
        **{
            f"{name}, as {processor}": (script, processor)
            for name, script in DOCUMENTS.items()
            for processor in ("metadata", "jwks", "token", "received", "userinfo")
        },
        **{name: (script, "none") for name, script in ENDLESS.items()},
        "a form": (once(reply(FORM, "Content-Type: application/x-www-form-urlencoded")), "received"),
        "control": (answering(reply()), "control"),
    }
    with ExitStack() as stack:
        urls = {"valid": [stack.enter_context(serving(answering(reply()))).url, "none"]}
        for name, (script, processor) in scripts.items():
            urls[name] = [stack.enter_context(serving(script)).url, processor]
        process = subprocess.run(
            [sys.executable, "-m", "tests.security.hostile_response_process", json.dumps(urls)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    results: dict[str, tuple[int, str]] = json.loads(process.stdout)
    assert results.pop("control")[0] > 25_000, "the measurement detects 30 MB"
    assert {name: result for name, result in results.items() if result[0] >= LIMIT_KILOBYTES} == {}
    assert [name for name in ENDLESS if not results[name][1].startswith("transport_")] == []
    assert results["keys, as jwks"][1] == "JSONWebKeySet", "within the limits"
    assert results["a text of wide characters, as userinfo"][1] == "dict"
