"""Users in ocserv's passwd file: `name:group1,group2:hash`, one a line. Pure but for the file door.

Lines that are no user's, their order and line ends stay as they are. A user's name is data: it is
never given to a shell or a program here. ocserv reads the file at each login, so an edit works at
once; sessions that live go on (see `occtl.disconnect_user`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocgate.errors import ConfigurationError, OcgateError, Problem
from ocgate.ocserv.passwd_file import Edited, edit

# ocserv copies the name into 64 bytes and cuts what is longer (auth/plain.c, MAX_USERNAME_SIZE;
# shown on 1.1.6 and 1.3.0): a longer user could never log in, and whoever typed such a name
# would log in as the user of its first 63 bytes.
LONGEST_NAME = 63
LONGEST_GROUP = 63

NAME_EXPECTED = (
    f"1 to {LONGEST_NAME} bytes of UTF-8 without ':', '/' and control characters; not . or .."
)
_GROUP_EXPECTED = f"1 to {LONGEST_GROUP} bytes without ':', ',', '/', blanks at the ends; not '*'"

# plain.c skips lines of at most this many bytes, the newline among them.
_TOO_SHORT = 4
_NO_GROUP = b"*"


@dataclass(frozen=True)
class User:
    """One line of the passwd file.

    groups: in order, the first one is what a client that names none gets.
    locked: the hash begins with `!`: nobody can log in.
    open:   the hash is empty: *any* password logs in.
    """

    name: str
    groups: tuple[str, ...]
    locked: bool
    open: bool


def validate_name(name: str, *, source: str = "command line", key: str = "user") -> None:
    """Raise `ConfigurationError` if ocserv's passwd file could not hold the user `name`.

    source, key: what to blame in the message.
    """
    if _is_text(name, LONGEST_NAME) and ":" not in name and _is_file_name(name):
        return
    remedy = "Choose a shorter or plainer name, such as alice"
    raise ConfigurationError([Problem(source, 0, key, name, NAME_EXPECTED, remedy)])


def validate_group(group: str) -> None:
    """Raise `ConfigurationError` if `group` can't stand in the passwd file's list of groups."""
    plain = group.strip() == group and not set(group) & {":", ","} and group != "*"
    if _is_text(group, LONGEST_GROUP) and plain and _is_file_name(group):
        return
    remedy = "Choose a plainer name, such as staff"
    raise ConfigurationError([Problem("command line", 0, "group", group, _GROUP_EXPECTED, remedy)])


def _is_file_name(text: str) -> bool:
    """ocserv opens config-per-user/NAME and config-per-group/NAME: of `../x` another file."""
    return "/" not in text and text not in (".", "..")


def _is_text(text: str, longest: int) -> bool:
    """Printable (so no newline, NUL or lone surrogate) and of 1 to `longest` bytes."""
    return text.isprintable() and 1 <= len(text.encode(errors="surrogateescape")) <= longest


def parse(content: bytes) -> tuple[User, ...]:
    """The users in file order as ocserv sees them: of two lines of one name the first counts."""
    users: dict[str, User] = {}
    for line in content.splitlines(keepends=True):
        user = _user(line)
        if user is not None:
            users.setdefault(user.name, user)
    return tuple(users.values())


def read(path: Path) -> tuple[User, ...]:
    """The users of the file; raises `OcgateError` if it can't be read."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise OcgateError(f"reading {path}: {error.strerror}") from error


def entry(name: str, groups: Sequence[str], hashed: str) -> bytes:
    """The line of one user, newline included."""
    return b":".join((name.encode(), _group_field(groups), hashed.encode())) + b"\n"


def add(
    path: Path, name: str, hashed: str, *, groups: Iterable[str] = (), replace: bool = False
) -> Edited:
    """Append the user; with `replace` an existing one gets the new hash, and groups if any given.

    Raises `ConfigurationError` for names ocserv can't take, `OcgateError` if the user exists.
    """
    validate_name(name)
    listed = tuple(groups)
    for group in listed:
        validate_group(group)

    def change(content: bytes) -> bytes:
        existing = _position(content, name)
        if existing is None:
            return _ended(content) + entry(name, listed, hashed)
        if not replace:
            raise OcgateError(
                f"user {name!r} exists in {path}",
                hint="Add --replace to give it a new password",
            )
        return _with_line(content, existing, listed, hashed)

    return edit(path, change)


def remove(path: Path, name: str) -> Edited:
    """Take every line of the user out; raises `OcgateError` if there is none.

    Every one, because a second line of the same name would come alive once the first is gone.
    """

    def change(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        kept = [line for line in lines if not _is_of(line, name)]
        if len(kept) == len(lines):
            raise OcgateError(
                f"no user {name!r} in {path}", hint="`ocgate user list` shows who there is"
            )
        return b"".join(kept)

    if not path.exists():
        raise OcgateError(f"no user {name!r}: {path} does not exist")
    return edit(path, change)


def _fields(line: bytes) -> list[bytes] | None:
    """Name, groups and hash of a line, None if ocserv would not take a user from it."""
    fields = line.rstrip(b"\r\n").split(b":")
    return fields if len(line) > _TOO_SHORT and len(fields) >= 3 else None


def _is_of(line: bytes, name: str) -> bool:
    fields = _fields(line)
    return fields is not None and fields[0] == name.encode(errors="surrogateescape")


def _user(line: bytes) -> User | None:
    fields = _fields(line)
    if fields is None or _is_comment(fields):
        return None
    groups = (group.strip().decode(errors="surrogateescape") for group in fields[1].split(b","))
    return User(
        name=fields[0].decode(errors="surrogateescape"),
        groups=tuple(group for group in groups if group not in ("", "*")),
        locked=fields[2].startswith(b"!"),
        open=fields[2] == b"",
    )


def _is_comment(fields: list[bytes]) -> bool:
    """Whether a line of three fields is a remark; ocserv knows none, but its hash can't match."""
    return (
        fields[0].startswith(b"#") and not fields[2].startswith((b"$", b"!")) and fields[2] != b""
    )


def _position(content: bytes, name: str) -> int | None:
    lines = content.splitlines(keepends=True)
    return next((at for at, line in enumerate(lines) if _is_of(line, name)), None)


def _with_line(content: bytes, at: int, groups: Sequence[str], hashed: str) -> bytes:
    lines = content.splitlines(keepends=True)
    line = lines[at]
    fields = line.rstrip(b"\r\n").split(b":")
    if groups:
        fields[1] = _group_field(groups)
    fields[2] = hashed.encode()
    lines[at] = b":".join(fields) + line[len(line.rstrip(b"\r\n")) :]
    return b"".join(lines)


def _group_field(groups: Sequence[str]) -> bytes:
    return ",".join(groups).encode() or _NO_GROUP


def _ended(content: bytes) -> bytes:
    """With a final newline, so that an appended line stands alone."""
    return content if content in (b"",) or content.endswith(b"\n") else content + b"\n"
