"""The memory of web processes contains no signing key if another process seals the log."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.test import override_settings

from django_phi_oidc.audit.log.signing_keys import get_checkpoint_origin
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key, verify_checkpoint
from django_phi_oidc.audit.models import AuditCheckpoint
from django_phi_oidc.audit.tasks import seal as seal_task
from tests.support.audit_log import events
from tests.support.databases import child_environment
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]


@contextmanager
def gunicorn(keys: dict[str, object]) -> Iterator[list[int]]:
    """Run a portal with two workers that have answered requests, and yield the ids of its processes."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **child_environment(os.environ, settings.DATABASES),
        "DJANGO_SETTINGS_MODULE": "tests.support.portal_process_settings",
        "TEST_PHI_OIDC": json.dumps({"KEYS": keys}),
    }
    command = ["-m", "gunicorn", "--workers", "2", "--bind", address, "django.core.wsgi:get_wsgi_application()"]
    process = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                get_status(address)
                break
            time.sleep(0.1)
        assert {get_status(address) for _ in range(20)} == {404}
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield [process.pid, *map(int, children)]
    finally:
        process.terminate()
        process.wait(20)


def get_status(address: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}/nowhere", timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def find_in_memory(pid: int, needles: dict[str, bytes]) -> set[str]:
    """Return the names of the needles that are in the memory of the process."""
    found = set()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            places, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(place, 16) for place in places.split("-"))
            with contextlib.suppress(OSError, ValueError):
                memory.seek(start)
                content = memory.read(end - start)
                found |= {name for name, needle in needles.items() if needle in content}
    return found


def test_web_processes_do_not_have_the_key_of_a_separate_sealer() -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    seed = key.private_bytes_raw()
    public = encode_verifier_key(get_checkpoint_origin(1), key.public_key())
    needles = {"private": base64.b64encode(seed[2:32]), "PEM": pem.splitlines()[1].encode(), "seed": seed}
    needles["public"] = public.encode()
    with gunicorn({"audit_public": [public]}) as pids:
        # This process is the sealer, next to the running portal.
        events(3)
        changed = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": pem})
        with override_settings(PHI_OIDC=changed):
            seal_task()
        assert verify_checkpoint(AuditCheckpoint.objects.get().note, [key.public_key()]).tree_size >= 3
        assert len(pids) == 3
        assert [find_in_memory(pid, needles) for pid in pids] == [{"public"}] * 3
    with gunicorn({"audit_public": [public], "audit_signing": pem}) as pids:
        assert all("PEM" in find_in_memory(pid, needles) for pid in pids)
