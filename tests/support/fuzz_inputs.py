"""Hypothesis strategies for damaged documents and odd values, and time limits.

The limits apply to CPU time, the best of three runs, so that tests do not fail on a busy machine.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from django_phi_oidc.errors import SignInRefused

KIB = 1024
MIB = 1024 * KIB
SECONDS_FOR_64_KIB = 0.05
SECONDS_FOR_A_MIB = 0.25
"""For metadata and key sets."""

# CI uses the same examples in each run, other runs use random ones.
settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
PURE = settings(settings.get_profile("fuzz"), max_examples=150)
WITH_DATABASE = settings(settings.get_profile("fuzz"), max_examples=40)
WITH_PROVIDER = settings(settings.get_profile("fuzz"), max_examples=25)

T = TypeVar("T")


def nested(levels: int) -> list[Any]:
    """Return nested lists."""
    return [nested(levels - 1)] if levels > 1 else []


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
ODD_TEXT = ANY_TEXT | st.sampled_from(
    [
        "",
        "\0",
        " ",
        "\u202e",
        "\ufeff",
        "é",
        "e\u0301",
        "İ",
        "ß",
        "😀",
        "a" * 300,
        "none",
        "HS256",
        "https://",
        "//[",
        "-1",
    ]
)
ODD_NUMBER = (
    st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([10**63, -(10**62), 1e300, -0.0, 2**31, 2**63])
)
ODD_VALUE = st.recursive(
    st.none() | st.booleans() | ODD_NUMBER | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXT, inner, max_size=4),
    max_leaves=8,
) | st.integers(15, 40).map(nested)
FRAGMENTS = st.sampled_from(
    [
        *(b'"', b"\\", b'\\"', b"\\u0000", b"\\ud800", b"\\u0061", b"{", b"}", b"[", b"]", b",", b":", b"\0", b"\xff"),
        *(b"NaN", b"-Infinity", b"1e999", b"-", b"0x1", b"9" * 70, b"9" * 5000, b"\xef\xbb\xbf", b"\xed\xa0\x80"),
        *(b"[" * 30, b'{"a":' * 30, b"}" * 30, b"\n", b"&", b"=", b"%", b"%ff", b"."),
    ]
)


@st.composite
def damaged(draw: st.DrawFn, document: Mapping[str, Any]) -> bytes:
    """Return the document as JSON with up to three changed members and up to two changes in the text."""
    members = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(0, 3))):
        _change_member(draw, members)
    # With surrogates as bytes or as escapes.
    data = json.dumps(members, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        data = _change_text(draw, data)
    return data


def _change_member(draw: st.DrawFn, members: Any) -> None:
    """Change one member of the object or list, or of a nested one."""
    names = list(members) if isinstance(members, dict) else list(range(len(members)))
    if not names:
        return
    name = draw(st.sampled_from(names))
    if isinstance(members[name], dict | list) and draw(st.booleans()):
        _change_member(draw, members[name])
        return
    match draw(st.sampled_from(["value", "value", "remove", "add", "repeat"])):
        case "value":
            members[name] = draw(ODD_VALUE)
        case "remove":
            members.pop(name)
        case "add" if isinstance(members, dict):
            members[draw(ODD_TEXT)] = draw(ODD_VALUE)
        case _:
            members[name] = [members[name]] * draw(st.integers(0, 3))


def _change_text(draw: st.DrawFn, data: bytes) -> bytes:
    """Truncate or change a part of the text."""
    start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    match draw(st.sampled_from(["truncate", "repeat", "insert", "remove"])):
        case "truncate":
            return data[:end]
        case "repeat":
            return data[:end] + data[start:]
        case "remove":
            return data[:start] + data[end:]
    return data[:start] + draw(FRAGMENTS) + data[start:]


def run_within(function: Callable[[], T], seconds: float, *, refusal: type[Exception] = SignInRefused) -> T | Exception:
    """Return the result or the refusal. Fail on other exceptions, or if each of three runs exceeds the limit."""
    duration, outcome = _measure(function, refusal)
    for _ in range(2):
        if duration <= seconds:
            break
        duration = min(duration, _measure(function, refusal)[0])
    assert duration <= seconds, f"{duration * 1000:.0f} ms of CPU time, {seconds * 1000:.0f} are allowed"
    return outcome


def _measure(function: Callable[[], T], refusal: type[Exception]) -> tuple[float, T | Exception]:
    started = time.thread_time()
    try:
        outcome: T | Exception = function()
    except refusal as error:
        outcome = error
    return time.thread_time() - started, outcome
