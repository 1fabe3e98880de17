"""What may be registered, and what may be dialled."""

from ipaddress import ip_address

import pytest

from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.push import guard as guard_module
from hurlbat_dispatcher.push.guard import DestinationBlocked, Guard, check_headers, own_destinations, parse_networks

_CLOSED = Guard(own=frozenset({("203.0.114.7", 8000), ("tasks.example.com", 443)}))
_LOCAL = Guard(parse_networks("127.0.0.0/8, 10.1.0.0/16"), frozenset({("127.0.0.1", 8000)}))


def _refusal(guard: Guard, url: str) -> str:
    with pytest.raises(Invalid) as caught:
        guard.check_url(url)
    assert caught.value.extra == {"field": "url"}
    assert caught.value.status == 422
    return caught.value.code


@pytest.mark.parametrize(
    ("code", "urls"),
    [
        ("url_scheme", ["file:///etc/passwd", "ftp://x.example", "gopher://x", "ws://x", "javascript:alert(1)"]),
        ("url_scheme", ["", "x.example/hook", "//x.example", "://x"]),
        ("url_https_required", ["http://x.example/", "HTTP://X.EXAMPLE", "http://8.8.8.8/"]),
        ("url_invalid", ["http://:80/", "https://", "https:///x", "https:x.example", "https://?a"]),
        (
            "url_invalid",
            [" https://x.example", "https://x.example ", "https://x\t.example", "https://x.example/\r\nA: b"],
        ),
        ("url_invalid", ["https://x.example/\0", "https://x.example/\x7f", "https://x.exa mple/"]),
        ("url_invalid", ["http://good.example\\@evil.example/", "https://x.example/\\", "https:\\\\x.example"]),
        ("url_userinfo", ["https://user:pass@x.example/", "https://@x.example/", "https://a@b@x.example/"]),
        ("url_port", ["https://x.example:0/", "https://x.example:65536/", "https://x.example:99999999/"]),
        ("url_port", ["https://x.example:25/", "https://x.example:6379/", "https://x.example:5432/"]),
        ("url_invalid", ["https://x.example:-1/", "https://x.example:8x/", "https://x:1:2/", "https://x.example/#a"]),
        ("url_too_long", ["https://x.example/" + "a" * 2_048]),
        (
            "destination_blocked",
            ["https://localhost/", "https://a.localhost", "https://LOCALHOST./", "https://x.local"],
        ),
        ("destination_blocked", ["https://metadata.google.internal/", "https://host.docker.internal./"]),
        ("destination_blocked", ["https://0.0.0.0", "https://10.0.0.1", "https://100.64.0.1", "https://127.0.0.1"]),
        ("destination_blocked", ["https://169.254.169.254", "https://172.16.0.1", "https://192.0.0.1"]),
        ("destination_blocked", ["https://192.0.2.1", "https://192.88.99.1", "https://192.168.1.1"]),
        ("destination_blocked", ["https://198.18.0.1", "https://198.51.100.1", "https://203.0.113.1"]),
        ("destination_blocked", ["https://224.0.0.1", "https://255.255.255.255", "https://168.63.129.16"]),
        ("destination_blocked", ["http://127.0.0.1:8000/", "http://169.254.169.254/latest/meta-data"]),
        ("destination_blocked", ["https://2130706433", "https://0x7f.1", "https://0177.0.0.1", "https://127.1"]),
        ("destination_blocked", ["https://0/", "https://0x7f000001/", "https://127.0.0.1./", "https://1.2.3.4.5/"]),
        (
            "url_invalid",
            ["https://①②⑦.0.0.1/", "https://127。0。0。1/", "https://ex\u0430mple.com/", "https://münchen.example/"],
        ),
        (
            "url_invalid",
            ["https://xn--/", "https://xn--a-.example", "https://-x.example", "https://x-.example", "https://a..b"],
        ),
        ("url_invalid", ["https://" + "a" * 64 + ".example", "https://x.example/é", "https://[x]/", "https://[::1/"]),
        (
            "destination_blocked",
            [
                "https://[::]",
                "https://[::1]",
                "https://[fe80::1%25eth0]",
                "https://[2606:4700::1111%25eth0]",
                "https://[fe80::1]",
            ],
        ),
        (
            "destination_blocked",
            ["https://[fc00::1]", "https://[fec0::1]", "https://[ff02::1]", "https://[::ffff:8.8.8.8]"],
        ),
        ("destination_blocked", ["https://[::8.8.8.8]", "https://[64:ff9b::808:808]", "https://[64:ff9b:1::1]"]),
        ("destination_blocked", ["https://[2002:808:808::]", "https://[2001::1]", "https://[2001:db8::1]"]),
        ("destination_blocked", ["https://[3fff::1]", "https://[100::1]", "https://[5f00::1]"]),
        ("destination_self", ["https://203.0.114.7:8000/", "https://tasks.example.com/hook"]),
    ],
)
def test_a_url_that_must_not_be_called_is_refused_with_its_code(code: str, urls: list[str]) -> None:
    assert {url: _refusal(_CLOSED, url) for url in urls} == dict.fromkeys(urls, code)


