"""The last step of a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocgate.errors import OcgateError
from ocgate.names import KEYS, KEYS_NEW
from ocgate.server import teardown


def test_no_key_stays_where_the_kernel_refuses_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (KEYS, KEYS_NEW):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main-0-key.pem").touch()

    def refuse(*_: object, **__: object) -> None:
        raise OcgateError("no")

    monkeypatch.setattr(teardown, "remove", refuse)
    monkeypatch.setattr(teardown, "Nft", object)
    with pytest.raises(OcgateError):
        teardown.teardown(tmp_path)
    assert list(tmp_path.iterdir()) == []
