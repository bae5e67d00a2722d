#!/usr/bin/perl -w
# ocgate's connect and disconnect hook of ocserv: one program, installed under two names by
# ocgate.ocserv.hooks, which fills in the two settings below. ocserv (main) runs it as root, without
# arguments, for every session; its exit status is the verdict on a connect.
#
# Contract, in the order of its importance:
#   - connect exits 0 only after control said "admitted", whole and in time, and the operator's own
#     script, where there is one, then exited 0. Everything else refuses: no control, garbage, half a
#     reply, a time limit, a signal. Death by SIGTERM is success to ocserv, so SIGTERM is trapped.
#   - a session that control admitted and we then refuse is given back with the verb "refused".
#   - disconnect reports, then becomes the operator's script, whatever became of the report.
#   - values are bytes of strangers: they go into a message, never into a command, path or log line.
#
# No module is imported: `use strict; use warnings` costs 2 ms, as much as all of perl's start. The
# tests compile this file with strictures and fatal warnings instead.

my $RUN_DIR      = '@RUN_DIR@';         # filled in; a path in the environment could be forged
my $SCRIPT_LIMIT = 0 + '@SCRIPT_LIMIT@';    # seconds for the operator's connect script

my $VERDICT_LIMIT = 5;    # seconds; control answers in milliseconds, its restart takes under 2
my $REPORT_LIMIT  = 5;    # seconds; nobody waits for a disconnect, but the operator's script does
my $RETURN_LIMIT  = 1;    # seconds; for control to confirm that it freed what we refused
my $RESTART_LIMIT = 2.5;  # seconds that a hook waits for a control that is just restarting
my $RETRY_PAUSE   = 0.1;  # seconds between those attempts
my $REPLY_MAX     = 4096; # bytes; a reply is one line
my $STOPPING = "$RUN_DIR/services/.s6-svscan/stopping";    # there from the beginning of a stop (stop.sh)

my ($UNIX, $STREAM, $NONBLOCK, $KILL) = (1, 1, 04000, 9);    # Linux on every architecture of Debian
                                                             # that has ocserv, but mips and alpha
# What control is told. OCSERV_ROUTES and the like may be long and are known from the configuration.
my @VARIABLES = qw(
  REASON ID VHOST USERNAME GROUPNAME DEVICE IP_REAL IP_REAL_LOCAL IP_LOCAL IP_REMOTE
  IPV6_LOCAL IPV6_REMOTE IPV6_PREFIX HOSTNAME REMOTE_HOSTNAME USER_AGENT DEVICE_TYPE
  DEVICE_PLATFORM STATS_BYTES_IN STATS_BYTES_OUT STATS_DURATION
);

my $told   = 0;    # the connect request may have reached control: a refusal must be reported
my $script = 0;    # pid and process group of the operator's running script

sub value { return defined $ENV{ $_[0] } ? $ENV{ $_[0] } : '' }

sub say_why {
    my ($text) = @_;
    $text =~ s/[^\x20-\x7e]/?/g;    # one line of plain text in ocserv's log, whatever was in it
    my ($reason, $id) = (value('REASON'), value('ID'));
    $id =~ s/[^0-9]//g;
    $reason = $reason eq 'disconnect' ? $reason : 'connect';
    syswrite STDERR, "ocgate hook: $reason of ID $id: $text\n";
    return;
}

sub refuse {
    my ($why, $may_wait) = @_;
    alarm 0;
    kill -$KILL, $script if $script;
    give_back($may_wait) if $told;
    say_why("refused: $why");
    exit 1;
}

# The worker's start time (clock ticks since boot, field 22 of proc(5) stat) tells apart two sessions
# whose ID is the same reused pid. At disconnect the worker may be gone already: then it is empty.
sub worker_started {
    my ($id) = value('ID') =~ /\A([0-9]{1,10})\z/ or return '';
    open my $stat, '<', "/proc/$id/stat" or return '';
    my $line = <$stat>;
    return '' unless defined $line and $line =~ /\A.*\) (.*)/s;    # comm may hold spaces and ")"
    my $started = (split ' ', $1)[19];
    return defined $started ? $started : '';
}

sub request {
    my ($verb) = @_;
    my @items = map { "$_=$ENV{$_}" } grep { defined $ENV{$_} } @VARIABLES;
    return join("\0", "ocgate/1 $verb", @items, 'WORKER_STARTED=' . worker_started()) . "\0\0";
}

# Sends everything or returns why not.
sub send_request {
    my ($socket, $bytes) = @_;
    while (length $bytes) {
        my $sent = syswrite $socket, $bytes;
        return "control broke off: $!" unless defined $sent;
        $bytes = substr $bytes, $sent;
    }
    return '';
}

sub open_control {
    my ($flags) = @_;
    socket(my $socket, $UNIX, $STREAM | $flags, 0) or return (undef, "no socket: $!");
    connect($socket, pack 'S a*x', $UNIX, "$RUN_DIR/control.sock")
      or return (undef, "control is not reachable: $!");
    return ($socket, '');
}