@pytest.mark.parametrize(
    "url",
    [
        "https://x.example",
        "https://x.example:8443/a/b%20c?d=e&f",
        "HTTPS://X.EXAMPLE./",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:444/",
        "https://xn--mnchen-3ya.example/",
        "https://a_b.x.example/",
        "https://x.example:0443/",
    ],
)
def test_a_public_https_url_is_taken(url: str) -> None:
    assert _CLOSED.check_url(url).url == url


def test_the_parts_of_a_url_are_in_their_plain_form() -> None:
    at = _LOCAL.check_url("HTTP://LocalHost.:9000/Hook")
    assert (at.scheme, at.host, at.port, at.literal) == ("http", "localhost", 9000, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/",
        "http://127.0.0.1:6379/",
        "http://10.1.2.3/",
        "http://localhost:9000/",
        "http://worker.internal/",
        "http://worker:9000/",
        "https://worker:6379/",
        "http://worker.my-space.svc:8080/",
        "http://worker.my-space.svc.cluster.local/",
        "http://printer.home.arpa/",
        "http://nas.lan./",
        "http://a.localhost:9000/",
        "https://x.example/",
    ],
)
def test_what_an_allowed_network_may_hold_is_taken(url: str) -> None:
    assert _LOCAL.check_url(url).url == url


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.2.0.1/", "destination_blocked"),
        ("https://192.168.0.1/", "destination_blocked"),
        ("http://8.8.8.8/", "url_https_required"),
        ("http://127.0.0.1:8000/", "destination_self"),
        ("http://localhost:8000/", "destination_self"),
        ("http://x.example/", "url_https_required"),
        ("http://worker.internal.example/", "url_https_required"),
        ("https://x.example:6379/", "url_port"),
        ("https://metadata.google.internal/", "destination_blocked"),
        ("http://Metadata.Google.Internal./computeMetadata/v1/", "destination_blocked"),
        ("http://metadata/computeMetadata/v1/", "destination_blocked"),
        ("https://metadata.goog/", "destination_blocked"),
        ("http://instance-data.ec2.internal/", "destination_blocked"),
    ],
)
def test_an_allowed_network_opens_nothing_else(url: str, code: str) -> None:
    assert _refusal(_LOCAL, url) == code


def test_localhost_needs_an_allowed_loopback_address() -> None:
    assert _refusal(Guard(parse_networks("10.0.0.0/8")), "http://localhost/") == "destination_blocked"


def test_a_server_that_listens_everywhere_is_itself_at_every_loopback_address() -> None:
    guard = Guard(parse_networks("127.0.0.0/8"), frozenset({("0.0.0.0", 8000)}))
    assert _refusal(guard, "http://127.0.0.2:8000/") == "destination_self"
    assert _refusal(guard, "http://localhost:8000/") == "destination_self"


@pytest.mark.parametrize(
    ("host", "external", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:8420", {("127.0.0.1", 8420)}),
        ("0.0.0.0", "https://Tasks.Example.com./base", {("0.0.0.0", 8420), ("tasks.example.com", 443)}),
        ("::", "http://[2606:4700:0::1111]:81", {("::", 8420), ("2606:4700::1111", 81)}),
        ("[0:0::1]", "http://x.example", {("::1", 8420), ("x.example", 80)}),
        ("LocalHost", "http://localhost:8420", {("localhost", 8420), ("127.0.0.1", 8420), ("::1", 8420)}),
    ],
)
def test_a_servers_own_places_are_where_it_listens_and_where_it_is_reached(
    host: str, external: str, own: set[tuple[str, int]]
) -> None:
    assert own_destinations(host, 8420, external) == own


