"""What upstreams' errors mean, in the words that they use."""

from typing import Any

import pytest

from chat_sse.upstreams.openai.classify import classify, read_error
from chat_sse.upstreams.openai.redaction import names_of


@pytest.mark.parametrize(
    ("status", "error", "code", "retryable"),
    [
        (402, None, "rate_limit_error", False),
        (400, {"error": {"message": "Your credit balance is too low"}}, "rate_limit_error", False),
        (429, {"error": {"code": "insufficient_quota"}}, "rate_limit_error", False),
        (403, {"error": {"message": "x", "code": "insufficient_user_quota"}}, "rate_limit_error", False),
        (429, {"error": {"type": "tokens", "code": "rate_limit_exceeded"}}, "rate_limit_error", True),
        (429, [{"error": {"status": "RESOURCE_EXHAUSTED"}}], "rate_limit_error", True),
        (None, {"code": "429", "message": "slow down"}, "rate_limit_error", True),
        (401, None, "authentication_error", False),
        (
            400,
            {"error": {"details": [{"reason": "API_KEY_INVALID"}], "message": "API key not valid."}},
            "authentication_error",
            False,
        ),
        (None, {"type": "authentication_error"}, "authentication_error", False),
        (400, {"error": {"type": "unknown"}}, "invalid_request_error", False),
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"]}]},
            "invalid_request_error",
            False,
        ),
        (None, "the request exceeds the available context size", "invalid_request_error", False),
        (None, {"type": "BadRequestError", "code": 400}, "invalid_request_error", False),
        (504, None, "timeout_error", True),
        (None, {"code": "DEADLINE_EXCEEDED"}, "timeout_error", True),
        (503, "<html>", "service_unavailable_error", True),
        (529, {"error": {"type": "overloaded_error"}}, "service_unavailable_error", True),
        (500, {"error": {"message": "invalid state"}}, "service_unavailable_error", True),
        (None, {"code": "insufficient_system_resource"}, "service_unavailable_error", True),
        (None, 5, "service_unavailable_error", True),
        (403, None, "authentication_error", False),
        (403, {"error": {"message": "Your input was flagged"}}, "invalid_request_error", False),
        (404, None, "invalid_request_error", False),
        (408, None, "timeout_error", True),
        (409, None, "invalid_request_error", False),
        (524, None, "timeout_error", True),
        (525, None, "service_unavailable_error", True),
        (500, {"error": {"message": "maximum context is 8192"}}, "invalid_request_error", False),
        (500, {"error": {"type": "invalid_request_error"}}, "invalid_request_error", False),
        (500, {"error": {"message": "you said: rate limit"}}, "service_unavailable_error", True),
        (None, {"message": "rate limit reached"}, "rate_limit_error", True),
    ],
)
def test_an_error_is_called_what_it_is_and_retryable_where_that_can_help(
    status: int | None, error: Any, code: str, retryable: bool
) -> None:
    found = classify(read_error(error), status, "")
    assert (found.code, found.retryable) == (code, retryable)


def test_details_name_type_code_and_parameter_and_quote_nothing() -> None:
    told = read_error(
        {"error": {"message": "about my secret", "type": "t_x", "code": 400, "param": "messages[0]"}}
    )
    assert names_of(told) == "t_x, 400, messages[0]"
    assert names_of(read_error({"type": "what the prompt said", "code": "sk-0123456789abcdef"})) in (
        "",
        "[secret]",
    )


@pytest.mark.parametrize(("times", "code"), [(3, "invalid_request_error"), (4, "service_unavailable_error")])
def test_an_error_within_errors_is_read_to_a_bound(times: int, code: str) -> None:
    nested: Any = {"code": 400}
    listed: Any = {"code": 400}
    for _ in range(times):
        nested, listed = {"error": nested}, [listed]
    assert classify(read_error(nested), None, "").code == code
    assert classify(read_error(listed), None, "").code == code


def test_an_error_quoted_in_a_string_is_read_to_the_same_bound() -> None:
    quoted = {"message": '{"error": "x", "code": 400}'}
    assert read_error([quoted]).status == 400
    assert read_error([[quoted]]).status is None
    assert read_error({"message": '{"no json'}).message == '{"no json'


def test_an_empty_member_says_nothing() -> None:
    told = read_error({"code": "", "error_code": "x"})
    assert (told.code, told.words) == ("x", "x")


def test_of_a_list_of_errors_the_first_ten_are_read() -> None:
    errors: list[Any] = [{"code": "x"}] * 9
    assert read_error([*errors, {"code": 400}]).status == 400
    assert read_error([*errors, {"code": "x"}, {"code": 400}]).status is None


def test_an_errors_words_are_kept_to_a_bound() -> None:
    told = read_error({"message": "m" * 5_000, "code": "c" * 5_000})
    assert (told.message, told.words) == ("m" * 4_000, "c" * 4_000)
