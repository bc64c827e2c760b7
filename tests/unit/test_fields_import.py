"""Effects of importing our field on the library, with and without a key of the host project."""

import base64
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GUARD = """
import sys
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
settings.configure(SECRET_KEY="x", **{declared})
{first}
from django_phi_oidc import fields
from encrypted_model_fields import fields as library
print(hasattr(settings, "FIELD_ENCRYPTION_KEY"), getattr(settings, "FIELD_ENCRYPTION_KEY", None))
try:
    print(library.decrypt_str(library.encrypt_str("text").decode()))
except ImproperlyConfigured as error:
    print("refused", "FIELD_ENCRYPTION_KEY" in str(error))
print(issubclass(fields.SealedTextField, library.EncryptedTextField))
"""


def guarded(declared: dict[str, Any], first: str = "") -> subprocess.CompletedProcess[str]:
    """Import in a separate process with FIELD_ENCRYPTION_KEY as declared."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GUARD.format(declared=repr(declared), first=first))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_import_without_a_key_fails_for_the_library_and_works_for_our_field() -> None:
    alone = guarded({}, first="import encrypted_model_fields.fields")
    assert "ImproperlyConfigured" in alone.stderr
    assert guarded({}).stdout.splitlines() == ["False None", "refused True", "True"]


def test_import_with_a_key_set_to_none_leaves_it_none() -> None:
    assert guarded({"FIELD_ENCRYPTION_KEY": None}).stdout.splitlines() == ["True None", "refused True", "True"]


def test_import_with_the_key_of_the_host_project_keeps_it() -> None:
    key = base64.urlsafe_b64encode(b"k" * 32).decode()
    assert guarded({"FIELD_ENCRYPTION_KEY": key}).stdout.splitlines() == [f"True {key}", "text", "True"]