# Returns (reply up to the end of the connection, why there is none).
sub ask {
    my ($verb) = @_;
    my ($socket, $error) = open_control(0);
    return ('', $error) unless $socket;
    $told = $verb eq 'connect';
    $error = send_request($socket, request($verb));
    return ('', $error) if $error;
    my $reply = '';
    while (length $reply <= $REPLY_MAX) {
        my $got = sysread $socket, $reply, $REPLY_MAX, length $reply;
        return ('', "control broke off: $!") unless defined $got;
        return ($reply, '') unless $got;
    }
    return ('', 'the reply of control is too long');
}

# A control that was killed is back in under 2 s. A connect refused in that gap costs a roaming client
# its session for good (ocserv answers 401, openconnect ends); a report lost in it would leave the
# session's state until the next reconciliation. A connect that may have been heard is not repeated.
# At a stop no control comes back, and whoever waited for it would be left when all else is gone.
sub ask_restarting {
    my ($verb) = @_;
    my $attempts = $RESTART_LIMIT / $RETRY_PAUSE;
    while (1) {
        my ($reply, $error) = ask($verb);
        return ($reply, $error) if !$error || $told || --$attempts < 0 || -e $STOPPING;
        select undef, undef, undef, $RETRY_PAUSE;
    }
}

# Gives an admitted session back. Without waiting (in a signal's handler: main stands still after its
# SIGTERM until we are gone, and perl holds back an alarm inside an alarm's handler) the request only
# has to fit into the socket's buffer; control reads it when it gets there.
sub give_back {
    my ($may_wait) = @_;
    $told = 0;
    if (!$may_wait) {
        my ($socket) = open_control($NONBLOCK);
        send_request($socket, request('refused')) if $socket;
        return;
    }
    eval {
        local $SIG{ALRM} = sub { die "limit\n" };
        alarm $RETURN_LIMIT;
        ask('refused');
        alarm 0;
    };
    return;
}

# The operator's script for this session's vhost, or undef. The file always exists: one that can't
# be read hides somebody's gate.
sub chained_script {
    my ($kind) = @_;
    my ($vhost, $found) = (value('VHOST'), undef);
    open my $chain, '<', "$RUN_DIR/hooks/chain" or die "hooks/chain: $!\n";
    while (my $line = <$chain>) {
        my ($name, $its_kind, $path) = $line =~ m{\A([^\t]+)\t(connect|disconnect)\t(/.*)\n\z}
          or die "hooks/chain:$.: not understood\n";
        $found = $path if $name eq $vhost and $its_kind eq $kind;
    }
    return $found;
}

sub become {
    my ($path) = @_;
    $SIG{TERM} = $SIG{ALRM} = 'DEFAULT';
    exec { $path } $path or say_why("$path: $!");
    exit 127;    # what a shell answers for a command that can't be run
}

# Runs the operator's connect script in a process group of its own, so that its children end with it.
sub run_script {
    my ($path) = @_;
    my $pid = fork;
    refuse("fork: $!", 1) unless defined $pid;
    if (!$pid) { setpgrp 0, 0; become($path) }
    setpgrp $pid, $pid;    # on both sides: neither may be ahead of the other
    $script = $pid;
    local $SIG{ALRM} = sub { refuse("$path ran longer than $SCRIPT_LIMIT s", 0) };
    alarm $SCRIPT_LIMIT;
    waitpid $pid, 0;
    my $status = $?;
    alarm 0;
    refuse("$path was killed by signal " . ($status & 127), 1) if $status & 127;
    refuse("$path exited with " . ($status >> 8), 1) if $status;
    $script = 0;    # what it left running in the background may go on, as under plain ocserv
    return;
}

sub on_connect {
    $SIG{ALRM} = sub { refuse("no verdict from control in $VERDICT_LIMIT s", 0) };
    $SIG{TERM} = sub { refuse('ended by SIGTERM', 0) };
    alarm $VERDICT_LIMIT;
    my ($reply, $error) = ask_restarting('connect');
    alarm 0;
    refuse($error, 0) if $error;
    if ($reply =~ /\Arefused (.*)\n\z/) { $told = 0; refuse($1, 0) }
    refuse('control gave no whole verdict', 1) unless $reply eq "admitted\n";
    my $path = eval { chained_script('connect') };
    refuse($@, 1) if $@;
    run_script($path) if defined $path;
    exit 0;
}

sub report {
    my ($reply, $error) = ask_restarting('disconnect');
    return $error if $error;
    return $reply eq "ok\n" ? '' : 'control did not confirm it';
}

sub on_disconnect {
    my $failed = eval {
        local $SIG{ALRM} = sub { die "no answer from control in $REPORT_LIMIT s\n" };
        alarm $REPORT_LIMIT;
        my $why = report();
        alarm 0;
        $why;
    };
    $failed = $@ if $@;
    say_why("not reported: $failed") if $failed;
    my $path = eval { chained_script('disconnect') };
    say_why($@) if $@;
    become($path) if defined $path;
    exit($failed ? 1 : 0);
}

# fd 0 is ocserv's occtl listening socket: closing our copy is harmless, reading it is not.
open STDIN, '<', '/dev/null' or refuse("/dev/null: $!", 0);
my $reason = value('REASON');
if    ($0 =~ m{/connect\z}    and $reason eq 'connect')    { on_connect() }
elsif ($0 =~ m{/disconnect\z} and $reason eq 'disconnect') { on_disconnect() }
refuse("called as $0 with REASON=$reason", 0);
