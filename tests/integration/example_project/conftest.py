"""Runs the portal and its demo provider in separate processes."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3] / "example_project"
sys.path.append(str(ROOT))

from portal.demo import services  # noqa: E402 -- the example's packages are next to its manage.py
from portal.demo.processes import Processes  # noqa: E402

from django_phi_oidc.crypto import keyring  # noqa: E402
from tests.integration.example_project.served_portal import Site  # noqa: E402

CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check before treatment", "retention": "session"},
    "address": {"purpose": "HOPERAT", "basis": "appointment letters", "retention": 86400},
    "phone_number": {"purpose": "HOPERAT", "basis": "reminders", "retention": 1},
    "roles": {"purpose": "HOPERAT", "basis": "who works here, and as what", "retention": None},
}
REGION = {"client_id": "portal", "client_secret": "another", "label": "National identity of the northern region"}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the portal and its provider with separate SQLite files and without a worker."""
    with serving(tmp_path_factory.mktemp("portal")) as served:
        yield served


@contextmanager
def serving(var: Path, **variables: str) -> Iterator[Site]:
    """Serve them for the duration of the block. var: the directory for their files. variables: of the portal."""
    portal = f"http://127.0.0.1:{services.find_free_port()}"
    provider = f"http://127.0.0.1:{services.find_free_port()}"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(services.VARIABLE_PREFIXES)},
        "DJANGO_DEBUG": "1",
        "PORTAL_VAR_DIR": str(var),
        "OIDC_ISSUER": provider,
        "PHI_CLAIMS_JSON": json.dumps(CLAIMS),
        **variables,
    }
    with Processes(directory=ROOT, logs=var / "log", environ=environ) as processes:
        processes.run("migrate", "manage.py", "migrate")
        processes.start("provider", "manage.py", "demo_provider", "--portal", portal)
        address = portal.removeprefix("http://")
        processes.start("portal", "manage.py", "runserver", "--noreload", address)
        processes.wait_for_url("provider", f"{provider}/.well-known/openid-configuration")
        processes.wait_for_url("portal", f"{portal}/healthz")
        yield Site(portal=portal, provider=provider, var=var, environ=environ)


@pytest.fixture(scope="session")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the portal with DEBUG off, without tables and without a provider."""
    var = tmp_path_factory.mktemp("bare")
    address = f"127.0.0.1:{services.find_free_port()}"
    provider = f"https://127.0.0.1:{services.find_free_port()}"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(services.VARIABLE_PREFIXES)},
        "DJANGO_SECRET_KEY": keyring.generate_key(),
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
        "PORTAL_VAR_DIR": str(var),
        "OIDC_ISSUER": provider,
        "OIDC_CLIENT_ID": "portal",
        "OIDC_CLIENT_SECRET": "a secret for tests only",
        "OIDC_LABEL": "The clinic’s own accounts",
        "OIDC_PROVIDERS_JSON": json.dumps({"region": {**REGION, "issuer": provider}}),
        **{f"PHI_{ring}_KEYS": keyring.generate_key() for ring in ("ENCRYPTION", "SUBJECT", "AUDIT_MAC")},
    }
    with Processes(directory=ROOT, logs=var / "log", environ=environ) as processes:
        processes.start("portal", "manage.py", "runserver", "--noreload", address)
        processes.wait_for_url("portal", f"http://{address}/healthz")
        yield Site(portal=f"http://{address}", provider=provider, var=var)
