"""What is stored of the browser and of the address of a sign-in."""

import pytest

from django_phi_oidc.sessions.sign_in_places import create_sign_in_place, get_address_range, get_device_label

GECKO = "Mozilla/5.0 ({}) Gecko/20100101 Firefox/140.0"
WEBKIT = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) {}"
IPHONE = "iPhone; CPU iPhone OS 18_1 like Mac OS X"


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        (GECKO.format("Windows NT 10.0; Win64; x64; rv:140.0"), "Firefox on Windows"),
        (GECKO.format("X11; Linux x86_64; rv:140.0"), "Firefox on Linux"),
        (WEBKIT.format("Windows NT 10.0; Win64; x64", "Chrome/141.0.0.0 Safari/537.36 Edg/141.0"), "Edge on Windows"),
        (WEBKIT.format("Macintosh; Intel Mac OS X 10_15_7", "Chrome/141.0.0.0 Safari/537.36"), "Chrome on macOS"),
        (WEBKIT.format("Macintosh; Intel Mac OS X 10_15_7", "Version/18.1 Safari/605.1.15"), "Safari on macOS"),
        (WEBKIT.format(IPHONE, "Version/18.1 Mobile/15E148 Safari/604.1"), "Safari on iPhone"),
        (WEBKIT.format(IPHONE, "CriOS/141.0 Mobile/15E148 Safari/604.1"), "Chrome on iPhone"),
        (
            WEBKIT.format("Linux; Android 15; SM-S921B", "SamsungBrowser/28.0 Chrome/130.0"),
            "Samsung Internet on Android",
        ),
        (WEBKIT.format("X11; CrOS x86_64 14541.0.0", "Chrome/141.0.0.0 Safari/537.36 OPR/120.0"), "Opera on ChromeOS"),
        ("curl/8.5.0", "Unknown browser"),
        ("Firefox/140.0", "Firefox"),
        ("amina's script on Windows", "Windows"),
        ("", "Unknown browser"),
    ],
)
def test_device_is_described_by_browser_and_platform_only(user_agent: str, label: str) -> None:
    place = create_sign_in_place(user_agent=user_agent, client_ip="")
    assert get_device_label(place.browser, place.platform) == label


@pytest.mark.parametrize(
    ("client_ip", "network"),
    [
        ("198.51.100.77", "198.51.100.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_only_a_range_of_the_address_is_stored(client_ip: str, network: str) -> None:
    assert get_address_range(client_ip) == network
    assert create_sign_in_place(user_agent="", client_ip=client_ip).network == network
