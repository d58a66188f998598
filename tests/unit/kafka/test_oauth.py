"""Tokens from a real HTTP endpoint: how it is asked, how long a token is kept, and what its refusals mean."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka import errors as kafka
from certificates import Authority
from pydantic import SecretStr
from serving import serving

from bridge.errors import Fatal, Temporary
from bridge.kafka.oauth import ANSWER_BYTES_MAX, LIFETIME_S, Tokens
from bridge.kafka.sasl import OAuth

SECRET = "pass/word +"
BASIC = base64.b64encode(b"a%3Ab:pass%2Fword+%2B").decode()


class Endpoint:
    """Gives `token-1`, `token-2` ..., unless it is told to answer otherwise."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[dict[str, str], str | None]] = []
        self.otherwise: Callable[[], web.Response] | None = None
        self.more: dict[str, Any] = {"expires_in": 100}

    async def reply(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((form, request.headers.get("Authorization")))
        await asyncio.sleep(0)
        if self.otherwise is not None:
            return self.otherwise()
        return web.json_response({"access_token": f"token-{len(self.asked)}", "token_type": "bearer"} | self.more)

    def settings(self, **options: Any) -> OAuth:
        own = {
            "mechanism": "oauthbearer",
            "token_url": self.url,
            "client_id": "a:b",
            "client_secret": SecretStr(SECRET),
        }
        return OAuth.model_validate(own | {"allow_plaintext": True} | options)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    async with serving(made.reply, "/token") as url:
        made.url = url
        yield made


async def test_the_credentials_go_in_the_header_encoded_and_the_rest_in_the_form(endpoint: Endpoint) -> None:
    more = {"scope": "kafka write", "token_parameters": {"audience": "cluster"}}
    assert await Tokens(endpoint.settings(**more)).fresh() == "token-1"
    [(form, authorization)] = endpoint.asked
    assert form == {"grant_type": "client_credentials", "scope": "kafka write", "audience": "cluster"}
    assert authorization == "Basic " + BASIC


async def test_the_credentials_go_in_the_form_where_the_endpoint_wants_them_there(endpoint: Endpoint) -> None:
    await Tokens(endpoint.settings(client_auth="form")).fresh()
    credentials = {"client_id": "a:b", "client_secret": SECRET}
    assert endpoint.asked == [({"grant_type": "client_credentials"} | credentials, None)]


async def test_a_token_is_fetched_once_for_all_and_kept_until_shortly_before_its_end(endpoint: Endpoint) -> None:
    clock = Clock()
    tokens = Tokens(endpoint.settings(), clock)
    assert set(await asyncio.gather(*[tokens.fresh() for _ in range(20)])) == {"token-1"}
    assert clock.now_s < tokens.renew_s < clock.now_s + 100
    clock.now_s = tokens.renew_s - 0.1
    assert await tokens.fresh() == "token-1"
    clock.now_s = tokens.renew_s
    assert await tokens.fresh() == "token-2"


@pytest.mark.parametrize("more", [{}, {"expires_in": None}])
async def test_a_token_whose_lifetime_is_not_told_is_not_kept_for_long(
    endpoint: Endpoint, more: dict[str, Any]
) -> None:
    endpoint.more = more
    clock = Clock()
    tokens = Tokens(endpoint.settings(), clock)
    await tokens.fresh()
    assert tokens.renew_s < clock.now_s + LIFETIME_S


async def test_an_endpoint_that_is_away_costs_nothing_while_the_old_token_lives(endpoint: Endpoint) -> None:
    clock = Clock()
    tokens = Tokens(endpoint.settings(), clock)
    await tokens.fresh()
    endpoint.otherwise = lambda: web.Response(status=503, headers={"Retry-After": "7"})
    clock.now_s = tokens.renew_s
    assert await tokens.fresh() == "token-1"
    assert clock.now_s < tokens.renew_s < 1100
    assert len(endpoint.asked) == 2
    await tokens.fresh()
    assert len(endpoint.asked) == 2  # and it is left alone for a while
    clock.now_s = 1100.0
    with pytest.raises(Temporary) as caught:
        await tokens.fresh()
    assert (caught.value.status, caught.value.after_s) == (503, 7.0)


async def test_an_endpoint_that_refuses_is_heard_once_the_old_token_has_ended(endpoint: Endpoint) -> None:
    """What it says may be its own trouble: a page that is gone while it is deployed."""
    clock = Clock()
    tokens = Tokens(endpoint.settings(), clock)
    await tokens.fresh()
    endpoint.otherwise = lambda: web.Response(status=404)
    clock.now_s = tokens.renew_s
    assert await tokens.fresh() == "token-1"
    clock.now_s = 1100.0
    with pytest.raises(Fatal):
        await tokens.fresh()


async def test_a_token_that_the_brokers_refused_is_not_given_again(endpoint: Endpoint) -> None:
    tokens = Tokens(endpoint.settings())
    assert await tokens.fresh() == "token-1"
    assert await tokens.fresh(refused="token-1") == "token-2"
    assert await tokens.fresh(refused="token-1") == "token-2"  # somebody else was faster
    endpoint.otherwise = lambda: web.Response(status=503)
    with pytest.raises(Temporary):
        await tokens.fresh(refused="token-2")


async def test_a_token_in_its_last_moments_is_waited_out(endpoint: Endpoint) -> None:
    endpoint.more = {"expires_in": 0}
    with pytest.raises(Temporary):
        await Tokens(endpoint.settings()).fresh()


async def test_an_authority_whose_file_is_being_replaced_is_waited_for(endpoint: Endpoint, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tokens = Tokens(endpoint.settings(token_ca_file=authority.file))
    authority.file.unlink()
    with pytest.raises(Temporary, match=r"sasl\.token_ca_file") as caught:
        await tokens.fresh()
    assert caught.value.reason == "tls_files"


@pytest.mark.parametrize("shown", [SECRET, quote_plus(SECRET), quote(SECRET, safe=""), BASIC])
async def test_credentials_that_a_refusal_repeats_are_not_shown_not_even_their_start(
    endpoint: Endpoint, shown: str
) -> None:
    endpoint.otherwise = lambda: web.Response(status=400, text="-" * 195 + shown)
    with pytest.raises(Fatal) as caught:
        await Tokens(endpoint.settings()).fresh()
    assert "-" * 195 + shown[:2] not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502])
