"""The tests that look for secrets where none may be would find one."""

import base64
import json
from pathlib import Path

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache.backends.filebased import FileBasedCache

from django_phi_oidc.attack.op import DemoProvider

from .conftest import EVERYTHING
from .crowd import bring_in
from .installation import Installation

pytestmark = pytest.mark.django_db(**EVERYTHING)

PLACES = ["log", "message", "message taken", "broker", "session", "cache"]


@pytest.mark.parametrize("place", PLACES)
def test_leaks_finds_a_token_wherever_it_lies(place: str, op: DemoProvider, tmp_path: Path) -> None:
    installation = Installation(tmp_path, {})
    (person,) = bring_in(op, [""], 1)
    token = person.tokens[0]
    body = base64.b64encode(json.dumps([[token], {}, {}]).encode()).decode()
    message = json.dumps({"body": body, "properties": {"body_encoding": "base64"}})
    assert installation.leaks(op) == []
    if place == "log":
        (tmp_path / "portal.log").write_text(f"INFO: {token}\n")
    elif place == "message":
        (tmp_path / "messages" / "1.msg").write_text(message)
    elif place == "message taken":
        (tmp_path / "taken" / "1.msg").write_text(message)
    elif place == "session":
        session = SessionStore()
        session["token"] = token
        session.save()
    elif place == "cache":
        FileBasedCache(str(tmp_path / "cache"), {}).set("session", {"token": token})
    said = f"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n{message}\r\n" if place == "broker" else ""
    assert installation.leaks(op, broker_said=said.encode()) == [token]
