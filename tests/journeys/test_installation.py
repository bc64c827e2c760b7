"""The tests that look for secrets where none may be would find one."""

from pathlib import Path

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache.backends.filebased import FileBasedCache

from django_phi_oidc.attack.op import DemoProvider

from .conftest import EVERYTHING
from .crowd import bring_in
from .installation import Installation
from .relay import relay_to

pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.mark.redis
@pytest.mark.parametrize("place", ["log", "broker", "session", "cache"])
def test_leaks_finds_a_token_wherever_it_lies(place: str, op: DemoProvider, tmp_path: Path, redis_url: str) -> None:
    with relay_to(redis_url) as relay:
        installation = Installation(tmp_path, {}, relay)
        token = bring_in(op, [""], 1)[0].tokens[0]
        assert installation.leaks(op) == []
        if place == "log":
            (tmp_path / "portal.log").write_text(f"INFO: {token}\n")
        elif place == "broker":
            installation.send("a task", token)
        elif place == "session":
            session = SessionStore()
            session["token"] = token
            session.save()
        elif place == "cache":
            FileBasedCache(str(tmp_path / "cache"), {}).set("session", {"token": token})
        assert installation.leaks(op) == [token]
