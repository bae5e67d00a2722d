"""What the image is made of agrees with what a host installs; the Dockerfile keeps its promises."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Debian's metapackage and what makes a .venv; the image takes interpreter and library alone.
INSTEAD = {"python3", "python3-venv"}


def packages(name: str) -> dict[str, str]:
    """Package -> the file it is there for."""
    lines = (ROOT / name).read_text().splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {row[0]: row[1] for row in rows}


def test_the_image_has_every_package_that_a_host_gets() -> None:
    host = packages("setup/packages-run.txt")
    image = packages("setup/image/packages.txt")
    assert set(host) - INSTEAD <= set(image)
    assert all(host[name] == image[name] for name in set(host) & set(image))


def test_the_last_stage_only_copies() -> None:
    """A step that ran there would leave mount points, logs and times of its build."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "COPY --from=" in last
    assert not re.search(r"^(RUN|ADD)\b", last, re.MULTILINE)


def test_nothing_in_the_making_depends_on_an_architecture() -> None:
    texts = [DOCKERFILE, *(path.read_text() for path in (ROOT / "setup/image").iterdir())]
    assert not re.search(r"amd64|x86_64|arm64|aarch64|--platform", "\n".join(texts))


def test_the_image_says_how_it_is_run() -> None:
    for line in ('ENTRYPOINT ["ocgate"]', 'CMD ["run"]', "VOLUME /etc/ocserv",
                 "EXPOSE 443/tcp 443/udp", "STOPSIGNAL SIGTERM"):  # fmt: skip
        assert line in DOCKERFILE
    assert 'CMD ["ocgate", "healthcheck"]' in DOCKERFILE


def test_the_image_has_no_base_below_it() -> None:
    """A file that is taken away or changed in a later layer is still in the one below."""
    assert DOCKERFILE.rpartition("\nFROM ")[2].startswith("scratch\n")


def test_what_is_left_out_has_a_reason_and_is_nothing_that_we_run() -> None:
    rows = [
        line.split(maxsplit=1)
        for line in (ROOT / "setup/image/unneeded.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rows
    assert [row for row in rows if len(row) != 2 or not row[0].startswith("/")] == []
    files = packages("setup/image/packages.txt").values()
    used = {*files, "/usr/bin/setpriv", "/usr/bin/s6-svc", "/usr/bin/unshare", "/usr/bin/mount"}
    for pattern, _ in rows:
        assert [each for each in used if fnmatch.fnmatch(each, pattern)] == []


def test_nothing_that_we_print_turns_off_what_a_runtime_does_for_containers() -> None:
    """Its seccomp filter, which the images' tests see on every process, and `--privileged`."""
    off = re.compile(r"seccomp[=:]|seccompProfile|--privileged\b(?!`)|privileged: *true")
    places = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*")]
    texts = {place: place.read_text() for place in places if place.is_file()}
    assert any("no-new-privileges" in text for text in texts.values()), "positive control"
    assert off.search("security_opt: [seccomp=unconfined]"), "positive control"
    assert [str(place) for place, text in texts.items() if off.search(text)] == []
