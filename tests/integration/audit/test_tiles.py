"""Tiles, checkpoint and proofs are verified by libraries of other authors: sumdb/note and sumdb/tlog of Go."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from django_phi_oidc.audit.log.proofs import create_inclusion_proof
from django_phi_oidc.audit.log.tile_export import export_tiles
from django_phi_oidc.audit.log.tile_store import TileFolder
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from tests.support.audit_log import KEY, OTHER_KEY, sealed
from tests.support.external_tools import GO_PATH, PARTS

pytestmark = [pytest.mark.go, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]
SOURCE = Path(__file__).parent / "go" / "verify_log.go"
VERIFIER_KEY = encode_verifier_key("phi-oidc-audit", KEY.public_key())
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the program offline, with the sources of Debian's package."""
    folder = tmp_path_factory.mktemp("go")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH, "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    environment["GOCACHE"] = str(folder / "cache")
    subprocess.run(
        [PARTS["go"]().where, "build", "-o", folder / "verify_log", SOURCE], env=environment, check=True, timeout=300
    )
    return folder / "verify_log"


@pytest.fixture
def run(go_program: Path) -> Run:
    def verify(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [go_program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
        )

    return verify


@pytest.mark.parametrize("sizes", [(1,), (256,), (255, 2), (300, 700)], ids=str)
def test_go_verifies_every_leaf_and_a_proof(run: Run, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        ids = sealed(size)
        export_tiles(TileFolder(tmp_path), keys=[KEY.public_key()])
    proof = tmp_path / "proof.json"
    proof.write_text(create_inclusion_proof(ids[size // 2]))
    done = run(tmp_path, VERIFIER_KEY, proof)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sum(sizes)} leaves verified\n", "")


def test_go_refuses_each_damage(run: Run, tmp_path: Path) -> None:
    ids = sealed(600)
    export_tiles(TileFolder(tmp_path), keys=[KEY.public_key()])
    proof = tmp_path / "proof.json"
    proof.write_text(create_inclusion_proof(ids[400]))
    assert run(tmp_path, VERIFIER_KEY, proof).returncode == 0
    assert run(tmp_path, encode_verifier_key("phi-oidc-audit", OTHER_KEY.public_key()), proof).returncode == 1
    for name in ("tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2", "checkpoint"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert run(tmp_path, VERIFIER_KEY).returncode == 1, name
        (tmp_path / name).write_bytes(whole)
    bundle = json.loads(proof.read_text())
    for changed in ({"leaf_index": 401}, {"event": {**bundle["event"], "actor": "8"}}, {"proof": bundle["proof"][1:]}):
        proof.write_text(json.dumps({**bundle, **changed}))
        assert run(tmp_path, VERIFIER_KEY, proof).returncode == 1, changed
    proof.write_text(json.dumps(bundle))
    assert run(tmp_path, VERIFIER_KEY, proof).returncode == 0
