"""The processes of the manifests, started with their own commands, work together."""

import re
import shlex
from contextlib import ExitStack

import pytest

from tests.integration.deployment.manifests import Process, iter_pods, list_kubernetes_processes, load_resources
from tests.integration.deployment.running import FROM_PROXY, Deployment, measure_memory, provider_away, wait_until

pytestmark = pytest.mark.sqlite
PROCESSES = list_kubernetes_processes()
ASGI = list_kubernetes_processes(asgi=True)["portal"]
PROBES = {name: pod["containers"][0].get("livenessProbe", {}) for name, pod in iter_pods(load_resources())}
REQUESTED = {
    name: int(pod["containers"][0]["resources"]["requests"]["memory"].removesuffix("Mi")) << 20
    for name, pod in iter_pods(load_resources())
    if name in PROCESSES
}
"""The memory that the manifests request, in bytes."""
CHECK = "python manage.py check --deploy"
DJANGO_WARNINGS = {"security.W005", "security.W021"}
"""About subdomains and the preload list, which concern the whole domain."""


@pytest.mark.parametrize("portal", [PROCESSES["portal"], ASGI], ids=["gunicorn", "uvicorn"])
def test_portal_of_the_manifests_is_healthy_signs_in_and_out(portal: Process, deployment: Deployment) -> None:
    with deployment.running(portal):
        deployment.wait_until_healthy()
        browser = deployment.create_browser()
        assert browser.sign_in(deployment.op, next_url="/portal/").location == "/portal/"
        assert browser.user()
        page = browser.post("/oidc/logout/")
        assert page.status == 302
        assert page.location.startswith(f"{deployment.op.issuer}/end-session")
        assert browser.user() == ""
    log = deployment.get_log("portal").read_text()
    assert "[ERROR]" not in log
    assert "callback" not in log, "an access log with codes and states"
    assert deployment.find_last_address() == FROM_PROXY["X-Forwarded-For"]


def test_health_page_needs_no_https_and_all_others_do(deployment: Deployment) -> None:
    with deployment.running(PROCESSES["portal"]):
        deployment.wait_until_healthy()
        browser = deployment.create_browser()
        del browser.headers["X-Forwarded-Proto"]
        assert browser.get("/oidc/health/").status == 200
        assert (browser.get("/").status, browser.get("/").location) == (301, "https://portal.example/")
        browser.headers["X-Forwarded-Proto"] = "https"
        assert browser.get("/").status == 200


@pytest.mark.redis
def test_worker_revokes_and_sealer_seals_what_beat_asks_for(deployment: Deployment, redis: int) -> None:
    op, names = deployment.op, ("portal", "worker", "sealer", "beat")
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(deployment.running(PROCESSES[name], CELERY_BEAT_SECONDS="1")) for name in names
        }
        deployment.wait_until_healthy()
        # Other tests leave sessions, whose tokens stay active.
        others = {token.value for token in op.active_tokens}
        browser = deployment.create_browser()
        browser.sign_in(op, next_url="/portal/")
        tokens = [token.value for token in op.active_tokens if token.value not in others]
        assert tokens
        with provider_away(op):
            browser.post("/oidc/logout/")
        log = deployment.get_log("worker")
        wait_until(lambda: not any(map(op.is_token_active, tokens)), log=log)
        unsealed = "SELECT 1 FROM phi_oidc_audit_auditunsealed"
        wait_until(lambda: not deployment.query(unsealed), log=deployment.get_log("sealer"))
        for name in ("worker", "sealer"):
            assert "pong" in deployment.run(PROCESSES[name], shlex.join(PROBES[name]["exec"]["command"]))
        for name, child in children.items():
            assert REQUESTED[name] / 4 < measure_memory(child) < REQUESTED[name], name
    with pytest.raises(AssertionError, match="No nodes replied"):
        deployment.run(PROCESSES["worker"], shlex.join(PROBES["worker"]["exec"]["command"]))
    checkpoint = (deployment.folder / "lib" / "checkpoint").read_text().splitlines()
    assert checkpoint[0] == "portal.example/audit"
    assert int(checkpoint[1]) > 3
    logs = {name: deployment.get_log(name).read_text() for name in names}
    assert "phi_oidc.seal" not in logs["worker"].split("ready.")[1]
    assert "phi_oidc.sweep_revocations" not in logs["sealer"].split("ready.")[1]
    assert not [token for token in tokens if token in "".join(logs.values())]


def test_only_the_role_of_the_sealer_may_seal(deployment: Deployment) -> None:
    seal = "python manage.py phi_oidc audit seal"
    assert "refused: 0" in deployment.run(PROCESSES["sealer"], seal)
    key = {"PHI_AUDIT_SIGNING_KEY": str(deployment.secrets / "audit-signing-key.pem")}
    for name in ("portal", "worker"):
        with pytest.raises(AssertionError, match="permission denied for table"):
            deployment.run(PROCESSES[name], seal, **key)


WARNINGS = {
    # The example requires a second factor for charts and emergency access, not for each sign-in (W057). Only the sealer
    # has the signing key (W019) and the file outside of the database (W021, W065).
    "portal": {"W021", "W057", "W065"},
    "worker": {"W021", "W057", "W065"},
    "sealer": {"W019", "W057"},
}


@pytest.mark.parametrize("name", WARNINGS)
def test_deployed_process_has_only_the_warnings_that_the_manual_explains(name: str, deployment: Deployment) -> None:
    found = deployment.run(PROCESSES[name], f"{CHECK} --database default --database phi_audit")
    assert find_ids(found) == WARNINGS[name] | DJANGO_WARNINGS, found


@pytest.mark.parametrize("name", WARNINGS)
def test_connections_between_the_containers_are_encrypted(name: str, deployment: Deployment) -> None:
    found = deployment.run(PROCESSES[name], CHECK, keep_hosts=True)
    assert not find_ids(found) & {"W017", "W018"}, found
    plain = {"DATABASE_URL": "postgresql://portal@postgresql/portal", "CELERY_BROKER_URL": "redis://redis:6379/0"}
    assert {"W017", "W018"} <= find_ids(deployment.run(PROCESSES[name], CHECK, keep_hosts=True, **plain))


def find_ids(output: str) -> set[str]:
    """Return the ids of the warnings and errors in the output of `check`; those of Django with their category."""
    return set(re.findall(r"\((?:django_phi_oidc\.)?((?:security\.)?[EW]\d+)\)", output))
