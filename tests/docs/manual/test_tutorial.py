"""The tutorial is done from an empty folder, as it stands, by a shell. Only the ports are others: runs do not meet."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docs.test_docs import free_port

ROOT = Path(__file__).resolve().parents[3]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"<!-- tested: (\S+) -->\n```(\w+)\n(.*?)```", re.DOTALL)
SHELL = """\
set -euo pipefail
answers() { python - "$1" <<'END'
import socket, sys, time
for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(sys.argv[1]))) == 0:
            sys.exit(0)
    time.sleep(0.2)
sys.exit("no answer")
END
}
"""
VISIT = """\
import sys
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, build_opener

from django_phi_oidc.testing.mock_provider import sign_in


class UntilTheProvider(HTTPRedirectHandler):
    def redirect_request(self, request, fp, code, msg, headers, newurl):
        return None if "/authorize" in newurl else super().redirect_request(request, fp, code, msg, headers, newurl)


browser = build_opener(HTTPCookieProcessor(), UntilTheProvider())
try:
    browser.open(sys.argv[1])
    sys.exit("shown to an anonymous user")
except HTTPError as led:
    back = sign_in(led.headers["Location"], username="amina", password="amina-demo")
print(browser.open(back).read().decode())
"""


def commands(block: str) -> list[str]:
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def script(folder: Path, port: int, op_port: int) -> str:
    """Return what a reader does at a shell, block by block."""
    parts = [SHELL]
    for name, language, block in BLOCK.findall(TUTORIAL):
        match name:
            case "install":
                continue
            case "console":
                parts += commands(block)
            case "provider":
                parts += [
                    f"{commands(block)[0]} --port {op_port} --portal http://127.0.0.1:{port} &",
                    f"answers {op_port}",
                ]
            case "portal":
                parts += [f"{commands(block)[0]} --noreload {port} &", f"answers {port}"]
            case "page":
                visit = f"python {folder}/../visit.py http://127.0.0.1:{port}/"
                parts.append(f"{visit} | tee seen; grep -qxF '{block.strip()}' seen")
            case "events":
                parts.append(f"{commands(block)[0]} | tee events; grep -q claim.revealed events")
                parts.append("if grep 1984-03-09 events; then exit 1; fi")
            case "refused":
                parts.append(f"if {commands(block)[0]} 2> refusal; then exit 1; fi")
                parts.append("cat refusal; grep -q 'never changed or deleted' refusal")
            case _:
                assert language == "python", name
                parts.append(f"cat >> {name} <<'END'\n{block}END")
    return "\n".join(parts).replace("127.0.0.1:8765", f"127.0.0.1:{op_port}") + "\n"


@pytest.mark.sqlite
def test_tutorial_leads_from_an_empty_folder_to_a_sign_in(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "visit.py").write_text(VISIT)
    (tmp_path / "script").write_text(script(folder, free_port(), free_port()))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
    }
    with (tmp_path / "output").open("w") as output:
        shell = subprocess.Popen(
            ["bash", tmp_path / "script"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(timeout=180)
        finally:
            # A shell that failed early has left no process.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = (tmp_path / "output").read_text()
    assert status == 0, printed
    assert "no faults" in printed


def test_every_block_is_done_but_the_installation_which_is_before() -> None:
    blocks = BLOCK.findall(TUTORIAL)
    assert len(blocks) == len(re.findall(r"^```\w+$", TUTORIAL, re.MULTILINE))
    assert [name for name, _, block in blocks if "pip install" in block] == ["install"]
