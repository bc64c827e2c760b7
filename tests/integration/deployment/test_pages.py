"""The blocks of the pages about deployment are those of the manifests, or name what exists."""

import re
import shlex
from typing import Any

import pytest

from tests.integration.deployment.manifests import (
    DEPLOY,
    EXAMPLE,
    ROOT,
    iter_pods,
    list_compose_processes,
    load_compose,
    load_resources,
)
from tests.support.manual_blocks import block, commands


def split_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("page", "name", "path"),
    [
        ("deploy-nginx", "server", "nginx.conf"),
        ("deploy-pgbouncer", "ini", "pgbouncer.ini"),
    ],
)
def test_block_is_a_part_of_the_file(page: str, name: str, path: str) -> None:
    file, shown = split_lines((DEPLOY / path).read_text()), split_lines(block(page, name))
    assert any(file[start : start + len(shown)] == shown for start in range(len(file)))


@pytest.mark.parametrize(("name", "asgi"), [("gunicorn", False), ("uvicorn", True)])
def test_server_of_the_page_is_that_of_the_manifests(name: str, asgi: bool) -> None:
    (command,) = commands("deploy-servers", name)
    assert tuple(command) == list_compose_processes(asgi=asgi)["portal"].command


def test_shown_unit_of_the_sealer_consists_of_lines_of_the_file() -> None:
    shown = split_lines(block("deploy-systemd", "sealer"))
    file = split_lines((DEPLOY / "systemd" / "portal-sealer.service").read_text())
    assert [line for line in file if line in shown] == shown


def test_shown_commands_for_systemd_name_the_files_and_units() -> None:
    install, copy, _, enable = commands("deploy-systemd", "start")
    text = (ROOT / "django_phi_oidc" / "contrib" / "adoption" / "subcommands" / "init.py").read_text()
    assert all(f'"{word.removeprefix("secrets/")}"' in text for word in install if word.startswith("secrets/"))
    assert copy[1] == "example_project/deploy/systemd/*.service"
    assert set(enable[3:]) == {path.name for path in (DEPLOY / "systemd").iterdir()}
    read = re.findall(r"^(?:EnvironmentFile=|LoadCredential=\S+?:)(\S+)$", _read_units(), re.MULTILINE)
    table = re.findall(r"^\| `(/etc/portal/\S+)`", (ROOT / "docs/how-to/deploy-systemd.md").read_text(), re.MULTILINE)
    assert set(table) == set(read)


def _read_units() -> str:
    return "\n".join(path.read_text() for path in (DEPLOY / "systemd").iterdir())


@pytest.mark.parametrize(
    ("page", "name"),
    [
        *(("deploy-docker", name) for name in ("start", "migration", "asgi")),
        ("deploy-kubernetes", "apply"),
    ],
)
def test_shown_commands_use_existing_files_and_names(page: str, name: str) -> None:
    jobs = {name for name, _ in iter_pods(load_resources())}
    for words in commands(page, name):
        match words:
            case ["python", script]:
                assert (DEPLOY / script).exists()
            case ["python", "manage.py", command]:
                own = EXAMPLE / "portal" / "management" / "commands" / f"{command}.py"
                assert own.exists()
                assert f"python manage.py {command}" in " ".join(list_compose_processes()["migration"].command)
            case ["docker", "compose", *rest]:
                assert {*rest} & {"build", "up"}
                assert all((DEPLOY / rest[at + 1]).exists() for at, word in enumerate(rest) if word == "--file")
            case ["kubectl", "apply", "--kustomize", folder]:
                assert (DEPLOY / folder / "kustomization.yaml").exists()
            case ["kubectl", "--namespace", "portal", "wait", _, target]:
                assert target.removeprefix("job/") in jobs
            case _:
                pytest.fail(shlex.join(words))


def test_settings_for_a_pooler_change_both_aliases() -> None:
    databases: dict[str, Any] = {
        "default": {"OPTIONS": {}},
        "phi_audit": {"OPTIONS": {"prepare_threshold": 5, "connect_timeout": 2}},
    }
    exec(block("deploy-pgbouncer", "settings"), {"DATABASES": databases})
    assert databases == {
        "default": {"OPTIONS": {}, "DISABLE_SERVER_SIDE_CURSORS": True},
        "phi_audit": {"OPTIONS": {"connect_timeout": 2}, "DISABLE_SERVER_SIDE_CURSORS": True},
    }


def test_table_of_the_secrets_names_each_file() -> None:
    text = (ROOT / "docs" / "how-to" / "deploy-docker.md").read_text()
    named = set(re.findall(r"`([^`\n]+)`", text.partition("## What the script writes")[2]))
    files = {secret["file"].removeprefix("./secrets/") for secret in load_compose()["secrets"].values()}
    files |= {
        path.removeprefix("secrets/") for process in list_compose_processes().values() for path in process.env_files
    }
    # The first is in the repository, the operator writes the others.
    for name in files - {"configuration.env", "tls.crt", "tls.key"}:
        assert {name, f"{name.partition('.')[0]}.*"} & named, name


@pytest.mark.parametrize("process", ["portal", "worker", "sealer", "beat"])
def test_page_about_sizes_names_each_process(process: str) -> None:
    text = (ROOT / "docs" / "how-to" / "sizing.md").read_text()
    assert re.search(rf"^- (?:[a-z ]*)\b{process}\b", text, re.MULTILINE)
