"""The short manual is done from an empty folder, as it stands, by a shell, with the core and the audit log."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from django.template import engines
from django.test import RequestFactory

from tests.docs.manual.test_tutorial import BLOCK, SHELL, VISIT, commands
from tests.docs.test_docs import free_port
from tests.support.manual_blocks import PAGES, ROOT, block

MAX_WORDS = 5_000
TEXT = PAGES["short-manual"].read_text()
GRANT = """\
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

user = get_user_model().objects.get()
user.user_permissions.add(Permission.objects.get(codename="view_user"))
open("user", "w").write(user.get_username())
"""
BEAT = """\
from portal.celery import app

names = set(app.conf.beat_schedule)
assert {"phi_oidc.seal", "phi_oidc.scrub"} <= names
assert "phi_oidc.deliver" not in names, "the task of an app that is not installed"
"""


def build_script(port: int, op_port: int) -> str:
    """Return what a reader does at a shell, block by block."""
    parts = [SHELL]
    chart = f"python ../visit.py http://127.0.0.1:{port}/charts/7/"
    for name, language, code in BLOCK.findall(TEXT):
        match name:
            case "install" | "form":
                continue
            case "console":
                parts += commands(code)
            case "provider":
                parts.append(f"{commands(code)[0]} --port {op_port} --portal http://127.0.0.1:{port} &")
                parts.append(f"answers {op_port}")
            case "portal":
                parts.append(f"{commands(code)[0]} --noreload {port} &")
                parts.append(f"answers {port}")
            case "page":
                visit = f"python ../visit.py http://127.0.0.1:{port}/"
                parts.append(f"{visit} | tee seen; grep -qxF '{code.strip()}' seen")
                parts.append(f"if {chart} > chart 2>&1; then exit 1; fi; grep -q 'HTTP Error 403' chart")
                parts.append("python manage.py shell -v 0 < ../grant.py")
                parts.append(f"{chart} | tee chart; grep -qx 'The chart of 7' chart")
            case "administrator":
                groups, grant = commands(code)
                parts.append(groups)
                parts.append(f"{grant.replace('USER', '$(cat user)')} --yes")
            case "ends":
                parts += commands(code)
            case "events":
                parts.append(f"{commands(code)[0]} | tee events; grep -q claim.revealed events")
                parts.append("if grep 1984-03-09 events; then exit 1; fi")
            case "deploy":
                parts.append("python ../beat.py")
                parts.append("export PORTAL_DEBUG= OIDC_ISSUER=https://op.example.org PORTAL_SECRET_KEY=$(seq -s - 50)")
                parts += commands(code)
                parts.append("python manage.py phi_oidc apps | tee apps; test $(grep -c ': installed' apps) = 3")
            case _:
                assert language == "python", name
                parts.append(f"cat >> {name} <<'END'\n{code}END")
    return "\n".join(parts).replace("127.0.0.1:8765", f"127.0.0.1:{op_port}") + "\n"


@pytest.mark.sqlite
def test_short_manual_leads_from_an_empty_folder_to_production_settings(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    for name, text in {"visit.py": VISIT, "grant.py": GRANT, "beat.py": BEAT}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "script").write_text(build_script(free_port(), free_port()))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
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
            status = shell.wait(timeout=300)
        finally:
            # A shell that failed early has left no process.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = (tmp_path / "output").read_text()
    assert status == 0, printed
    assert "no faults" in printed


def test_form_posts_to_the_logout() -> None:
    rendered = engines["django"].from_string(block("short-manual", "form")).render({}, RequestFactory().get("/"))
    assert 'action="/oidc/logout/"' in rendered
    assert "csrfmiddlewaretoken" in rendered


def test_short_manual_is_short() -> None:
    assert len(TEXT.split()) <= MAX_WORDS
