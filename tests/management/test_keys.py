"""Keys are made once, readable by their owner alone, and never overwritten."""

import os
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import OutputWrapper

from django_phi_oidc import conf, keyring
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.management.keys import generate_key_files, handle

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from django.conf import settings
settings.configure(PHI_OIDC={"ENCRYPTION_KEYS": Path(sys.argv[1])})
from django_phi_oidc.management.keys import generate_key_files
print("ready", flush=True)
sys.stdin.readline()
made = len(generate_key_files())
print(made, Path(sys.argv[1]).read_text().strip(), flush=True)
"""


@pytest.fixture
def files(settings: Any, tmp_path: Path) -> dict[str, Path]:
    """Name a file for each ring, in a directory that does not exist."""
    named = {ring: tmp_path / "var" / "keys" / ring.lower() for ring in conf.KEY_RINGS}
    settings.PHI_OIDC = {**settings.PHI_OIDC, **named}
    return named


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def generate() -> tuple[list[str], str]:
    """Run the subcommand; return the lines for stdin's reader and what was told besides."""
    out, err = StringIO(), StringIO()
    handle({"keys_command": "generate"}, stdout=OutputWrapper(out), stderr=OutputWrapper(err))
    return out.getvalue().splitlines(), err.getvalue()


def test_generate_key_files_makes_each_missing_file_and_rings_work(files: dict[str, Path]) -> None:
    with pytest.raises(KeyMissing):
        keyring.keys("SUBJECT_KEYS")
    assert generate_key_files() == list(files.values())
    assert len({keyring.keys(ring)[0].id for ring in files}) == len(files)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_generate_key_files_gives_them_to_their_owner_alone(files: dict[str, Path], umask: int) -> None:
    before = os.umask(umask)
    try:
        generate_key_files()
    finally:
        os.umask(before)
    assert {mode(path) for path in files.values()} == {0o600}
    (directory,) = {path.parent for path in files.values()}
    assert mode(directory) == 0o700
    assert sorted(directory.iterdir()) == sorted(files.values())


def test_generate_key_files_leaves_what_is_there(files: dict[str, Path]) -> None:
    old = keyring.generate()
    encryption = files["ENCRYPTION_KEYS"]
    encryption.parent.mkdir(parents=True)
    encryption.write_text(f"{old}\n")
    assert encryption not in generate_key_files()
    assert encryption.read_text() == f"{old}\n"
    assert generate_key_files() == []


@pytest.mark.parametrize("kind", ["empty file", "dangling link"])
def test_generate_key_files_leaves_even_what_holds_no_key(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    encryption = files["ENCRYPTION_KEYS"]
    encryption.parent.mkdir(parents=True)
    if kind == "empty file":
        encryption.touch()
    else:
        encryption.symlink_to(tmp_path / "nowhere")
    assert encryption not in generate_key_files()
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(KeyMissing):
        keyring.keys("ENCRYPTION_KEYS")


def test_generate_key_files_of_one_file_for_two_rings_makes_it_once(files: dict[str, Path], settings: Any) -> None:
    shared = files["ENCRYPTION_KEYS"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SUBJECT_KEYS": shared}
    assert generate_key_files().count(shared) == 1


def test_generate_key_files_by_many_at_once_makes_one_file_that_all_see(tmp_path: Path) -> None:
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
    assert sorted(made for made, _ in answers) == ["0", "0", "0", "1"]
    assert {key for _, key in answers} == {file.read_text().strip()}
    assert list(file.parent.iterdir()) == [file]


def test_keys_generate_without_files_prints_ready_lines_and_stores_nothing(settings: Any) -> None:
    before = settings.PHI_OIDC
    lines, told = generate()
    names, texts = zip(*(line.split("=", 1) for line in lines), strict=True)
    assert names == ("PHI_ENCRYPTION_KEYS", "PHI_SUBJECT_KEYS", "PHI_AUDIT_MAC_KEYS")
    assert len(set(texts)) == 3
    for ring, text in zip(conf.KEY_RINGS, texts, strict=True):
        settings.PHI_OIDC = {**before, ring: text}
        assert len(keyring.keys(ring)) == 1
        assert text not in told
    assert generate()[0] != lines


def test_keys_generate_with_files_prints_no_key_and_tells_what_it_did(files: dict[str, Path], settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "SUBJECT_KEYS": [keyring.generate()]}
    lines, told = generate()
    assert [line.partition("=")[0] for line in lines] == ["PHI_SUBJECT_KEYS"]
    assert f"ENCRYPTION_KEYS: a new key was written to {files['ENCRYPTION_KEYS']}." in told
    assert f"ENCRYPTION_KEYS: {files['ENCRYPTION_KEYS']} was there, and left as it is." in generate()[1]
    assert files["ENCRYPTION_KEYS"].read_text().strip() not in told + "".join(lines)
