"""A real OpenID Connect provider: its login, its keys and its tokens, with the README's settings."""

import base64
import hashlib
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import msgspec
import pytest

from chat_sse.settings import load_settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.ports import free_port
from tests.support.readme import code_block
from tests.support.service import RunningService, ask, events, serve, text_of
from tests.support.tokens import bearer
from tests.support.upstream import Finish, Say, ScriptedUpstream

CLIENTS = Path(__file__).parent / "clients"
CALLBACK = "http://127.0.0.1:9/callback"
CLIENT = "page"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Run the provider; gives its issuer."""
    node = shutil.which("node")
    assert node is not None, "Node is not installed"
    options = msgspec.json.encode({"port": free_port(), "client": CLIENT, "callback": CALLBACK})
    command = [node, "identity-provider.mjs", options.decode()]
    with subprocess.Popen(command, cwd=CLIENTS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def service(upstream_port: int, provider: str) -> Iterator[RunningService]:
    """A service with the settings of the README's example, at this provider's addresses."""
    shown = code_block("sh", "CHAT_SSE_JWT_KEY=https")
    env = dict(line.split("=", 1) for line in shown.splitlines())
    load_settings(env, env_file=None)
    keys = plain_http.get(f"{provider}/.well-known/openid-configuration").json()["jwks_uri"]
    env |= {"CHAT_SSE_JWT_KEY": keys, "CHAT_SSE_JWT_ISSUER": provider}
    with serve({**QUICK, **env, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running
        assert "eyJ" not in running.log()


def log_in(provider: str, who: str) -> dict[str, str]:
    """Go through the provider's login as a browser does, with PKCE; gives the tokens."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    wanted = {
        "client_id": CLIENT,
        "response_type": "code",
        "redirect_uri": CALLBACK,
        "scope": "openid profile ask",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    with plain_http.Client(timeout=20) as browser:
        response = browser.get(f"{provider}/auth", params=wanted)
        for _ in range(12):
            if response.is_redirect:
                target = urljoin(str(response.url), response.headers["location"])
                if target.startswith(CALLBACK):
                    break
                response = browser.get(target)
                continue
            [action] = re.findall(r'<form[^>]* action="([^"]+)"', response.text)[:1]
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)"', response.text))
            response = browser.post(action, data={**fields, "login": who, "password": "any"})
        [code] = parse_qs(urlsplit(target).query)["code"]
        told = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        told |= {"client_id": CLIENT, "code_verifier": verifier}
        tokens: dict[str, str] = browser.post(f"{provider}/token", data=told).json()
    return tokens


def test_a_person_who_has_logged_in_asks_with_the_providers_access_token(
    provider: str, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    tokens = log_in(provider, "ada")
    answer = ask(service.url, headers=bearer(tokens["access_token"]))
    assert text_of(events(answer)) == "Hi"
    assert plain_http.get(f"{service.url}/me", headers=bearer(tokens["access_token"])).json()["name"] == "ada"
    path = answer.headers["content-location"]
    again = log_in(provider, "ada")["access_token"]
    assert again != tokens["access_token"]
    assert plain_http.get(service.url + path, headers=bearer(again)).content == answer.content
    bob = log_in(provider, "bob")["access_token"]
    assert plain_http.get(service.url + path, headers=bearer(bob)).status_code == 404
    assert upstream.paid_calls == 1


def test_what_the_provider_signs_for_somebody_else_is_no_token_here(
    provider: str, service: RunningService, upstream: ScriptedUpstream
) -> None:
    tokens = log_in(provider, "ada")
    for_the_page = tokens["id_token"]  # its audience is the page
    for text in (for_the_page, tokens["access_token"][:-4] + "AAAA"):
        assert ask(service.url, headers=bearer(text)).status_code == 401
    assert upstream.calls == []


def test_a_service_for_which_the_page_is_the_audience_takes_its_id_tokens(
    provider: str, upstream: ScriptedUpstream
) -> None:
    env = {"CHAT_SSE_JWT_KEY": f"{provider}/jwks", "CHAT_SSE_JWT_ISSUER": provider}
    env |= {"CHAT_SSE_JWT_AUDIENCE": CLIENT, "OPENAI_BASE_URL": upstream.base_url}
    with serve({**QUICK, **env}) as service:
        text = log_in(provider, "ada")["id_token"]
        told = plain_http.get(f"{service.url}/me", headers=bearer(text)).json()
    assert told["name"] == "ada of the provider"
