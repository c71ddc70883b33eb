"""Which URLs receive the key, and which ones images are downloaded from."""

from __future__ import annotations

import pytest

from airflow_provider_flux.client.gateways import infer_gateway, make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import FluxConfigurationError, FluxUnsafeUrlError

COMET = make_endpoint("https://api.cometapi.com/", "key")
BFL = make_endpoint("https://api.bfl.ai", "key")
LOCAL = make_endpoint("http://127.0.0.1:8089", "key")


def test_gateways_differ_in_paths_and_authentication_header() -> None:
    assert (COMET.gateway, COMET.auth_headers) == ("cometapi", {"Authorization": "Bearer key"})
    assert COMET.submit_url("flux-dev") == "https://api.cometapi.com/flux/v1/flux-dev"
    assert COMET.result_url(Job("a&b")) == "https://api.cometapi.com/flux/v1/get_result?id=a%26b"
    assert (BFL.gateway, BFL.auth_headers) == ("bfl", {"x-key": "key"})
    assert BFL.submit_url("flux-dev") == "https://api.bfl.ai/v1/flux-dev"
    assert BFL.submit_url("flux-tools/erase-v1") == "https://api.bfl.ai/v1/flux-tools/erase-v1"
    assert BFL.result_url(Job("a")) == "https://api.bfl.ai/v1/get_result?id=a"
    assert "key" not in repr(COMET).replace("api_key", "")


@pytest.mark.parametrize(
    ("host", "gateway"),
    [
        ("https://api.us.bfl.ai", "bfl"),
        ("https://bfl.ai", "bfl"),
        ("https://notbfl.ai", "cometapi"),
        ("https://bfl.ai.evil.example", "cometapi"),
        ("http://localhost:1", "cometapi"),
    ],
)
def test_gateway_is_inferred_from_the_host(host: str, gateway: str) -> None:
    assert infer_gateway(host) == gateway


def test_defaults_and_pasted_white_space() -> None:
    assert make_endpoint(None, "k", "bfl").base_url == "https://api.bfl.ai"
    assert make_endpoint("", " Bearer k\n").api_key == "k"
    assert make_endpoint(None, "k", timeout="12").timeout == 12.0


