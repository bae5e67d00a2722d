"""The bytes of the control socket: what is encoded is parsed, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocgate.sessions.protocol import (
    REQUEST_LIMIT,
    ProtocolError,
    Request,
    RequestParser,
    encode_request,
    error_reply,
    read_error,
    refused_reply,
)

VERBS = st.from_regex(r"[a-z][a-z-]{0,31}", fullmatch=True)
KEYS = st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True)
VALUES = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b"\n"))
REQUESTS = st.builds(Request, VERBS, st.dictionaries(KEYS, VALUES, max_size=8))


def _parse(*pieces: bytes) -> Request | None:
    parser = RequestParser()
    parsed = None
    for piece in pieces:
        assert parsed is None
        parsed = parser.feed(piece)
    return parsed


@given(request=REQUESTS, cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_a_request_survives_any_split(request: Request, cuts: list[int]) -> None:
    encoded = encode_request(request)
    places = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})
    pieces = [encoded[a:b] for a, b in pairwise(places)]
    assert _parse(*pieces) == request


@given(request=REQUESTS)
def test_a_request_arriving_byte_by_byte_is_whole_only_at_its_end(request: Request) -> None:
    encoded = encode_request(request)
    parser = RequestParser()
    answers = [parser.feed(encoded[i : i + 1]) for i in range(len(encoded))]
    assert answers[-1] == request
    assert not any(answers[:-1])


@given(junk=st.binary(max_size=300))
def test_no_bytes_make_the_parser_do_anything_but_parse_or_complain(junk: bytes) -> None:
    for start in (b"", b"ocgate/1 ", b"ocgate/1 connect\0"):
        try:
            parsed = _parse(start + junk)
        except ProtocolError as error:
            assert str(error)
        else:
            assert parsed is None or encode_request(parsed) == start + junk


def test_the_bytes_are_those_of_the_contract() -> None:
    request = Request("connect", {"ID": b"7", "USERNAME": b"$(x) *\\\xff\n"})
    assert encode_request(request) == b"ocgate/1 connect\0ID=7\0USERNAME=$(x) *\\\xff\n\0\0"
    assert encode_request(Request("status")) == b"ocgate/1 status\0\0"


@pytest.mark.parametrize(
    ("encoded", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"ocgate/2 connect\0\0", "does not begin"),
        (b"ocgate/1 \0\0", "verb"),
        (b"ocgate/1 Connect\0\0", "verb"),
        (b"ocgate/1 connect\0ID\0\0", "KEY=VALUE"),
        (b"ocgate/1 connect\0=7\0\0", "KEY=VALUE"),
        (b"ocgate/1 connect\0i d=7\0\0", "KEY=VALUE"),
        (b"ocgate/1 connect\0ID=7\0ID=8\0\0", "twice"),
        (b"ocgate/1 status\0\0x", "after the end"),
        (b"ocgate/1 connect\0A=" + b"x" * REQUEST_LIMIT, "longer than"),
    ],
)
def test_malformed_requests_are_named(encoded: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        _parse(encoded)


def test_a_request_that_breaks_off_is_an_error() -> None:
    parser = RequestParser()
    assert parser.feed(b"ocgate/1 connect\0ID=7\0") is None
    with pytest.raises(ProtocolError, match="ends after 22 bytes"):
        parser.finish()


@pytest.mark.parametrize(
    "request_", [Request("connect", {"A": b"x\0y"}), Request("no verb"), Request("x", {"7": b""})]
)
def test_what_cannot_be_said_is_refused_by_the_sender(request_: Request) -> None:
    with pytest.raises(ValueError):
        encode_request(request_)


@given(reason=st.text(max_size=100))
def test_a_reason_stays_one_line_and_is_read_back_as_a_refusal(reason: str) -> None:
    for reply in (refused_reply(reason), error_reply(reason)):
        assert reply.count(b"\n") == 1 and reply.endswith(b"\n")
        assert read_error(reply)


def test_only_a_whole_reply_is_good() -> None:
    assert read_error(b"ok\n") is None
    assert read_error(b'{"sessions": []}\n') is None
    assert read_error(b"ok") == "control gave no whole reply"
    assert read_error(b"") == "control gave no whole reply"
