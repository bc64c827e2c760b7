"""The units for systemd: its own verification accepts them, and they run the commands of the manifests."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.deployment.manifests import DEPLOY, list_compose_processes
from tests.integration.deployment.test_manifests import list_settings

UNITS = {path.stem: path.read_text() for path in (DEPLOY / "systemd").glob("*.service")}
PROCESSES = {"portal": "portal", "portal-worker": "worker", "portal-sealer": "sealer", "portal-beat": "beat"}
PROGRAMS = "/srv/portal/.venv/bin"


def test_each_process_but_the_migration_has_a_unit() -> None:
    assert set(UNITS) == set(PROCESSES)
    assert set(list_compose_processes()) - set(PROCESSES.values()) == {"migration"}


@pytest.mark.systemd
@pytest.mark.parametrize("name", PROCESSES)
def test_systemd_accepts_the_unit_and_refuses_a_misspelt_option(name: str, tmp_path: Path) -> None:
    def verify(text: str) -> str:
        path = tmp_path / f"{name}.service"
        path.write_text(text.replace(PROGRAMS, str(Path(sys.executable).parent)))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=60
        )
        return done.stderr

    assert verify(UNITS[name]) == ""
    assert "NoNewPrivilege" in verify(UNITS[name].replace("NoNewPrivileges", "NoNewPrivilege"))


@pytest.mark.parametrize(("name", "process"), PROCESSES.items())
def test_unit_runs_the_command_of_the_manifests(name: str, process: str) -> None:
    (line,) = re.findall(r"^ExecStart=(.+)$", UNITS[name], re.MULTILINE)
    command = [word.replace("127.0.0.1", "0.0.0.0") for word in shlex.split(line.removeprefix(f"{PROGRAMS}/"))]
    assert tuple(command) == list_compose_processes()[process].command
    variables = set(re.findall(r"(?:^Environment=| )([A-Z_]+)=", UNITS[name], re.MULTILINE))
    assert variables <= set(list_settings())
    assert ("PHI_AUDIT_SIGNING_KEY" in variables) is (process == "sealer")


def test_account_of_the_sealer_runs_nothing_else_and_shares_no_folder() -> None:
    """Processes of one account can read each other's memory, environment and credentials (proc(5))."""

    def read(name: str, option: str) -> str:
        return " ".join(re.findall(rf"^{option}=(.+)$", UNITS[name], re.MULTILINE))

    assert "audit-signing-key.pem" in read("portal-sealer", "LoadCredential")
    for option in ("User", "Group", "StateDirectory"):
        others = {read(name, option) for name in UNITS if name != "portal-sealer"}
        assert others == {"portal"}
        assert read("portal-sealer", option) == "portal-sealer"
    assert "%S/portal/" not in UNITS["portal-sealer"]
