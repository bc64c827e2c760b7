"""`manage.py phi_oidc keys generate`, `status` and `retire`."""

import json
import os
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError, call_command

from django_phi_oidc import conf
from django_phi_oidc.contrib.key_rotation.subcommands.keys import generate_key_files
from django_phi_oidc.contrib.retention_keys.key_store import get_store
from django_phi_oidc.crypto import keyring
from django_phi_oidc.crypto.conf import PAIRWISE_KEY_RING
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.project_settings import KEY_RINGS
from django_phi_oidc.subjects.models import SubjectDigest
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import sign_in

ROOT = Path(__file__).resolve().parents[5]
PROGRAM = """
import sys
from pathlib import Path
import django
from django.conf import settings
apps = ["django.contrib.auth", "django.contrib.contenttypes", "django_phi_oidc", "django_phi_oidc.audit"]
apps += ["django_phi_oidc.contrib.key_rotation"]
settings.configure(PHI_OIDC={"KEYS": {"encryption": Path(sys.argv[1])}}, INSTALLED_APPS=apps)
django.setup()
from django_phi_oidc.contrib.key_rotation.subcommands.keys import generate_key_files
print("ready", flush=True)
sys.stdin.readline()
count = len(generate_key_files())
print(count, Path(sys.argv[1]).read_text().strip(), flush=True)
"""


