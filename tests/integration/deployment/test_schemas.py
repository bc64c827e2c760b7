"""Compose and kustomize read the manifests, which are valid for their schemas. Faults in them are found."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deployment.manifests import (
    DEPLOY,
    ROOT,
    iter_pods,
    list_compose_processes,
    list_kubernetes_processes,
    load_compose,
    load_resources,
    read_variables,
)
from tests.support.manual_blocks import block
from tests.support.validators import validators_python  # noqa: F401 -- a fixture

OLDEST_KUBERNETES = "1.34"
VALIDATE = """
import json, sys
from kubernetes_validate import ValidationError, validate
faults = {}
for name, resources in json.load(open(sys.argv[1])).items():
    for resource in resources:
        try:
            validate(resource, sys.argv[2], strict=True)
        except ValidationError as error:
            faults.setdefault(name, []).append(f"{resource['kind']} {resource['metadata']['name']}: {error.message}")
print(json.dumps(faults))
"""


def find_compose_fault(python: Path, folder: Path, compose: dict[str, Any]) -> str:
    """Return the output of the validator; empty if it found nothing."""
    path = folder / "compose.json"
    path.write_text(json.dumps(compose))
    command = [python.with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path]
    return run(command)


def find_kubernetes_faults(python: Path, folder: Path, cases: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return the faults of the cases that have some. One call for all: it takes seconds to start."""
    path = folder / "resources.json"
    path.write_text(json.dumps(cases))
    command = [python, "-c", VALIDATE, path, OLDEST_KUBERNETES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return dict(json.loads(done.stdout))


def run(command: list[Any]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout + done.stderr if done.returncode else ""


KUBERNETES_FAULTS: dict[str, Callable[[Any], object]] = {
    "a misspelt key": lambda pod: pod["containers"][0].update(readinesProbe={}),
    "a text as a number": lambda pod: pod["containers"][0]["readinessProbe"].update(periodSeconds="10"),
    "a container without a name": lambda pod: pod["containers"][0].pop("name"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the manifests with secrets, as an operator has it."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets"))
    command = [sys.executable, folder / "make_secrets.py"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={"PYTHONPATH": str(ROOT)})
    for name in ("tls.crt", "tls.key"):
        (folder / "secrets" / name).touch()
    return folder


def build(folder: Path) -> list[dict[str, Any]]:
    """Return the resources that kustomize builds."""
    built = subprocess.run(["kustomize", "build", folder], check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.safe_load_all(built.stdout))


@pytest.mark.kustomize
def test_kustomize_builds_valid_manifests_with_the_secrets_and_faults_are_found(
    folder: Path, validators_python: Path
) -> None:
    resources = build(folder)
    cases = {"kustomize": resources, "asgi": load_resources(asgi=True)}
    for fault, break_pod in KUBERNETES_FAULTS.items():
        cases[fault] = load_resources()
        break_pod(dict(iter_pods(cases[fault]))["portal"])
    faults = find_kubernetes_faults(validators_python, folder, cases)
    assert set(faults) == set(KUBERNETES_FAULTS)
    assert all("Deployment portal" in found for (found,) in faults.values())
    names = {resource["metadata"]["name"] for resource in resources}
    assert {resource["metadata"].get("namespace", "portal") for resource in resources} == {"portal"}
    variables = read_variables(folder / "secrets" / "migration.env")
    for name, pod in iter_pods(resources):
        (container,) = pod["containers"]
        if name in (processes := list_kubernetes_processes()):
            assert tuple(container["command"]) == processes[name].command
        used = [reference["name"] for source in container.get("envFrom", []) for reference in source.values()]
        used += [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        assert used
        assert set(used) <= names
        if name == "migration":
            (secret,) = [each for each in resources if each["metadata"]["name"] == used[2]]
            found = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
            assert found == variables


@pytest.mark.kustomize
def test_component_of_the_page_runs_the_portal_on_uvicorn(folder: Path) -> None:
    with (folder / "kustomization.yaml").open("a") as file:
        file.write(block("deploy-kubernetes", "asgi"))
    (container,) = dict(iter_pods(build(folder)))["portal"]["containers"]
    assert tuple(container["command"]) == list_kubernetes_processes(asgi=True)["portal"].command
    assert container["env"] == [{"name": "DATABASE_CONN_MAX_AGE", "value": "0"}]


@pytest.mark.kustomize
def test_kustomize_refuses_a_missing_secret(folder: Path) -> None:
    (folder / "secrets" / "sealer.env").unlink()
    done = subprocess.run(["kustomize", "build", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "sealer.env" in done.stderr


def read_with_compose(folder: Path, *files: str) -> "subprocess.CompletedProcess[str]":
    named = [word for file in files for word in ("--file", file)]
    command = ["docker-compose", *named, "config", "--format", "json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.compose
@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_compose_reads_commands_and_variables_as_the_tests_do(asgi: bool, folder: Path) -> None:
    done = read_with_compose(folder, "compose.yaml", *(["compose.asgi.yaml"] if asgi else []))
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for name, process in list_compose_processes(asgi=asgi).items():
        assert tuple(services[name]["command"]) == process.command
        variables: dict[str, str] = {}
        for path in process.env_files:
            variables |= read_variables(folder / path)
        # The value of DATABASE_ROLES_JSON has quotes and braces.
        assert services[name]["environment"] == variables | process.environment


@pytest.mark.compose
def test_compose_refuses_a_misspelt_key(folder: Path) -> None:
    path = folder / "compose.yaml"
    path.write_text(path.read_text().replace("read_only: true", "readonly: true"))
    done = read_with_compose(folder, "compose.yaml")
    assert done.returncode != 0
    assert "readonly" in done.stderr


COMPOSE_FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a misspelt key": lambda services: services["portal"].update(readonly=True),
    "a number as a command": lambda services: services["beat"].update(command=7),
    "an unknown condition": lambda services: services["portal"]["depends_on"]["migration"].update(condition="done"),
}


@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_compose_file_is_valid(asgi: bool, validators_python: Path, tmp_path: Path) -> None:
    assert find_compose_fault(validators_python, tmp_path, load_compose(asgi=asgi)) == ""


@pytest.mark.parametrize("break_services", COMPOSE_FAULTS.values(), ids=COMPOSE_FAULTS)
def test_fault_in_the_compose_file_is_found(
    break_services: Callable[[dict[str, Any]], object], validators_python: Path, tmp_path: Path
) -> None:
    compose = load_compose()
    break_services(compose["services"])
    assert "Schema validation errors" in find_compose_fault(validators_python, tmp_path, compose)