@pytest.mark.parametrize(
    ("given", "gateway", "base_url"),
    [
        ("https://api.cometapi.com/", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com//", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com/flux", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com/flux/v1/", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com/flux/v1/flux-pro-1.1", None, "https://api.cometapi.com"),
        ("https://api.cometapi.com/flux/v1/get_result?id=abc", None, "https://api.cometapi.com"),
        ("https://api.bfl.ai/v1", None, "https://api.bfl.ai"),
        ("https://api.eu.bfl.ai/v1/flux-tools/erase-v1", None, "https://api.eu.bfl.ai"),
        ("https://api.eu.bfl.ai/v1/flux-2-pro/", None, "https://api.eu.bfl.ai"),
        ("https://api.bfl.ai/v1/credits", None, "https://api.bfl.ai"),
        ("https://api.bfl.ai/flux/v1", None, "https://api.bfl.ai"),
        ("http://localhost:8089/v1", None, "http://localhost:8089"),
        ("https://own.example/ai/v1/", None, "https://own.example/ai"),
        ("https://own.example/ai/flux/v1/flux-dev", None, "https://own.example/ai"),
        # A user's own path of the same name.
        ("https://own.example/flux", "bfl", "https://own.example/flux"),
        ("https://own.example/flux/v1", "bfl", "https://own.example/flux"),
        ("https://own.example/v1/proxy", None, "https://own.example/v1/proxy"),
        ("https://own.example/influx", None, "https://own.example/influx"),
        ("https://flux/", None, "https://flux"),
    ],
)
def test_api_s_own_path_is_removed_from_the_base_url(given: str, gateway: str | None, base_url: str) -> None:
    assert make_endpoint(given, "k", gateway).base_url == base_url


@pytest.mark.parametrize(
    ("host", "gateway", "timeout", "text"),
    [
        ("ftp://x", None, None, "not a base URL"),
        ("https://", None, None, "not a base URL"),
        ("https://x:port", None, None, "not a base URL"),
        ("https://own.example/api?key=1", None, None, "not a base URL"),
        ("https://api.cometapi.com/v1/images/generations", None, None, "the path '/v1/images/generations' is not part"),
        ("https://docs.bfl.ml/quick_start", None, None, "the path '/quick_start' is not part"),
        (None, "openai", None, "must be 'cometapi' or 'bfl'"),
        (None, None, "soon", "number of seconds"),
        (None, None, -1, "number of seconds"),
        ("https://me:s3cret@x", None, None, "contains a user name or password"),
        ("https://s3cret@x/flux/v1", None, None, "contains a user name or password"),
        ("https://me:s3cret@x:port", None, None, "contains a user name or password"),
        ("https://me:s3/cret@x", None, None, "contains a user name or password"),
        ("ftp://me:s3cret@x", None, None, "contains a user name or password"),
        ("//me:s3cret@[x", None, None, "contains a user name or password"),
    ],
)
def test_invalid_connection_is_refused(host: str | None, gateway: str | None, timeout: object, text: str) -> None:
    with pytest.raises(FluxConfigurationError, match=text) as caught:
        make_endpoint(host, "k", gateway, timeout)  # type: ignore[arg-type]
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://api.eu2.bfl.ai/v1/get_result?id=a", "https://gateway.bfl.ai/v2/results/1", "https://bfl.ai/?job=a.png"],
)
def test_bfl_polls_the_polling_url_unchanged(url: str) -> None:
    assert BFL.result_url(Job("a", polling_url=url)) == url
    assert COMET.result_url(Job("a", polling_url=url)).startswith("https://api.cometapi.com/")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.eu2.bfl.ai/v1/get_result?id=a",
        "https://api.bfl.ai.evil.example/v1/get_result?id=a",
        "https://evilbfl.ai/v1/get_result?id=a",
        "https://evil.example\\.bfl.ai/v1/get_result?id=a",
        "https://evil.example%2f.bfl.ai/v1/get_result?id=a",
        "https://..bfl.ai/v1/get_result?id=a",
        "https://user@api.bfl.ai/v1/get_result?id=a",
        "https://api.bfl.ai:444/v1/get_result?id=a",
        "https://delivery-eu1.bfl.ai/results/1?sig=x",
        "https://files.bfl.ai/sample.JPEG?sig=x",
        "https://[bfl.ai/v1/get_result",
        "javascript:alert(1)",
    ],
)
def test_foreign_polling_url_never_receives_the_key(url: str) -> None:
    assert BFL.result_url(Job("a", polling_url=url)) == "https://api.bfl.ai/v1/get_result?id=a"
    assert BFL.job_polling_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/x",
        "https://10.0.0.7/x",
        "https://[::1]/x",
        "https://[::ffff:10.0.0.1]/x",
        "https://[64:ff9b::a9fe:a9fe]/x",
        "https://[64:ff9b:1::1]/x",
        "https://[2002:a9fe:a9fe::]/x",
        "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/x",
        "https://[::127.0.0.1]/x",
        "https://[fe80::1%25eth0]/x",
        "https://[2606:4700::1111%25eth0]/x",
        "https://[fec0::1]/x",
        "https://[ff0e::1]/x",
        "https://224.0.0.1/x",
        "https://240.0.0.1/x",
        "https://0.0.0.0/x",
        "https://2130706433/x",
        "http://localhost/x",
        "https://localhost/x",
        "http://delivery.bfl.ai/x",
        "file:///etc/passwd",
        "https://key@93.184.216.34/x",
        "https:///x",
        "https://[x",
        "nonsense",
    ],
)
@pytest.mark.parametrize("endpoint", [COMET, LOCAL], ids=["public", "local"])
def test_download_url_into_a_private_network_is_refused(url: str, endpoint: object) -> None:
    with pytest.raises(FluxUnsafeUrlError, match="Job abc is finished and was billed"):
        endpoint.check_download_url(url, "abc")  # type: ignore[attr-defined]


def test_download_from_a_public_host_or_the_api_s_own_origin_is_allowed() -> None:
    for host in ("93.184.216.34", "[2606:4700::1111]", "[64:ff9b::5db8:d822]"):
        COMET.check_download_url(f"https://{host}/x?sig=y", "abc")
    LOCAL.check_download_url("http://127.0.0.1:8089/delivery/x", "abc")


@pytest.mark.parametrize("name", ["2130706433", "127.1", "localhost", "sub.localhost", "[::ffff:127.0.0.1]"])
def test_allowed_network_allows_its_addresses_in_any_notation(name: str) -> None:
    allowed = make_endpoint(None, "k", delivery_networks="10.0.0.0/8, 127.0.0.0/8")
    allowed.check_download_url(f"https://{name}/x", "abc")
    with pytest.raises(FluxUnsafeUrlError):
        allowed.check_download_url(f"http://{name}/x", "abc")
    with pytest.raises(FluxUnsafeUrlError):
        allowed.check_download_url("https://192.168.0.1/x", "abc")


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        (None, []),
        ("", []),
        ([], []),
        ("198.18.0.0/15,10.0.0.7", ["198.18.0.0/15", "10.0.0.7/32"]),
        (" 198.18.0.0/15 , fd00::/8 ", ["198.18.0.0/15", "fd00::/8"]),
        (["10.1.2.3/8"], ["10.0.0.0/8"]),
    ],
)
def test_networks_are_parsed_from_a_list_or_text(value: object, networks: list[str]) -> None:
    found = make_endpoint(None, "k", delivery_networks=value).delivery_networks
    assert [str(network) for network in found] == networks


@pytest.mark.parametrize("value", ["everywhere", ["10.0.0.0/33"], [10], 10, {"10.0.0.0/8": True}, True, "10.0.0.0/8;"])
def test_invalid_network_is_named(value: object) -> None:
    with pytest.raises(FluxConfigurationError, match=r"allowed_delivery_networks contains .*198\.18\.0\.0/15"):
        make_endpoint(None, "k", delivery_networks=value)