@pytest.fixture
def files(settings: Any, tmp_path: Path) -> dict[str, Path]:
    """Configure a file for each ring in a missing directory."""
    rings = (*KEY_RINGS, PAIRWISE_KEY_RING)
    paths = {ring: tmp_path / "var" / "keys" / ring.lower() for ring in rings}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS=paths)
    return paths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keys(command: str, *arguments: str) -> tuple[str, str]:
    """Run `phi_oidc keys`; return its standard output and standard error."""
    out, err = StringIO(), StringIO()
    call_command("phi_oidc", "keys", command, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def generate() -> tuple[list[str], str]:
    """Return the lines on standard output, and standard error."""
    out, err = keys("generate")
    return out.splitlines(), err


def test_generate_key_files_writes_missing_files_with_valid_keys(files: dict[str, Path]) -> None:
    with pytest.raises(KeyMissing):
        keyring.get_keys("subject")
    assert generate_key_files() == list(files.values())
    assert len({keyring.get_keys(ring)[0].id for ring in files}) == len(files)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_generate_key_files_are_readable_only_by_their_owner(files: dict[str, Path], umask: int) -> None:
    before = os.umask(umask)
    try:
        generate_key_files()
    finally:
        os.umask(before)
    assert {mode(path) for path in files.values()} == {0o600}
    (directory,) = {path.parent for path in files.values()}
    assert mode(directory) == 0o700
    assert sorted(directory.iterdir()) == sorted(files.values())


def test_generate_key_files_does_not_change_existing_files(files: dict[str, Path]) -> None:
    old = keyring.generate_key()
    encryption = files["encryption"]
    encryption.parent.mkdir(parents=True)
    encryption.write_text(f"{old}\n")
    assert encryption not in generate_key_files()
    assert encryption.read_text() == f"{old}\n"
    assert generate_key_files() == []


@pytest.mark.parametrize("kind", ["empty file", "dangling link"])
def test_generate_key_files_does_not_change_files_without_a_key(
    files: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    encryption = files["encryption"]
    encryption.parent.mkdir(parents=True)
    if kind == "empty file":
        encryption.touch()
    else:
        encryption.symlink_to(tmp_path / "nowhere")
    assert encryption not in generate_key_files()
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(KeyMissing):
        keyring.get_keys("encryption")


def test_generate_key_files_writes_a_shared_file_once(files: dict[str, Path], settings: Any) -> None:
    shared = files["encryption"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": shared})
    assert generate_key_files().count(shared) == 1


def test_a4_generate_prepares_the_folder_of_the_retention_keys(settings: Any, tmp_path: Path) -> None:
    folder = tmp_path / "retention"
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": folder})
    with pytest.raises(KeyMissing):
        get_store().create("20261124-60")
    assert f"KEYS['retention']: the folder {folder} was prepared." in generate()[1]
    key = get_store().create("20261124-60")
    assert mode(folder) == 0o700
    assert f"KEYS['retention']: {folder} was prepared before and was not changed." in generate()[1]
    assert get_store().get("20261124-60") == key
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": None})
    assert "retention" not in generate()[1]


def test_generate_key_files_by_concurrent_processes_writes_one_file(tmp_path: Path) -> None:
    file = tmp_path / "var" / "encryption"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, file],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [run.stdout.readline() for run in runs if run.stdout] == ["ready\n"] * 4
    for run in runs:
        assert run.stdin
        run.stdin.write("go\n")
        run.stdin.flush()
    answers = [run.communicate(timeout=30)[0].split() for run in runs]
    assert sorted(count for count, _ in answers) == ["0", "0", "0", "1"]
    assert {key for _, key in answers} == {file.read_text().strip()}
    assert list(file.parent.iterdir()) == [file]


def test_keys_generate_without_files_prints_environment_lines(settings: Any) -> None:
    before = settings.PHI_OIDC
    lines, messages = generate()
    names, texts = zip(*(line.split("=", 1) for line in lines), strict=True)
    assert names == ("PHI_ENCRYPTION_KEYS", "PHI_SUBJECT_KEYS", "PHI_AUDIT_MAC_KEYS", "PHI_PAIRWISE_KEY")
    assert len(set(texts)) == 4
    for ring, text in zip((*KEY_RINGS, PAIRWISE_KEY_RING), texts, strict=True):
        settings.PHI_OIDC = {**before, "KEYS": {**before["KEYS"], ring: text}}
        assert len(keyring.get_keys(ring)) == 1
        assert text not in messages
    assert generate()[0] != lines


def test_keys_generate_with_files_prints_no_key_but_the_paths(files: dict[str, Path], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": [keyring.generate_key()]})
    lines, messages = generate()
    assert [line.partition("=")[0] for line in lines] == ["PHI_SUBJECT_KEYS"]
    assert f"KEYS['encryption']: a new key was written to {files['encryption']}." in messages
    assert f"KEYS['encryption']: {files['encryption']} exists and was not changed." in generate()[1]
    assert files["encryption"].read_text().strip() not in messages + "".join(lines)


def test_keys_generate_writes_or_prints_the_pairwise_key(files: dict[str, Path], settings: Any) -> None:
    messages = generate()[1]
    assert f"KEYS['pairwise']: a new key was written to {files['pairwise']}." in messages
    assert keyring.get_keys("pairwise")[0].material not in {keyring.get_keys(ring)[0].material for ring in KEY_RINGS}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"pairwise": [keyring.generate_key()]})
    lines, messages = generate()
    assert [line.partition("=")[0] for line in lines] == ["PHI_PAIRWISE_KEY"]
    assert "KEYS['pairwise']: a new key was printed, but not stored." in messages


def pem(kind: str) -> str:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "OKP" else ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


@pytest.mark.django_db
def test_keys_status_shows_subject_keys_client_keys_and_the_pairwise_key(settings: Any) -> None:
    texts = [keyring.generate_key() for _ in range(3)]
    declared = {"issuer": "https://op.example.test", "client_id": "portal"}
    signing = {
        "token_endpoint_auth_method": "private_key_jwt",
        "client_keys": [pem("EC"), pem("OKP"), {"key": pem("RSA"), "kid": "decryption", "use": "enc"}],
    }
    settings.PHI_OIDC = override_phi_oidc(
        settings.PHI_OIDC,
        KEYS={"subject": texts[:2]},
        PROVIDERS={"region": {**declared, **signing}, "plain": {**declared, "client_secret": "s"}},
    )
    new, old = keyring.get_keys("subject")
    sign_in([old], sub="dormant")
    sign_in([new, old])
    first, second, _ = conf.providers()["region"].client_keys

    status = json.loads(keys("status", "--json")[0])
    use = {"digests": 1, "persons_without_digest": 1, "dependent_persons": 0, "removable": True}
    assert status["subject_keys"] == {
        "persons": 2,
        "unknown_persons": 0,
        "keys": [
            {"id": new.id, "position": 1, **use},
            {
                "id": old.id,
                "position": 2,
                "digests": 2,
                "persons_without_digest": 0,
                "dependent_persons": 1,
                "removable": False,
            },
        ],
    }
    assert status["client_keys"] == [
        {"provider": "region", "kid": first.kid, "use": "sig", "alg": "ES256", "signs": True},
        {"provider": "region", "kid": second.kid, "use": "sig", "alg": "EdDSA", "signs": False},
        {"provider": "region", "kid": "decryption", "use": "enc", "alg": None, "signs": False},
    ]
    assert status["pairwise_key"] == []

    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"pairwise": texts[2]})
    pairwise = keyring.get_keys("pairwise")[0].id
    assert json.loads(keys("status", "--json")[0])["pairwise_key"] == [pairwise]
    lines = keys("status")[0].splitlines()
    assert lines[lines.index("KEYS['subject']: 2 persons, 0 of them known by no key") :] == [
        "KEYS['subject']: 2 persons, 0 of them known by no key",
        f"1  {new.id}  1 digests, missing for 1 persons: may be removed",
        f"2  {old.id}  2 digests, missing for 0 persons: needed for 1 persons",
        f"client key of region: {first.kid} (ES256): signs",
        f"client key of region: {second.kid} (EdDSA): published, does not sign",
        "client key of region: decryption: decrypts",
        f"KEYS['pairwise']: {pairwise}",
    ]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": texts[:1]})
    output = keys("status")[0]
    assert "KEYS['subject']: 2 persons, 1 of them known by no key\n" in output
    assert f"-  {old.id}  2 digests, missing for 0 persons: not configured, but needed for 1 persons" in output
    assert not any(text in output for text in texts)


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [("status",), ("retire", "0123abcd")])
def test_keys_without_a_subject_key_is_an_error(arguments: tuple[str, ...], settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": []})
    with pytest.raises(CommandError, match="subject"):
        keys(*arguments)


@pytest.mark.parametrize("key_id", ["", "0123abc", "0123abcde", "0123abcg", "0123ABCD"])
def test_keys_retire_of_an_invalid_key_id_is_an_error(key_id: str) -> None:
    with pytest.raises(CommandError, match="eight hexadecimal digits"):
        keys("retire", key_id)


@pytest.mark.django_db
def test_keys_retire_prints_the_number_and_refuses_a_needed_key(settings: Any) -> None:
    texts = [keyring.generate_key() for _ in range(2)]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": texts})
    new, old = keyring.get_keys("subject")
    sign_in([new, old])
    with pytest.raises(CommandError, match="is configured"):
        keys("retire", old.id)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": texts[:1]})
    for digests in (1, 0):
        assert keys("retire", old.id) == (f"{digests} digests of key {old.id} were deleted.\n", "")
    assert SubjectDigest.objects.get().key_id == new.id
