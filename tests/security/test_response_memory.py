"""Memory does not grow with what a hostile provider sends: under 20 MB above idle, at the worst moment of a process."""

import gzip
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.scripted_server import Peer, Script, answering, once, reply, serving

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a system without /proc")

LIMIT_KILOBYTES = 20_000
MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP_BOMB = gzip.compress(b" " * 1_000_000) * 200


def endless(head: bytes, piece: bytes) -> Script:
    """Return a script that sends the head, and the piece again and again until the client is gone."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.send(head)
        while True:
            peer.send(piece)

    return script


def document(piece: str, *, before: str = '{"keys":[', behind: str = "]}") -> Script:
    """Return a script that answers with a mebibyte of JSON."""
    start, again, end = before.encode(), piece.encode(), behind.encode()
    body = again * ((MIB - len(start) - len(end)) // len(again))
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
    "a text of wide characters": document("x", before='{"sub":"x","keys":[],"a":"😀', behind='"}'),
    "quotes": document('"', before="[" * 30, behind=""),
    "texts without JSON": document('xx""', before="{}" * 30, behind=""),
    "escapes": document("\\u0061", before='{"sub":"', behind='"}'),
    "keys": document(f'{{"kty":"OKP","crv":"Ed25519","x":"{"A" * 43}","a":"{"A" * 410}"}},'),
    "tokens": once(reply(b"".join(b'"access_token":"%06d",' % number for number in range(MIB // 24)))),
    "a long URL": document(
        "x", before='{"issuer":"https://op.example","authorization_endpoint":"https://', behind='"}'
    ),
}
FORM = b"".join(b"ab=cd&access_token=%06d&" % number for number in range(MIB // 26))


def test_memory_stays_within_20_mb_of_idle_whatever_comes() -> None:
    scripts: dict[str, tuple[Script, str]] = {
        **{
            f"{name}, as {judge}": (script, judge)
            for name, script in DOCUMENTS.items()
            for judge in ("metadata", "jwks", "token", "received", "userinfo")
        },
        **{name: (script, "none") for name, script in ENDLESS.items()},
        "a form": (once(reply(FORM, "Content-Type: application/x-www-form-urlencoded")), "received"),
        "control": (answering(reply()), "control"),
    }
    with ExitStack() as stack:
        urls = {"good": [stack.enter_context(serving(answering(reply()))).url, "none"]}
        for name, (script, judge) in scripts.items():
            urls[name] = [stack.enter_context(serving(script)).url, judge]
        ran = subprocess.run(
            [sys.executable, "-m", "tests.security.hostile_response_process", json.dumps(urls)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    met: dict[str, tuple[int, str]] = json.loads(ran.stdout)
    assert met.pop("control")[0] > 25_000, "the measure sees 30 MB"
    assert {name: it for name, it in met.items() if it[0] >= LIMIT_KILOBYTES} == {}
    assert {name: it for name, it in met.items() if name in ENDLESS and not it[1].startswith("transport_")} == {}
    assert met["keys, as jwks"][1] == "JSONWebKeySet", "as many as are read"
    assert met["a text of wide characters, as userinfo"][1] == "dict"
