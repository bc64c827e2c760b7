"""The portal behind nginx, with the configuration of the manifests."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.integration.deployment.manifests import DEPLOY, Process, list_kubernetes_processes
from tests.integration.deployment.running import BASE_URL, HOST, DeployedBrowser, Deployment, running
from tests.support.glewlwyd import find_free_port, wait_for_server
from tests.support.http_browser import PortalResponse, state_cookies

pytestmark = [pytest.mark.nginx, pytest.mark.sqlite]
GUNICORN = list_kubernetes_processes()["portal"]
UVICORN = list_kubernetes_processes(asgi=True)["portal"]
BROWSER = "127.0.0.2"
"""The address of the browser. The portal trusts 127.0.0.1, from which nginx connects to it."""
FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running nginx: its ports, and the file of its log."""

    port: int
    plain_port: int
    log: Path
    certificate: str

    def create_browser(self) -> DeployedBrowser:
        """Return a browser that is connected to nginx by TLS."""
        address = f"127.0.0.1:{self.port}"
        return DeployedBrowser(BASE_URL, address=address, certificate=self.certificate, source=BROWSER)


def translate(folder: Path, ports: tuple[int, int], portal: str, certificate: Path) -> Path:
    """Write the configuration with the ports, folders and certificate of this machine, and return its path."""
    text = (DEPLOY / "nginx.conf").read_text()
    replaced = {
        "/tmp/": f"{folder}/",
        "/dev/std": f"{folder}/std",
        "/run/secrets/tls.crt": str(certificate),
        "/run/secrets/tls.key": str(certificate),
        "listen 8080;": f"listen 127.0.0.1:{ports[1]};",
        "listen 8443 ssl;": f"listen 127.0.0.1:{ports[0]} ssl;",
        "portal:8000;": f"{portal};",
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


@contextmanager
def proxying(program: str, folder: Path, portal: str, certificate: Path, **changed: str) -> Iterator[Proxy]:
    """Run nginx before the portal. changed: directives with other values than in the manifests."""
    ports = (find_free_port(), find_free_port())
    path = translate(folder, ports, portal, certificate)
    lines = path.read_text().splitlines()
    for name, value in changed.items():
        (number,) = [number for number, line in enumerate(lines) if line.strip().startswith(f"{name} ")]
        lines[number] = f"{name} {value};"
    path.write_text("\n".join(lines))
    # Its workers run as another account.
    folder.chmod(0o755)
    command = [program, "-p", str(folder), "-c", str(path), "-g", "daemon off;"]
    with running(command, {}, folder / "nginx.log") as process:
        wait_for_server(process, ports[0], log=folder / "nginx.log")
        yield Proxy(ports[0], ports[1], folder / "stdout", str(certificate))


@pytest.fixture
def proxy(nginx_path: str, tmp_path: Path, deployment: Deployment, certificate: Path) -> Iterator[Proxy]:
    """Run nginx before gunicorn."""
    with deployment.running(GUNICORN):
        deployment.wait_until_healthy()
        with proxying(nginx_path, tmp_path, f"127.0.0.1:{deployment.ports['portal']}", certificate) as running_proxy:
            yield running_proxy


def measure_headers(page: PortalResponse) -> int:
    """Return the number of bytes of the headers of a response."""
    return sum(len(f"{name}: {value}\r\n") for name, value in page.headers)


def test_nginx_accepts_the_configuration_and_refuses_a_misspelt_one(
    nginx_path: str, tmp_path: Path, certificate: Path
) -> None:
    path = translate(tmp_path, (8443, 8080), "127.0.0.1:8000", certificate)
    check = [nginx_path, "-t", "-p", str(tmp_path), "-c", str(path)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    path.write_text(path.read_text().replace("proxy_buffer_size", "proxy_buffers_size"))
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1


def test_sign_in_and_out_through_nginx_uses_secure_cookies_and_the_address_of_the_browser(
    proxy: Proxy, deployment: Deployment
) -> None:
    browser = proxy.create_browser()
    browser.headers |= FORGED
    begun = browser.start_sign_in(next_url="/portal/")
    assert "__Host-phi_oidc_" in begun.join_header_values("Set-Cookie")
    browser.get(deployment.op.authorize(begun.location, "amina"))
    assert browser.user()
    assert deployment.find_last_address() == BROWSER
    cookies = [value for page in browser.responses for name, value in page.headers if name.lower() == "set-cookie"]
    assert len(cookies) > 2
    assert all("Secure" in cookie for cookie in cookies)
    assert browser.get("/portal/").join_header_values("Strict-Transport-Security") == "max-age=31536000"
    assert browser.post("/oidc/logout/").location.startswith(f"{deployment.op.issuer}/end-session")
    log = proxy.log.read_text()
    assert "/oidc/callback/" in log
    assert "?" not in log
    assert "state=" not in log


def test_plain_http_is_redirected_before_it_reaches_the_portal(proxy: Proxy) -> None:
    browser = replace(proxy.create_browser(), address=f"127.0.0.1:{proxy.plain_port}", certificate="")
    browser.headers["X-Forwarded-Proto"] = "https"
    page = browser.get("/oidc/authenticate/?next=/portal/")
    assert (page.status, page.location) == (301, f"https://{HOST}/oidc/authenticate/?next=/portal/")


def test_pending_sign_ins_fit_into_the_default_limits_of_requests(proxy: Proxy, deployment: Deployment) -> None:
    """The cookies of the app are at most 4 KiB together; nginx and gunicorn refuse headers of more than 8 KiB."""
    browser = proxy.create_browser()
    for _ in range(7):
        assert browser.start_sign_in(next_url=f"/portal/?{secrets.token_hex(100)}").status == 302
    sizes = [len(name) + len(browser.cookies[name]) for name in state_cookies(browser)]
    assert 2 <= len(sizes) <= 5
    assert 3000 < sum(sizes) <= 4096
    assert max(map(measure_headers, browser.responses)) < 4096
    assert browser.sign_in(deployment.op, next_url="/portal/").status == 302
    assert browser.user()


def test_smaller_buffer_for_responses_breaks_the_start_of_a_sign_in(
    nginx_path: str, tmp_path: Path, deployment: Deployment, certificate: Path
) -> None:
    smaller = {"proxy_buffer_size": "1k"}
    with deployment.running(GUNICORN):
        deployment.wait_until_healthy()
        portal = f"127.0.0.1:{deployment.ports['portal']}"
        with proxying(nginx_path, tmp_path, portal, certificate, **smaller) as proxy:
            browser = proxy.create_browser()
            assert browser.get("/").status == 200
            assert browser.start_sign_in(next_url="/portal/").status == 502


def test_many_requests_of_one_address_are_refused_by_nginx_but_no_logout_tokens(proxy: Proxy) -> None:
    browser = proxy.create_browser()
    refused = [browser.get("/oidc/health/").status for _ in range(40)]
    assert {*refused} == {200, 429}
    logout_tokens = [browser.post("/oidc/backchannel-logout/", logout_token="none").status for _ in range(40)]
    assert 429 not in logout_tokens
    assert browser.get("/").status == 200


@pytest.mark.parametrize("error_log", ["", "stderr warn"])
def test_no_log_of_nginx_has_the_code_of_a_callback_that_it_could_not_pass_on(
    nginx_path: str, tmp_path: Path, certificate: Path, error_log: str
) -> None:
    """Messages about errors quote the request line and the referrer. The code was not used, and is still valid."""
    changed = {"error_log": f"{tmp_path}/{error_log}"} if error_log else {}
    with proxying(nginx_path, tmp_path, f"127.0.0.1:{find_free_port()}", certificate, **changed) as proxy:
        browser = proxy.create_browser()
        callback = "/oidc/callback/?code=code-canary&state=x"
        statuses = {browser.get(callback).status for _ in range(40)}
        browser.headers["Referer"] = f"{BASE_URL}{callback}"
        assert {browser.get("/favicon.ico").status} | statuses == {429, 502}
        assert "/oidc/callback/" in proxy.log.read_text()
        logged = "".join((tmp_path / name).read_text() for name in ("stdout", "stderr", "nginx.log"))
        assert ("code-canary" in logged) is bool(error_log)


def test_uvicorn_behind_nginx_takes_the_address_from_the_last_proxy_only(
    nginx_path: str, tmp_path: Path, deployment: Deployment, certificate: Path
) -> None:
    def sign_in(portal: Process) -> str:
        with deployment.running(portal):
            deployment.wait_until_healthy()
            address = f"127.0.0.1:{deployment.ports['portal']}"
            with proxying(nginx_path, tmp_path, address, certificate) as proxy:
                browser = proxy.create_browser()
                browser.headers |= FORGED
                browser.sign_in(deployment.op, next_url="/portal/")
                assert browser.user()
                return deployment.find_last_address()

    assert sign_in(UVICORN) == BROWSER
    # The refusal of the manual: this option believes the leftmost address.
    trusting = [word.replace("--no-proxy-headers", "--forwarded-allow-ips=*") for word in UVICORN.command]
    assert sign_in(replace(UVICORN, command=tuple(trusting))) == FORGED["X-Forwarded-For"]
