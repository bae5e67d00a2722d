"""What the worst answers of a provider's API cost in memory, measured in a process of its own.

An object of Python is 20 to 30 times as large as its JSON text: an exit of 64 MB would be killed by
an answer that is below the limit of size.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

# 16 were measured: the answer itself, its text, and what is kept of it.
MOST_MEGABYTES = 24

ROOT = Path(__file__).parents[3]

# Bodies are made at their full size beforehand and written to a file, so that their making does not
# count. `ask` reads it as `provider_fetch` does.
_MEASURE = dedent("""
    import resource, sys, tempfile
    from lab import nordvpn_api as lab
    from ocgate.tunnel import nordvpn_api as api
    from ocgate.tunnel.nordvpn import NordVpn
    from ocgate.tunnel.provider import NotListed, Wish, kept
    from ocgate.tunnel.provider_fetch import LARGEST_ANSWER as LIMIT
    import json

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def repeated(head, item, tail):
        return head + item * ((LIMIT - len(head) - len(tail)) // len(item)) + tail

    def padded(make, count):
        room = LIMIT // count - 200
        return "[" + ",".join(make(number, room) for number in range(count)) + "]"

    def one(number, room, **more):
        server = lab.server(f"de{number}.nordvpn.com", "198.51.100.7", 1, "DE", "Berlin")
        text = json.dumps({**server, **more})
        return text[:-1] + ', "more": [' + "[0]," * max(0, (room - len(text)) // 4) + "0]}"

    def many_groups(number, room):
        groups = [{"id": n, "title": f"t{n}" * 20, "identifier": f"i{n}" * 20} for n in range(40)]
        return one(number, room, groups=groups)

    BODIES = {
        "tiny objects": lambda: repeated("[", "{},", "{}]"),
        "tiny lists": lambda: repeated("[", "[],", "[]]"),
        "tiny pairs": lambda: repeated("[", '{"":0},', "{}]"),
        "numbers": lambda: repeated("[", "1.5,", "1]"),
        "one object": lambda: repeated('[{"a":[', "{},", "{}]}]"),
        "one string": lambda: repeated('["', "a", '"]'),
        "one wide string": lambda: repeated('["\\U0001f600', "a", '"]'),
        "escapes": lambda: repeated('["', "\\\\u00e9", '"]'),
        "deep": lambda: repeated("", "[", ""),
        "deep objects": lambda: repeated("[", '{"a":', ""),
        "keys": lambda: "[{" + ",".join(f'"{n}":0' for n in range(LIMIT // 11)) + "}]",
        "large number": lambda: repeated("[", "9", "]"),
        "blanks": lambda: repeated("[", " ", "]"),
        "dense items": lambda: padded(lambda n, room: '{"a":[' + "{}," * (room // 3) + "0]}", 900),
        "servers": lambda: padded(one, 500),
        "servers of many groups": lambda: padded(many_groups, 500),
    }
    body = BODIES[sys.argv[1]]()
    with tempfile.TemporaryFile() as file:
        file.write(body.encode()[:LIMIT])
        del body
        def ask(path):
            if path == api.COUNTRIES:
                return json.dumps(lab.countries()).encode()
            file.seek(0)
            return file.read()
        # The peak of what came before is forgotten, not kept as this process' own.
        open("/proc/self/clear_refs", "w").write("5")
        status = lambda key: int(next(
            line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) / 1024
        before = status("VmRSS")
        try:
            wish = Wish(countries=("81", "153", "227", "228"))
            listing = NordVpn().list_servers(ask, wish)
            kept(listing, 1.0)
            said = f"{len(listing.servers)} servers"
        except NotListed as error:
            said = error.message
        print(round(status("VmHWM") - before), said)
""")

BODIES = [
    *("tiny objects", "tiny lists", "tiny pairs", "numbers", "one object", "one string"),
    *("one wide string", "escapes", "deep", "deep objects", "keys", "large number", "blanks"),
    *("dense items", "servers", "servers of many groups"),
]


@pytest.mark.parametrize("body", BODIES)
def test_the_worst_answers_cost_little(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _MEASURE, body],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # of the lab
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken, _, said = done.stdout.partition(" ")
    assert int(taken) <= MOST_MEGABYTES, f"{body}: {taken} MB ({said.strip()})"
    if body.startswith("servers"):
        assert said.strip() == "500 servers"
    else:
        assert said.startswith("api.nordvpn.com")
