"""Where a session was opened, as coarsely as its user needs to recognize it: browser, platform and
address range.

Neither the User-Agent header nor the address is stored with the session.
"""

import ipaddress
from typing import NamedTuple

from django.utils.translation import gettext as _

IPV4_PREFIX = 24
IPV6_PREFIX = 48
"""Bits of an address that are stored: the range of a provider's customers, not one connection."""
_BROWSERS = (
    *(
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Firefox/", "Firefox"),
    ),
    *(("FxiOS/", "Firefox"), ("Chrome/", "Chrome"), ("Chromium/", "Chrome"), ("CriOS/", "Chrome")),
    ("Safari/", "Safari"),
)
"""A part of the User-Agent header, and the browser that sends it. The first one counts: others
imitate those below.
"""
_PLATFORMS = (
    *(("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("CrOS", "ChromeOS")),
    *(("Windows", "Windows"), ("Macintosh", "macOS"), ("Linux", "Linux")),
)


class SignInPlace(NamedTuple):
    """What is stored of the browser and of the address that opened a session; empty if it is
    unknown.
    """

    browser: str = ""
    platform: str = ""
    network: str = ""


def create_sign_in_place(*, user_agent: str, client_ip: str) -> SignInPlace:
    """Return the place of a request with that User-Agent header and address."""
    return SignInPlace(
        browser=_find_name(_BROWSERS, user_agent),
        platform=_find_name(_PLATFORMS, user_agent),
        network=get_address_range(client_ip),
    )


def get_address_range(client_ip: str) -> str:
    """Return the first 24 bits of an IPv4 address, or 48 of an IPv6 address, as a network; empty
    without an address.
    """
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return ""

    if address.version == 4:
        prefix = IPV4_PREFIX
    else:
        prefix = IPV6_PREFIX

    return str(ipaddress.ip_network((address, prefix), strict=False))


def get_device_label(browser: str, platform: str) -> str:
    """Return the device in words."""
    if browser and platform:
        return _("%(browser)s on %(platform)s") % {"browser": browser, "platform": platform}
    return browser or platform or _("Unknown browser")


def _find_name(table: tuple[tuple[str, str], ...], user_agent: str) -> str:
    return next((name for part, name in table if part in user_agent), "")
