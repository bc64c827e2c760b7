"""The portal behind PgBouncer in transaction mode, with the configuration of the manifests."""

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.integration.deployment.manifests import DEPLOY, Process, list_kubernetes_processes, read_variables
from tests.integration.deployment.running import Deployment, provider_away, running, wait_until
from tests.support.glewlwyd import find_free_port, wait_for_server
from tests.support.manual_blocks import block
from tests.support.postgresql import find_programs

pytestmark = [pytest.mark.pgbouncer, pytest.mark.sqlite]
PROCESSES = list_kubernetes_processes()
POOL_SIZE = 2
SIGN_INS = 24
CONNECTED = "SELECT usename::text FROM pg_stat_activity WHERE datname = 'portal' AND usename LIKE 'portal%%'"


def build_variables(deployment: Deployment, process: Process, port: int) -> dict[str, str]:
    """Return the variables by which a process uses the pooler instead of the database."""
    environment = deployment.build_environment(process)
    return {
        "DATABASE_POOLER": "1",
        **{
            name: environment[name].partition("@")[0] + f"@127.0.0.1:{port}/portal?connect_timeout=2"
            for name in ("DATABASE_URL", "PHI_AUDIT_DATABASE_URL")
        },
    }


def write_user_list(deployment: Deployment) -> Path:
    """Write the file of users by the command of the manual, and return its path."""
    (line,) = block("deploy-pgbouncer", "users").splitlines()
    command = line.removeprefix("$ ").replace("/etc/pgbouncer", str(deployment.folder))
    programs = find_programs()[max(find_programs())]
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(deployment.database_folder)}
    subprocess.run(["bash", "-ec", command], check=True, env={**environment, "PGUSER": "postgres"})
    return deployment.folder / "userlist.txt"


@contextmanager
def pooling(program: str, deployment: Deployment) -> Iterator[int]:
    """Run PgBouncer without TLS, with small pools, and yield its port."""
    port, text = find_free_port(), (DEPLOY / "pgbouncer.ini").read_text()
    users = write_user_list(deployment)
    replaced = {
        "host=postgresql port=5432": f"host={deployment.database_folder}",
        "listen_addr = *": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
        "/etc/pgbouncer/userlist.txt": str(users),
        "default_pool_size = 10": f"default_pool_size = {POOL_SIZE}",
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    text = re.sub(r"^(client|server)_tls.*\n", "", text, flags=re.MULTILINE)
    path = deployment.folder / "pgbouncer.ini"
    path.write_text(f"{text}\nadmin_users = postgres\n")
    for name in (path, users):
        name.chmod(0o644)
    # It refuses to run as root.
    account = ["--user=nobody"] if os.geteuid() == 0 else []
    log = deployment.get_log("pgbouncer")
    with running([program, *account, str(path)], {}, log) as process:
        wait_for_server(process, port, log=log)
        yield port


@pytest.mark.redis
def test_sign_ins_and_a_sweep_share_few_connections_of_the_database(
    pgbouncer_path: str, deployment: Deployment, redis: int
) -> None:
    op = deployment.op
    with ExitStack() as stack:
        port = stack.enter_context(pooling(pgbouncer_path, deployment))
        for name in ("portal", "worker", "sealer", "beat"):
            variables = build_variables(deployment, PROCESSES[name], port)
            stack.enter_context(deployment.running(PROCESSES[name], CELERY_BEAT_SECONDS="1", **variables))
        deployment.wait_until_healthy()

        def sign_in() -> str:
            browser = deployment.create_browser()
            browser.sign_in(op, next_url="/portal/")
            return browser.user()

        # More requests at once than the portal has threads, and each thread keeps two connections to PgBouncer.
        with ThreadPoolExecutor(SIGN_INS) as pool:
            assert all(pool.map(lambda _: sign_in(), range(SIGN_INS)))
        connected = deployment.query(CONNECTED)
        assert {"portal", "portal_audit"} <= set(connected)
        assert max(connected.count(role) for role in set(connected)) <= POOL_SIZE

        def manage(command: str) -> str:
            variables = build_variables(deployment, PROCESSES["worker"], port)
            return deployment.run(PROCESSES["worker"], f"python manage.py phi_oidc {command}", **variables)

        tokens = [token.value for token in op.active_tokens]
        assert len(manage("sessions list").splitlines()) >= SIGN_INS
        assert len(tokens) >= 2 * SIGN_INS
        with provider_away(op), pytest.raises(AssertionError, match=r"0 of \d+ tokens revoked"):
            manage("sessions end --all --yes")
        assert all(map(op.is_token_active, tokens))
        wait_until(lambda: not any(map(op.is_token_active, tokens)), log=deployment.get_log("worker"))
        unsealed = "SELECT 1 FROM phi_oidc_audit_auditunsealed"
        wait_until(lambda: not deployment.query(unsealed), log=deployment.get_log("sealer"))
        assert "no faults" in manage("audit verify")
    assert "ERROR" not in deployment.get_log("worker").read_text().replace("ERROR/Beat", "")


def test_pools_are_of_transactions_and_users_need_their_passwords(pgbouncer_path: str, deployment: Deployment) -> None:
    url = read_variables(deployment.secrets / "portal.env")["DATABASE_URL"]
    password = url.partition("//portal:")[2].partition("@")[0]
    with pooling(pgbouncer_path, deployment) as port, ExitStack() as stack:
        address = {"host": "127.0.0.1", "port": port, "dbname": "portal", "user": "portal"}
        # With pools of sessions, the last one would wait until another one is closed.
        for _ in range(POOL_SIZE + 2):
            client = psycopg.connect(**address, password=password, autocommit=True)
            stack.enter_context(client)
            assert client.execute("SELECT current_user").fetchone() == ("portal",)
        with pytest.raises(psycopg.OperationalError, match="authentication"):
            psycopg.connect(**address, password="another")
