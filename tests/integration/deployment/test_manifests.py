"""The manifests agree with each other, with the settings of the example, and with what `make_secrets.py` writes."""

import ast
import json
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.deployment.manifests import (
    DEPLOY,
    EXAMPLE,
    ROOT,
    Process,
    iter_pods,
    list_compose_processes,
    list_image_variables,
    list_kubernetes_processes,
    load_compose,
    load_kustomization,
    load_resources,
    read_variables,
)

VARIABLE = re.compile(r"(?:env\.(?P<how>\w+)|key_ring)\(\s*\"(?P<name>[A-Z_]+)\"")
NOT_OF_THE_SETTINGS = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
PUBLIC_CERTIFICATE = {"tls.crt", "tls.key"}
"""From the operator's certificate authority, for the proxy. In Kubernetes, the ingress has it."""
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PROCESSES = {
    f"{kind}: {name}": process
    for kind, processes in (
        ("compose", list_compose_processes()),
        ("compose, ASGI", list_compose_processes(asgi=True)),
        ("kubernetes", list_kubernetes_processes()),
        ("kubernetes, ASGI", list_kubernetes_processes(asgi=True)),
    )
    for name, process in processes.items()
}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def find_resource(kind: str, name: str) -> dict[str, Any]:
    """Return the manifest of a resource."""
    (found,) = [each for each in load_resources() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the script writes."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, DEPLOY / "make_secrets.py", folder]
    return subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60
    )


def read_environment(process: Process, secrets: Path) -> dict[str, str]:
    """Return the variables of a process: of the image, of the files in their order, and its own."""
    variables = list_image_variables()
    for name in process.env_files:
        variables |= read_variables(secrets / Path(name).name if name.startswith("secrets/") else DEPLOY / name)
    return variables | dict(process.environment)


def list_settings() -> Mapping[str, bool]:
    """Return the variables of the settings, and whether each is required."""
    found = VARIABLE.finditer((EXAMPLE / "portal" / "settings.py").read_text())
    required: dict[str, bool] = {}
    for hit in found:
        required[hit["name"]] = required.get(hit["name"], False) or hit["how"] in {"required", None}
    return required


@each_process
def test_each_variable_of_a_process_is_read_by_the_settings_and_no_required_one_is_missing(
    process: Process, secrets: Path
) -> None:
    variables = read_environment(process, secrets)
    assert set(variables) - NOT_OF_THE_SETTINGS <= set(list_settings())
    assert {name for name, is_required in list_settings().items() if is_required} <= set(variables)
    # The operator fills it in.
    assert [name for name, value in variables.items() if not value] == ["OIDC_CLIENT_SECRET"]


def test_processes_of_compose_and_kubernetes_have_the_same_commands_and_secrets(secrets: Path) -> None:
    for asgi in (False, True):
        compose, kubernetes = list_compose_processes(asgi=asgi), list_kubernetes_processes(asgi=asgi)
        assert set(compose) == set(kubernetes)
        for name, process in compose.items():
            assert process.command == kubernetes[name].command
            assert process.secrets == kubernetes[name].secrets
            assert process.env_files == kubernetes[name].env_files
    wsgi, asgi_command = (list_compose_processes(asgi=asgi)["portal"].command for asgi in (False, True))
    assert (wsgi[0], asgi_command[0]) == ("gunicorn", "uvicorn")


@each_process
def test_only_the_sealer_has_the_signing_key_and_each_process_its_own_roles(process: Process, secrets: Path) -> None:
    variables, is_sealer = read_environment(process, secrets), process.name == "sealer"
    assert ("PHI_AUDIT_SIGNING_KEY" in variables) is is_sealer
    assert ("audit-signing-key.pem" in process.secrets) is is_sealer
    roles = {name: urlsplit(variables[name]).username for name in ("DATABASE_URL", "PHI_AUDIT_DATABASE_URL")}
    audit_roles = {"worker": "portal_worker", "sealer": "portal_sealer"}
    expected = ("portal", audit_roles.get(process.name, "portal_audit"))
    assert tuple(roles.values()) == (("owner", "owner") if process.name == "migration" else expected)
    assert ("DATABASE_ROLES_JSON" in variables) is (process.name == "migration")
    assert ("CELERY_BROKER_URL" in variables) is (process.name in {"worker", "sealer", "beat"})
    for name in roles:
        assert "sslmode=verify-full" in variables[name]


def test_script_of_the_secrets_gives_each_role_its_password_and_keeps_an_existing_folder(secrets: Path) -> None:
    passwords = json.loads(read_variables(secrets / "migration.env")["DATABASE_ROLES_JSON"])
    urls = [value for path in secrets.glob("*.env") for name, value in read_variables(path).items() if "URL" in name]
    used = {(urlsplit(url).username, urlsplit(url).password) for url in urls if url.startswith("postgresql")}
    owner = read_variables(secrets / "postgresql.env")["POSTGRES_PASSWORD"]
    assert used == {*passwords.items(), ("owner", owner)}
    assert len({password for _, password in used}) == len(used)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o600}
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert make_secrets(secrets).returncode == 1
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


