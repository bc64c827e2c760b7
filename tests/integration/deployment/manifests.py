"""The files of `example_project/deploy`, parsed: which processes they declare."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "example_project"
DEPLOY = EXAMPLE / "deploy"
IMAGE = "phi-portal:1"
WORKLOADS = ("Deployment", "Job", "StatefulSet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A container of ours: its command, variables and mounted files."""

    name: str
    command: tuple[str, ...]
    env_files: tuple[str, ...]
    """Their names in the folder `deploy`; a later one takes precedence."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """They take precedence over the files."""
    secrets: frozenset[str] = frozenset()
    """The names of the files in /run/secrets."""


def read_variables(path: Path) -> dict[str, str]:
    """Return the variables of a file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def load_compose(*, asgi: bool = False) -> dict[str, Any]:
    """Return the compose file, merged with the one for ASGI, as far as that one goes."""
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    if asgi:
        for name, service in yaml.safe_load((DEPLOY / "compose.asgi.yaml").read_text())["services"].items():
            merged = compose["services"][name]
            merged["environment"] = {**merged.get("environment", {}), **service.pop("environment", {})}
            merged.update(service)
    return compose


def load_kustomization() -> dict[str, Any]:
    """Return the kustomization."""
    return dict(yaml.safe_load((DEPLOY / "kustomization.yaml").read_text()))


def load_resources(*, asgi: bool = False) -> list[dict[str, Any]]:
    """Return the resources of the kustomization; with asgi as its component changes them."""
    paths = [DEPLOY / name for name in load_kustomization()["resources"]]
    resources = [resource for path in paths for resource in yaml.safe_load_all(path.read_text())]
    if asgi:
        component = yaml.safe_load((DEPLOY / "asgi" / "kustomization.yaml").read_text())
        for patch in component["patches"]:
            target = patch["target"]
            (resource,) = [
                found
                for found in resources
                if (found["kind"], found["metadata"]["name"]) == (target["kind"], target["name"])
            ]
            for operation in yaml.safe_load(patch["patch"]):
                apply_patch(resource, operation)
    return resources


def apply_patch(resource: dict[str, Any], operation: Mapping[str, Any]) -> None:
    """Apply an operation of JSON Patch: `replace` of an existing member, `add` of a new one. Spec: RFC 6902."""
    *parents, last = operation["path"].lstrip("/").split("/")
    place: Any = resource
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    assert (last in place) == (operation["op"] == "replace")
    place[last] = operation["value"]


def iter_pods(resources: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the pod of each workload."""
    for resource in resources:
        if resource["kind"] in WORKLOADS:
            yield resource["metadata"]["name"], resource["spec"]["template"]["spec"]


def list_kubernetes_processes(*, asgi: bool = False) -> dict[str, Process]:
    """Return our processes by name."""
    kustomization = load_kustomization()
    generators = [*kustomization["configMapGenerator"], *kustomization["secretGenerator"]]
    generated = {generator["name"]: generator for generator in generators}
    processes = {}
    for name, pod in iter_pods(load_resources(asgi=asgi)):
        (container,) = pod["containers"]
        if not container["image"].endswith(f"/{IMAGE}"):
            continue
        sources = [reference["name"] for source in container["envFrom"] for reference in source.values()]
        mounted = {mount["subPath"] for mount in container["volumeMounts"] if "subPath" in mount}
        processes[name] = Process(
            name=name,
            command=tuple(container["command"]),
            env_files=tuple(file for source in sources for file in generated[source]["envs"]),
            environment={variable["name"]: variable["value"] for variable in container.get("env", [])},
            secrets=frozenset(mounted),
        )
    return processes


def list_compose_processes(*, asgi: bool = False) -> dict[str, Process]:
    """Return our processes by name."""
    return {
        name: Process(
            name=name,
            command=tuple(service["command"]),
            env_files=tuple(service["env_file"]),
            environment=service.get("environment", {}),
            secrets=frozenset(service["secrets"]),
        )
        for name, service in load_compose(asgi=asgi)["services"].items()
        if service["image"] == IMAGE
    }


def list_image_variables() -> dict[str, str]:
    """Return the variables that the Dockerfile sets."""
    (line,) = re.findall(r"^ENV (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())
