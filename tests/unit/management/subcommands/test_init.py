"""The files of `phi_oidc init`. tests/docs/test_docs.py runs a project with them."""

import stat
from io import StringIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.core.management import CommandError, call_command

from django_phi_oidc import conf


def init(folder: Path) -> str:
    out = StringIO()
    call_command("phi_oidc", "init", str(folder), stdout=out)
    return out.getvalue()


def test_init_writes_private_files_with_new_keys_and_prints_none(tmp_path: Path) -> None:
    printed = init(tmp_path / "new" / "secrets")
    other = init(tmp_path / "others")
    folder = tmp_path / "new" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"settings.py": 0o600, "portal.env": 0o600, "audit-signing-key.pem": 0o600}
    lines = [
        dict(line.split("=", 1) for line in (folder / "portal.env").read_text().splitlines())
        for folder in (folder, tmp_path / "others")
    ]
    rings = [conf.KEY_VARIABLES[ring] for ring in conf.KEY_RINGS]
    assert list(lines[0]) == ["OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", *rings]
    keys = [values[ring] for values in lines for ring in rings]
    assert len(set(keys)) == 6
    assert not any(key in text for key in keys for text in (printed, other, (folder / "settings.py").read_text()))
    pem = (folder / "audit-signing-key.pem").read_bytes()
    assert isinstance(load_pem_private_key(pem, None), Ed25519PrivateKey)
    assert pem.decode().splitlines()[1] not in printed


def test_init_into_an_existing_folder_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path / "secrets")
    before = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    with pytest.raises(CommandError, match="can't be written as a new folder: File exists"):
        init(tmp_path / "secrets")
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == before


def test_init_works_without_the_setting(tmp_path: Path, settings: object) -> None:
    del settings.PHI_OIDC  # type: ignore[attr-defined]
    assert "portal.env" in init(tmp_path / "secrets")