async def test_an_endpoint_in_trouble_is_waited_for(endpoint: Endpoint, status: int) -> None:
    endpoint.otherwise = lambda: web.Response(status=status)
    with pytest.raises(Temporary) as caught:
        await Tokens(endpoint.settings()).fresh()
    assert (caught.value.status, caught.value.reason) == (status, "token_refused")


@pytest.mark.parametrize(
    ("status", "answer", "setting"),
    [
        (401, {"error": "invalid_client"}, "`sasl.client_secret`"),
        (400, {"error": "invalid_client", "error_description": f"not {SECRET}"}, "`sasl.client_secret`"),
        (401, "who are you?", "`sasl.client_secret`"),
        (400, {"error": "invalid_scope"}, "`sasl.scope`"),
        (400, {"error": "unauthorized_client"}, "`sasl.client_id`"),
        (400, {"error": "invalid_target"}, "`sasl.token_parameters`"),
        (400, {"error": "unsupported_grant_type"}, "`sasl.token_url`"),
        (400, ["what"], "`sasl.token_url`"),
        (404, "no such page", "`sasl.token_url`"),
        (302, "over there", "`sasl.token_url`"),
    ],
)
async def test_a_refusal_is_fatal_and_names_the_setting(
    endpoint: Endpoint, status: int, answer: Any, setting: str
) -> None:
    endpoint.otherwise = lambda: web.json_response(answer, status=status, headers={"Location": endpoint.url})
    with pytest.raises(Fatal) as caught:
        await Tokens(endpoint.settings()).fresh()
    assert (caught.value.status, setting in str(caught.value), SECRET in str(caught.value)) == (status, True, False)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>sign in</html>",
        b"[]",
        b"null",
        b'{"access_token": ""}',
        b'{"access_token": null}',
        b'{"access_token": "two words"}',
        b'{"access_token": "line\\u0001end"}',
        b'{"access_token": "secret-token", "expires_in": "soon"}',
        b'{"access_token": "secret-token", "expires_in": -1}',
        b'{"access_token": "secret-token", "expires_in": "inf"}',
        b'{"access_token": "secret-token", "expires_in": "nan"}',
        b'{"access_token": "secret-token", "expires_in": {}}',
        b'{"access_token": "' + b"x" * ANSWER_BYTES_MAX + b'"}',
    ],
)
async def test_an_answer_without_a_usable_token_is_fatal_and_not_shown(endpoint: Endpoint, body: bytes) -> None:
    endpoint.otherwise = lambda: web.Response(body=body)
    with pytest.raises(Fatal, match="gave no token") as caught:
        await Tokens(endpoint.settings()).fresh()
    assert "secret-token" not in str(caught.value)


async def test_an_endpoint_that_says_nothing_is_given_up_in_time() -> None:
    waiting = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await waiting.wait()
        return web.Response()

    silence = Endpoint()
    async with serving(silent) as silence.url:
        with pytest.raises(Temporary, match="did not answer within"):
            await Tokens(silence.settings(token_timeout_s=0.1)).fresh()
        waiting.set()


async def test_an_endpoint_that_is_not_there_is_waited_for(unused_tcp_port: int) -> None:
    gone = Endpoint()
    gone.url = f"http://127.0.0.1:{unused_tcp_port}/token"
    with pytest.raises(Temporary, match="cannot be reached"):
        await Tokens(gone.settings()).fresh()


async def test_the_client_library_is_told_in_its_own_words(endpoint: Endpoint) -> None:
    """Of anything else its background tasks would die, and whoever waits for them would wait for ever."""
    endpoint.otherwise = lambda: web.Response(status=500)
    with pytest.raises(kafka.KafkaConnectionError):
        await Tokens(endpoint.settings()).token()


async def test_the_endpoint_may_have_a_certificate_of_its_own_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, endpoint = authority.sign("idp"), Endpoint()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.file, own.key_file)
    app = web.Application()
    app.router.add_post("/token", endpoint.reply)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        endpoint.url = str(server.make_url("/token"))
        assert await Tokens(endpoint.settings(token_ca_file=authority.file, allow_plaintext=False)).fresh() == "token-1"
        with pytest.raises(Fatal, match=r"`sasl\.token_ca_file`"):
            await Tokens(endpoint.settings()).fresh()
    finally:
        await server.close()
