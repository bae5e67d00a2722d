"""The settings of what goes on beside the traffic: health check, certificates, session history.

Pure; `model` annotates its attributes with them. The names and what they mean are the reference
image's.
"""

from __future__ import annotations

from ocgate.config import upkeep_forms, values
from ocgate.config.setting import Setting

HEALTH, CERTIFICATES, HISTORY = "Health check", "Certificates", "Session history"

# A day between two looks is the most that still leaves time to mend what a renewal broke.
_LONGEST_INTERVAL = 86400

HEALTH_CHECK_ENABLED = Setting(
    "HEALTH_CHECK_ENABLED",
    values.boolean(),
    HEALTH,
    "What `ocgate healthcheck`, the probe of the container, fails for. `1`: also for the paths of "
    "HEALTH_CHECK_EGRESS. `0`: for nothing but a control plane that does not answer. A dead "
    "upstream or internet alone never makes the container unhealthy, since a restart would only "
    "disconnect everybody.",
    "1",
    unset="a server that does not run, or a kernel that does not hold the whole plan",
)
HEALTH_CHECK_EGRESS = Setting(
    "HEALTH_CHECK_EGRESS",
    upkeep_forms.HEALTH_PATHS,
    HEALTH,
    "Ways to the internet whose failure makes the container unhealthy, with "
    "HEALTH_CHECK_ENABLED=1: `direct`, this host's own; `default`, the clients' (each family that "
    "VPN_GATEWAY and VPN_GATEWAY6 send by a gateway must work); `all`, both. List only what you "
    "would restart the server for.",
    "direct+default",
)
HEALTH_CHECK_URL = Setting(
    "HEALTH_CHECK_URL",
    upkeep_forms.URLS,
    HEALTH,
    "What is fetched by each of these ways; one that answers below 400, with a certificate that "
    "this host trusts, is enough.",
    "https://1.1.1.1/cdn-cgi/trace; https://example.org",
    unset="a gateway counts as the probes of EXIT_PROBE find it, and `direct` is asked for the "
    "same targets",
)
CERT_WATCH = Setting(
    "CERT_WATCH",
    values.boolean(),
    CERTIFICATES,
    "Whether a certificate or key that changes is shown to new clients at once; nobody is "
    "disconnected. All directories and links on the way to the files are watched (certbot's "
    "`live`, Kubernetes' `..data`). A pair that does not fit together, because it is half "
    "written, is waited for, and the former one stays in use meanwhile.",
    "1",
)
CERT_WATCH_INTERVAL = Setting(
    "CERT_WATCH_INTERVAL",
    values.integer(0, _LONGEST_INTERVAL, "seconds", outside="write 300, say, or 0 for never"),
    CERTIFICATES,
    "Seconds between two looks at the files' content, for file systems that report no change "
    "(NFS). `0`: no such looks. Both may be set.",
    "300",
)
SESSION_HISTORY_FILE = Setting(
    "SESSION_HISTORY_FILE",
    upkeep_forms.FILE,
    HISTORY,
    "Where completed sessions are kept, one JSON object a line: who, from where, from when to "
    "when, how many bytes, by which exit, why it ended. `ocgate sessions` shows them. At 16 MiB "
    "(some 40,000 sessions) the file becomes `NAME.1`, whose predecessor goes. Lines of the "
    "reference image's format are read, too.",
    "/etc/ocserv/session-history",
    unset="`sessions.history` in the run dir, at most twice 1 MiB, until the container goes",
)