def connect(secrets: Path, *, server: str, host: str) -> None:
    """Make a TLS handshake with the certificate of a server. Raises: ssl.SSLError."""
    client_context = ssl.create_default_context(cafile=secrets / "ca.crt")
    # The default from Python 3.13 on.
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(secrets / f"{server}.crt", secrets / f"{server}.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    peer = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, peer, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("server", ["postgresql", "redis"])
def test_certificate_of_a_server_is_valid_for_its_name_only(server: str, secrets: Path) -> None:
    connect(secrets, server=server, host=server)
    connect(secrets, server=server, host="localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(secrets, server=server, host="portal")


def test_each_generated_secret_is_used_and_has_the_files_that_are_mounted(secrets: Path) -> None:
    kustomization = load_kustomization()
    generators = [*kustomization["configMapGenerator"], *kustomization["secretGenerator"]]
    files = {each["name"]: {Path(path).name for path in each.get("files", [])} for each in generators}
    used = set()
    for _, pod in iter_pods(load_resources()):
        volumes = {each["name"]: each.get("secret", {}).get("secretName") for each in pod["volumes"]}
        (container,) = pod["containers"]
        for mount in container["volumeMounts"]:
            secret = volumes.get(mount["name"])
            if secret:
                used.add(secret)
                assert mount["mountPath"] == "/run/secrets" or mount["subPath"] in files[secret]
        sources = [reference["name"] for source in container.get("envFrom", []) for reference in source.values()]
        used |= set(sources)
    assert used == set(files)
    listed = [path for each in generators for path in (*each.get("envs", []), *each.get("files", []))]
    assert {Path(path).name for path in listed if path.startswith("secrets/")} == {p.name for p in secrets.iterdir()}
    assert sorted(kustomization["resources"]) == sorted(f"kubernetes/{p.name}" for p in DEPLOY.glob("kubernetes/*"))


def test_secrets_of_compose_are_the_files_of_the_script(secrets: Path) -> None:
    compose = load_compose()
    declared = {name: Path(secret["file"]) for name, secret in compose["secrets"].items()}
    used = {name for service in compose["services"].values() for name in service.get("secrets", [])}
    assert used == set(declared)
    assert {path.parent for path in declared.values()} == {Path("secrets")}
    files = {path.name for path in secrets.iterdir()}
    assert {path.name for path in declared.values()} - PUBLIC_CERTIFICATE <= files
    environments = {name for service in compose["services"].values() for name in service.get("env_file", [])}
    assert {Path(name).name for name in environments if name.startswith("secrets/")} <= files
    mounted = {path.name for path in declared.values()} - PUBLIC_CERTIFICATE
    tree = ast.parse((DEPLOY / "make_secrets.py").read_text())
    (owners,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MOUNTED"
    ]
    assert isinstance(owners, ast.Dict)
    assert {ast.literal_eval(key) for key in owners.keys if key} == mounted


def test_ports_of_command_container_service_proxy_and_policies_are_the_same() -> None:
    (container,) = dict(iter_pods(load_resources()))["portal"]["containers"]
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", 8000)
    assert "EXPOSE 8000" in DOCKERFILE
    assert "server portal:8000;" in (DEPLOY / "nginx.conf").read_text()
    for asgi in (False, True):
        command = " ".join(list_kubernetes_processes(asgi=asgi)["portal"].command)
        assert re.search(r"--bind=0\.0\.0\.0:8000|--host=0\.0\.0\.0 --port=8000", command)
    assert "http://127.0.0.1:8000/oidc/health/" in load_compose()["services"]["portal"]["healthcheck"]["test"][3]
    assert find_resource("Service", "portal")["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    ingress = find_resource("Ingress", "portal")["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    assert ingress == {"service": {"name": "portal", "port": {"name": "http"}}}
    for name, number in (("postgresql", 5432), ("redis", 6379)):
        (container,) = dict(iter_pods(load_resources()))[name]["containers"]
        assert [each["containerPort"] for each in container["ports"]] == [number]
        assert find_resource("Service", name)["spec"]["ports"][0]["port"] == number


def test_probes_request_the_health_page_with_an_allowed_host(secrets: Path) -> None:
    (container,) = dict(iter_pods(load_resources()))["portal"]["containers"]
    probe, variables = container["readinessProbe"], read_environment(list_kubernetes_processes()["portal"], secrets)
    assert probe["httpGet"]["path"] == "/oidc/health/"
    assert probe["httpGet"]["httpHeaders"] == [{"name": "Host", "value": variables["DJANGO_ALLOWED_HOSTS"]}]
    # The page answers within 2 s.
    assert probe["timeoutSeconds"] > 2
    assert find_resource("Ingress", "portal")["spec"]["rules"][0]["host"] == variables["DJANGO_ALLOWED_HOSTS"]


def select(selector: Mapping[str, Any], names: set[str]) -> set[str]:
    """Return the pods that a selector of the policies selects, by their label with the name."""
    if "matchExpressions" in selector:
        (expression,) = selector["matchExpressions"]
        assert (expression["key"], expression["operator"]) == ("app.kubernetes.io/name", "In")
        return names & set(expression["values"])
    labels = selector.get("matchLabels", {})
    return {name for name in names if all(labels[key] == name for key in labels)}


def list_connections(direction: str) -> set[tuple[str, str]]:
    """Return the pairs of client and server that the policies allow; outside of the namespace: `dns`, `*`."""
    names, pairs = {name for name, _ in iter_pods(load_resources())}, set()
    for policy in (each["spec"] for each in load_resources() if each["kind"] == "NetworkPolicy"):
        pods = select(policy["podSelector"], names)
        for rule in policy.get(direction, []):
            for peer in rule["to" if direction == "egress" else "from"]:
                others = select(peer["podSelector"], names) if "podSelector" in peer else {"*"}
                if "kube-system" in str(peer):
                    others = {"dns"}
                found = {(pod, other) for pod in pods for other in others}
                pairs |= found if direction == "egress" else {(other, pod) for pod, other in found}
    return pairs


def test_policies_allow_only_the_connections_that_a_process_needs() -> None:
    default = find_resource("NetworkPolicy", "default")["spec"]
    assert default == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    inside = {(name, "postgresql") for name in ("portal", "worker", "sealer", "migration")}
    inside |= {(name, "redis") for name in ("worker", "sealer", "beat")}
    outside = {("portal", "*"), ("worker", "*")}
    assert {pair for pair in list_connections("egress") if pair[1] != "dns"} == inside | outside
    assert list_connections("ingress") == inside | {("*", "portal")}


def test_networks_of_compose_allow_only_the_connections_that_a_process_needs() -> None:
    compose = load_compose()
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    assert {name for name, joined in networks.items() if joined == {"back"}} == {
        *("sealer", "beat", "migration", "postgresql", "redis")
    }
    assert networks["proxy"] == {"front"}
    assert compose["networks"]["back"]["internal"] is True


def test_containers_of_kubernetes_run_without_privileges_and_with_requests() -> None:
    for name, pod in iter_pods(load_resources()):
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"] > 0) == (True, True), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert ":" in container["image"]
        assert not container["image"].endswith(":latest")
    labels = find_resource("Namespace", "portal")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_containers_of_compose_run_without_privileges() -> None:
    for name, service in load_compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "unprivileged" in service["image"] or int(service["user"].split(":")[0]) > 0
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")


def test_portal_survives_a_drain_and_beat_runs_once() -> None:
    portal, budget = find_resource("Deployment", "portal"), find_resource("PodDisruptionBudget", "portal")["spec"]
    assert budget["selector"] == portal["spec"]["selector"] == find_portal_selector()
    assert budget["minAvailable"] < portal["spec"]["replicas"]
    beat = find_resource("Deployment", "beat")["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def find_portal_selector() -> dict[str, Any]:
    return {"matchLabels": find_resource("Service", "portal")["spec"]["selector"]}


def test_image_copies_existing_files_and_has_the_account_and_command_of_the_manifests() -> None:
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert len(sources) > 5
    assert [word for word in sources if not (ROOT / word).exists()] == []
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["python:3.13-slim"] * 2
    (uid,) = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    assert f"useradd --uid {uid} " in DOCKERFILE
    (command,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    assert tuple(json.loads(command)) == list_compose_processes()["portal"].command
    for name, service in load_compose()["services"].items():
        assert name not in list_compose_processes() or service["user"] == f"{uid}:{uid}"
    for name, pod in iter_pods(load_resources()):
        assert name not in list_kubernetes_processes() or pod["securityContext"]["runAsUser"] == int(uid)
    assert f"PORTAL_UID, POSTGRESQL_UID, REDIS_UID = {uid}, 999, 999" in (DEPLOY / "make_secrets.py").read_text()


def test_requirements_of_the_image_are_locked() -> None:
    lines = (DEPLOY / "packages.txt").read_text().splitlines()
    names = [line.partition("[")[0] for line in lines if line and not line.startswith("#")]
    locked = set(
        re.findall(r"^([a-z0-9-]+)(?:\[[^]]+\])?==", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    )
    assert set(names) <= locked
