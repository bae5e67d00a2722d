"""The commands, declared: names, options, help. What they do stands in the modules beside.

Help teaches by example: every command shows lines that can be typed as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ocgate import __version__
from ocgate.cli import reports
from ocgate.cli.declaring import LOOK, SERVE, USERS, Json
from ocgate.cli.declaring import end as _end
from ocgate.cli.declaring import examples as _examples


class SettingsCommand(TyperCommand):
    """A command whose --help ends with the settings table."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As any command's; the table is made only when somebody asks."""
        super().format_help(ctx, formatter)
        self.show_settings()

    def show_settings(self) -> None:
        """The server role's."""
        from ocgate.cli.settings_table import show

        show()


class ExitSettingsCommand(SettingsCommand):
    """The same with the exit role's settings."""

    def show_settings(self) -> None:
        """The exit role's."""
        from ocgate.cli.settings_table import show_exit

        show_exit()


app = typer.Typer(
    name="ocgate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A self-configuring OpenConnect VPN server whose clients cannot leak.\n\n"
    "Exit status: 0 fine, 1 it ran and something is wrong, 2 usage or configuration.",
    epilog=_examples(
        "sudo ocgate run              # serve; an empty /etc/ocserv is filled first",
        "sudo ocgate user add alice   # another user, with a random password",
        "sudo ocgate status           # who is connected, what was blocked",
        "ocgate run --help            # every setting",
    ),
)
user_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(
    user_app,
    name="user",
    rich_help_panel=USERS,
    help="Add, remove and list users with passwords.",
    epilog=_examples("ocgate user add alice", "ocgate user list", "ocgate user remove alice"),
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The user's name; after -- if it begins with a dash.")
]
Vhost = Annotated[
    str, typer.Option(metavar="NAME", help="Users of this [vhost:NAME] instead of the main host.")
]


def run_app(arguments: list[str]) -> int:
    """Run the command line; its exit status. Errors of ours pass."""
    try:
        app(arguments, prog_name="ocgate")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _version(asked: bool) -> None:
    if asked:
        print(f"ocgate {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in ocgate an error happened.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    # --debug is read in __main__, before there is a command line; --version acts while parsed.
    pass


@app.command(
    cls=SettingsCommand,
    rich_help_panel=SERVE,
    epilog=_examples(
        "sudo ocgate run",
        "sudo WAN_IF=eth1 IPV6_NAT=auto ocgate run",
        "sudo OCGATE_CONFIG_DIR=/srv/vpn ocgate run",
    ),
)
def run() -> None:
    """Serve, in the foreground, until Ctrl-C or SIGTERM.

    An empty config dir is initialised first. Your ocserv.conf is never edited. Nothing is
    forwarded before the guard stands in the kernel, and a stop leaves nothing of ours there.
    """
    from ocgate.cli import serving

    serving.run()


@app.command(
    "exit",
    cls=ExitSettingsCommand,
    rich_help_panel=SERVE,
    epilog=_examples(
        "OVPN_CONFIG=/config/vpn.ovpn FORWARD_FROM=172.28.0.0/24 ocgate exit",
        "URL=https://vpn.example.org USER=alice PASS_FILE=/run/secrets/pass ocgate exit",
        "USER=… PASS=… COUNTRY=Netherlands FORWARD_FROM=172.28.0.0/24 ocgate exit   # NordVPN",
    ),
)
def exit_role() -> None:
    """Be the exit: a tunnel client with a kill switch; FORWARD_FROM gets out by it or not at all.

    Runs in a container of its own, in the foreground, until SIGTERM. The kill switch stays when it
    stops, closed.
    """
    from ocgate.cli import serving

    serving.exit_role()


@app.command(
    rich_help_panel=SERVE,
    epilog=_examples(
        "sudo ocgate init",
        "sudo OCGATE_URL=https://vpn.example.org OCGATE_USER=alice ocgate init",
    ),
)
def init() -> None:
    """Fill an empty config dir: key, certificate, ocserv.conf, ocgate.toml, a first user.

    Prints once how to connect. Where an ocserv.conf is there already, it changes nothing.
    """
    from ocgate.cli import serving

    _end(serving.init())


@app.command(
    rich_help_panel=SERVE,
    epilog=_examples(
        "sudo ocgate reload",
        "sudo ocgate reload --learn-mac   # the upstream's container was made anew",
    ),
)
def reload(
    learn_mac: Annotated[
        bool,
        typer.Option("--learn-mac", help="Learn gateways' MAC addresses anew (VPN_GATEWAY_MAC)."),
    ] = False,
) -> None:
    """Re-read configuration and certificates; live sessions go on. An exit takes the next server.

    Everything is checked first: a bad configuration changes nothing.
    """
    from ocgate.cli import serving

    _end(serving.reload(learn_mac=learn_mac))


@app.command(rich_help_panel=LOOK, epilog=_examples("sudo ocgate check"))
def check() -> None:
    """Validate settings, ocserv.conf and this machine; change nothing."""
    from ocgate.cli import looking

    _end(looking.check())


@app.command(
    rich_help_panel=LOOK,
    epilog=_examples(
        "sudo ocgate plan             # as nft and ip text",
        "sudo ocgate plan --diff      # what the kernel holds otherwise",
        "sudo ocgate plan --json",
    ),
)
def plan(
    as_json: Json = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print how the kernel differs from the plan.")
    ] = False,
) -> None:
    """Show the network state that `run` would apply; change nothing."""
    if as_json and diff:
        raise typer.BadParameter("choose one: --json holds the diff, too", param_hint="--diff")
    from ocgate.cli import looking

    _end(looking.plan(as_json=as_json, diff=diff))


