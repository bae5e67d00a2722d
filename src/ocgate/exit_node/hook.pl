#!/usr/bin/perl -w
# ocgate's hook of the exit role: one program, installed under two names by ocgate.exit_node.hooks,
# which fills in the setting below.
#
#   tunnel   run by the tunnel's client (OpenVPN --up, openconnect --script), without privilege: tells
#            control what the server pushed. Exits 0 only when control said "admitted", whole and in
#            time: then the device has its addresses and clients are let in. Else the client ends.
#   ended    run by the supervisor's finish script, as root: tells control that the client ended.
#            Exits 0 whatever became of it, since a control that was away asks the supervisor.
#
# Values are bytes of strangers: they go into a message, never into a command, path or log line. No
# module is imported: the client stands still while this runs (see ocgate.ocserv.hooks).

my $RUN_DIR = '@RUN_DIR@';    # filled in; a path in the environment could be forged

my $VERDICT_LIMIT = 10;      # seconds; control takes 0.1, its restart under 2
my $RESTART_LIMIT = 2.5;     # seconds that a hook waits for a control that is just restarting
my $RETRY_PAUSE   = 0.1;     # seconds between those attempts
my $REPLY_MAX     = 4096;    # bytes; a reply is one line

my ($UNIX, $STREAM) = (1, 1);

# What a kind may need of the environment of its client (openvpn(8), "Environmental Variables";
# openconnect's script). Not the certificates' names, digests and the like, of any length and number.
my $WANTED = qr{\A(?:
    script_type | script_context | dev | tun_mtu | link_mtu | ifconfig_\w+ | foreign_option_\d+ |
    dns_\w+ | route_vpn_gateway | trusted_ip6? | trusted_port |
    reason | TUNDEV | VPNGATEWAY | INTERNAL_IP[46]_\w+
)\z}x;

my $told = 0;    # the request may have reached control: it is not repeated

sub value { return defined $ENV{ $_[0] } ? $ENV{ $_[0] } : '' }

sub fail {
    my ($why) = @_;
    alarm 0;
    $why =~ s/[^\x20-\x7e]/?/g;    # one line of plain text in the log, whatever was in it
    syswrite STDERR, "ocgate hook: $why\n";
    exit 1;
}

sub request {
    my ($verb, %fields) = @_;
    my @items = map { "$_=$fields{$_}" } sort keys %fields;
    return join("\0", "ocgate/1 $verb", @items) . "\0\0";
}

# Returns (reply up to the end of the connection, why there is none).
sub ask {
    my ($bytes) = @_;
    socket(my $socket, $UNIX, $STREAM, 0) or return ('', "no socket: $!");
    connect($socket, pack 'S a*x', $UNIX, "$RUN_DIR/control.sock")
      or return ('', "control is not reachable: $!");
    $told = 1;
    while (length $bytes) {
        my $sent = syswrite $socket, $bytes;
        return ('', "control broke off: $!") unless defined $sent;
        $bytes = substr $bytes, $sent;
    }
    my $reply = '';
    while (length $reply <= $REPLY_MAX) {
        my $got = sysread $socket, $reply, $REPLY_MAX, length $reply;
        return ('', "control broke off: $!") unless defined $got;
        return ($reply, '') unless $got;
    }
    return ('', 'the reply of control is too long');
}

sub ask_restarting {
    my ($bytes) = @_;
    my $attempts = $RESTART_LIMIT / $RETRY_PAUSE;
    while (1) {
        my ($reply, $error) = ask($bytes);
        return ($reply, $error) if !$error || $told || --$attempts < 0;
        select undef, undef, undef, $RETRY_PAUSE;
    }
}

sub on_tunnel {
    my $stands = value('script_type') eq 'up' || value('reason') =~ /\A(?:re)?connect\z/;
    exit 0 unless $stands;    # what else a client tells: control goes by the client's own end
    local $SIG{ALRM} = sub { fail("no verdict from control in $VERDICT_LIMIT s") };
    alarm $VERDICT_LIMIT;
    my %fields = map { $_ => $ENV{$_} } grep { $_ =~ $WANTED } keys %ENV;
    my ($reply, $error) = ask_restarting(request('tunnel', %fields));
    alarm 0;
    fail($error) if $error;
    fail("control refused: $1") if $reply =~ /\A(?:refused|error) (.*)\n\z/;
    fail('control gave no whole verdict') unless $reply eq "admitted\n";
    exit 0;
}

sub on_ended {
    my ($code, $signal) = map { defined $_ && /\A([0-9]{1,3})\z/ ? $1 : '' } @ARGV;
    local $SIG{ALRM} = sub { exit 0 };
    alarm $VERDICT_LIMIT;
    ask(request('ended', CODE => $code, SIGNAL => $signal));
    exit 0;
}

open STDIN, '<', '/dev/null' or fail("/dev/null: $!");
on_tunnel() if $0 =~ m{/tunnel\z};
on_ended()  if $0 =~ m{/ended\z};
fail("called as $0");