def test_a_server_that_listens_everywhere_is_itself_at_every_address_of_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = {"10.1.0.5"}
    monkeypatch.setattr(guard_module, "_can_bind", lambda address: str(address) in here)
    guard = Guard(parse_networks("10.1.0.0/16"), own_destinations("0.0.0.0", 8420, "https://tasks.example.com"))
    assert _refusal(guard, "http://10.1.0.5:8420/") == "destination_self"
    assert _refusal(guard, "https://tasks.example.com/hook") == "destination_self"
    guard.check_url("http://10.1.0.5:8421/")
    guard.check_url("http://10.1.0.6:8420/")
    with pytest.raises(DestinationBlocked, match="this server itself"):
        guard.check_address("10.1.0.5", 8420, https=False)
    guard.check_address("10.1.0.6", 8420, https=False)

    here.add("192.0.2.1")  # a machine that binds to whatever it is told: nothing is known then
    guard.check_url("http://10.1.0.5:8420/")


def test_an_address_is_of_this_machine_when_it_can_be_bound() -> None:
    assert guard_module._is_of_this_machine(ip_address("127.0.0.1"))
    assert not guard_module._is_of_this_machine(ip_address("8.8.8.8"))


@pytest.mark.parametrize(
    ("guard", "address", "port", "https", "blocked"),
    [
        (_CLOSED, "8.8.8.8", 443, True, False),
        (_CLOSED, "8.8.8.8", 80, False, True),
        (_CLOSED, "8.8.8.8", 25, True, True),
        (_CLOSED, "127.0.0.1", 443, True, True),
        (_CLOSED, "fe80::1%eth0", 443, True, True),
        (_CLOSED, "::ffff:8.8.8.8", 443, True, True),
        (_CLOSED, "203.0.114.7", 8000, True, True),
        (_CLOSED, "x.example", 443, True, True),
        (_LOCAL, "127.0.0.1", 9000, False, False),
        (_LOCAL, "127.0.0.1", 8000, False, True),
        (_LOCAL, "10.2.0.1", 443, True, True),
        (_LOCAL, "8.8.8.8", 443, True, False),
        (_LOCAL, "8.8.8.8", 80, False, True),
    ],
)
def test_every_dialled_address_is_judged(guard: Guard, address: str, port: int, https: bool, blocked: bool) -> None:
    if not blocked:
        guard.check_address(address, port, https=https)
        return
    with pytest.raises(DestinationBlocked):
        guard.check_address(address, port, https=https)


def test_networks_are_read_with_commas_or_spaces() -> None:
    assert [str(network) for network in parse_networks(" 127.0.0.0/8,fd00::/8  10.0.0.1 ")] == [
        "127.0.0.0/8",
        "fd00::/8",
        "10.0.0.1/32",
    ]
    assert parse_networks("") == ()


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8;"])
def test_what_is_not_a_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a network such as"):
        parse_networks(text)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "x"}, "header_forbidden"),
        ({"content-length": "1"}, "header_forbidden"),
        ({"Transfer-Encoding": "chunked"}, "header_forbidden"),
        ({"connection": "close"}, "header_forbidden"),
        ({"Webhook-Signature": "v1,x"}, "header_forbidden"),
        ({"webhook-id": "x"}, "header_forbidden"),
        ({"hurlbat-worker": "x"}, "header_forbidden"),
        ({"a b": "x"}, "header_invalid"),
        ({"": "x"}, "header_invalid"),
        ({"a:": "x"}, "header_invalid"),
        ({"ä": "x"}, "header_invalid"),
        ({"a": "x\r\nb: c"}, "header_invalid"),
        ({"a": "x\0"}, "header_invalid"),
        ({"a": "日本"}, "header_invalid"),
        ({"A": "x", "a": "y"}, "header_invalid"),
        ({f"a{n}": "x" for n in range(65)}, "header_invalid"),
        ({"a": "x" * 8_192}, "header_invalid"),
    ],
)
def test_extra_headers_that_would_break_a_request_are_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_headers(headers)
    assert (caught.value.code, caught.value.extra["field"]) == (code, "headers")


def test_good_extra_headers_are_kept_in_lower_case() -> None:
    assert check_headers({"Authorization": "Bearer x", "X-Env": ""}) == {"authorization": "Bearer x", "x-env": ""}
