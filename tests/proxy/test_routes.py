"""Routes: exact, raw, and the upstream's path is ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.proxy import routes

PATHS = [*routes.TABLE, "/v1beta/models/gemini-2.0:generateContent", "/v1/models/g:streamGenerateContent"]


@pytest.mark.parametrize("path", PATHS)
def test_only_post_and_only_the_exact_path(path: str) -> None:
    assert routes.match("POST", path, b"") is not None
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "PATCH"):
        assert routes.match(method, path, b"") is None
    for odd in (path + "/", "/" + path, path + "%20", path.upper(), path.replace("/", "//", 2), path + ";x",
                path + "\0",
                path.replace("/", "/./", 1), path.replace("/", "/x/../", 1), path[1:], "http://h" + path, path + "#x"):
        assert routes.match("POST", odd, b"") is None, odd


@pytest.mark.parametrize(("path", "openai", "anthropic", "gemini"), [
    ("", "/v1/chat/completions", "/v1/messages", "/v1beta/models"),
    ("/v1", "/v1/chat/completions", "/v1/messages", "/v1beta/models"),
    ("/openai/v1", "/openai/v1/chat/completions", "/openai/v1/messages", "/openai/v1beta/models"),
    ("/api", "/api/v1/chat/completions", "/api/v1/messages", "/api/v1beta/models"),
    ("/api/paas/v4", "/api/paas/v4/chat/completions", "/api/paas/v4/v1/messages", "/api/paas/v4/v1beta/models"),
    ("/v1beta/openai", "/v1beta/openai/chat/completions", "/v1beta/openai/v1/messages", "/v1beta/openai/v1beta/models"),
    ("/v1beta", "/v1beta/chat/completions", "/v1beta/v1/messages", "/v1beta/models"),
    ("/v1/a/g/anthropic", "/v1/a/g/anthropic/chat/completions", "/v1/a/g/anthropic/v1/messages",
     "/v1/a/g/anthropic/v1beta/models"),
    ("/v1-team", "/v1-team/v1/chat/completions", "/v1-team/v1/messages", "/v1-team/v1beta/models"),
    ("/v1/chat/completions", "/v1/chat/completions", None, None), ("/chat/completions", "/chat/completions", None, None),
    ("/inference/chat/completions", "/inference/chat/completions", None, None),
])
def test_a_configured_path_stands_before_the_target_or_for_its_version(path: str, openai: str, anthropic: str | None,
                                                                       gemini: str | None) -> None:
    for family, target, sent in (("openai", b"/v1/chat/completions", openai), ("anthropic", b"/v1/messages", anthropic),
                                 ("gemini", b"/v1beta/models", gemini)):
        assert sent is None or routes.base(path, family).target(target).decode() == sent


@given(st.text(max_size=30))
def test_a_models_name_is_a_name(name: str) -> None:
    matched = routes.match("POST", f"/v1beta/models/{name}:generateContent", b"")
    if matched is not None:
        assert name and routes.SAFE.issuperset(name) and b"/" not in matched.target.removeprefix(b"/v1beta/models/")


@given(st.lists(st.tuples(st.sampled_from(["alt", "key", "beta", "api_base", "$alt", "ALT"]), st.text(max_size=8))))
def test_unknown_query_parameters_are_dropped(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{k}={v}" for k, v in pairs).encode()
    for path, allowed in ((PATHS[-1], {b"alt"}), ("/v1/messages", {b"beta"}), ("/v1/chat/completions", set())):
        matched = routes.match("POST", path, query)
        assert matched is not None
        _, _, rest = matched.target.partition(b"?")
        assert {part.partition(b"=")[0] for part in rest.split(b"&") if part} <= allowed
        assert set(matched.target) <= set(b"?&=:/" + "".join(routes.SAFE).encode())


def test_every_route_names_a_dialect_and_errors_have_one_too() -> None:
    assert len({r.name for r in routes.TABLE.values()}) == len(routes.TABLE)
    assert {r.family for r in routes.TABLE.values()} == {"openai", "anthropic", "ollama"}
    assert routes.dialect("/nowhere").name == "openai-chat" and routes.dialect("/v1/messages/x").name == \
        "anthropic-messages" and routes.dialect("/v1beta/models/x").name == "gemini"


@given(st.text(max_size=30), st.booleans())
def test_a_listed_model_is_a_name_and_no_step(name: str, anthropic: bool) -> None:
    for folder in ("/v1/models", "/v1beta/models", "/api/tags"):
        matched = routes.listing(f"{folder}/{name}", b"api_base=http://evil&limit=..", anthropic)
        if matched is not None and "%" not in name:
            assert matched.target in (f"{folder}/{name}".encode(), f"{folder}/{name}?limit=..".encode())
            assert name[0].isalnum() and not set(name) & set("/?#%\\ ") and matched.model == name
            assert routes.listing(f"{folder}/a%2F{name}", b"", anthropic).model == f"a/{name}"     # type: ignore[union-attr]
            assert matched.route.name == f"GET {folder}" and folder != "/api/tags"
    assert routes.listing("/v1/models", b"limit=5&x=1", True).target == b"/v1/models?limit=5"      # type: ignore[union-attr]
    assert routes.listing("/v1/files", b"", anthropic) is None
