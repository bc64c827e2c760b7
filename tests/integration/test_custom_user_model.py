"""A custom user model with its admin and template, in a separate process, because AUTH_USER_MODEL is fixed."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.temporary_databases import scratch_databases

ROOT = Path(__file__).resolve().parents[2]


def test_person_page_is_linked_from_a_custom_user_model(tmp_path: Path) -> None:
    with scratch_databases(tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.hospital_staff.page_process"],
            cwd=tmp_path,
            env={
                **environment,
                "DJANGO_SETTINGS_MODULE": "tests.integration.hospital_staff.settings",
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "": {"links": 0, "keeps the host template": False, "page": 403},
        "Privacy officer": {"links": 1, "keeps the host template": True, "page": 200},
        "denied": True,
    }
    assert "hospital_staff.view_member" in (tmp_path / "groups.txt").read_text()