@app.command(
    rich_help_panel=LOOK,
    epilog=_examples("sudo ocgate status", "sudo ocgate status --json | jq .sessions"),
)
def status(as_json: Json = False) -> None:
    """Show server, network, sessions, and what was blocked and why; of an exit its tunnel.

    Exit status 1 if it is not healthy.
    """
    from ocgate.cli import status as showing

    _end(showing.status(as_json=as_json))


@app.command(
    rich_help_panel=LOOK,
    epilog=_examples("sudo ocgate metrics", "sudo ocgate metrics | grep ocgate_exit"),
)
def metrics() -> None:
    """Print exits, sessions and what was blocked in Prometheus' text format.

    Nothing listens on the network for it; hand it to a node exporter's textfile collector, say.
    """
    from ocgate.cli import metrics as figures

    _end(figures.metrics())


@app.command(rich_help_panel=LOOK, epilog=_examples("ocgate healthcheck || echo unhealthy"))
def healthcheck() -> None:
    """Say whether server or exit is healthy, for a container's probe: 0 if it is, else 1."""
    from ocgate.cli.healthcheck import healthcheck as probe

    _end(probe())


@app.command(
    rich_help_panel=LOOK,
    epilog=_examples(
        "sudo ocgate prove",
        "sudo ocgate prove --only upstream --only 'container restart'",
        "sudo ocgate prove --chaos 60  # an hour of faults at random",
        "sudo ocgate prove --full --pcap /tmp/evidence --json > proof.json",
    ),
)
def prove(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only faults of this name or group; repeatable."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Longer traffic, and every pair of faults.")
    ] = False,
    pcap: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the captures of every fault there.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Every fault, and every kind of leak with examples.")
    ] = False,
    as_json: Json = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="List the faults; run none of them.")
    ] = False,
    chaos: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", min=0.0, help="Several faults at a time, at random, for so long."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="With --chaos: replay these rounds.")
    ] = None,
) -> None:
    """Show that this configuration does not leak: break a replica in every way, and capture.

    The replica stands in scratch network namespaces; your server and its clients are not touched.
    Exit status 1 if a packet leaked.
    """
    from ocgate.cli import prove as proving

    if list_only:
        _end(proving.list_faults(full=full))
    if chaos is not None:
        from ocgate.cli import chaos as unrest

        _end(unrest.chaos(minutes=chaos, seed=seed, pcap=pcap, as_json=as_json))
    _end(proving.prove(only=only or (), full=full, pcap=pcap, as_json=as_json, details=details))


@user_app.command(
    "add",
    epilog=_examples(
        "ocgate user add alice",
        "ocgate user add bob --group staff --group admin",
        "pass show vpn/carol | ocgate user add carol --password-stdin",
        "ocgate user add alice --replace     # a new password",
    ),
)
def user_add(
    name: Name,
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="A group of the user; repeatable.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give an existing user a new password.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin's first line.")
    ] = False,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read it from the first line of a file.")
    ] = None,
    vhost: Vhost = "",
) -> None:
    """Add a user; without a password of yours a random one is made and shown once.

    Works at once, without a restart. A password is never taken from the command line, where
    everybody on this machine could read it.
    """
    if password_stdin and password_file:
        raise typer.BadParameter("choose stdin or a file", param_hint="--password-file")
    from ocgate.cli import users

    _end(
        users.add(
            name,
            groups=group or (),
            replace=replace,
            from_stdin=password_stdin,
            from_file=password_file,
            vhost=vhost,
        )
    )


@user_app.command("remove", epilog=_examples("ocgate user remove alice"))
def user_remove(name: Name, vhost: Vhost = "") -> None:
    """Remove a user and disconnect its sessions."""
    from ocgate.cli import users

    _end(users.remove(name, vhost=vhost))


@user_app.command("list", epilog=_examples("ocgate user list", "ocgate user list --json"))
def user_list(as_json: Json = False, vhost: Vhost = "") -> None:
    """List users, their groups, and which of them are locked."""
    from ocgate.cli import users

    _end(users.list_users(as_json=as_json, vhost=vhost))


reports.declare(app)
