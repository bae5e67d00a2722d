#!/usr/bin/perl -w
# foreground SERVICES: stands in the terminal for s6-svscan, which runs in a session of its own.
#
# Ctrl-C sends SIGINT to every process of the foreground group. s6-supervise, which s6-svscan starts in
# its own group, answers it by sending SIGINT to its service and leaving (s6 docs, s6-supervise), so
# server and control would end at once and in no order. Here only this program gets it and tells
# s6-svscan, whose handler is the ordered stop. As PID 1 of a container with a terminal it also reaps.

my ($services) = @ARGV;

my $scanner = fork;
die "fork: $!\n" unless defined $scanner;
if (!$scanner) {
    # Should this program be killed, s6-svscan gets SIGTERM, the ordered stop.
    exec 'setpriv', '--pdeathsig', 'TERM', 'setsid', 's6-svscan', $services;
    die "setpriv: $!\n";
}

sub has_terminal { return open my $terminal, '<', '/dev/tty' }

$SIG{$_} = sub { kill $_[0], $scanner } for qw(INT TERM);
$SIG{QUIT} = sub { kill 'TERM', $scanner };

# A closed terminal hangs up too, but nobody who closes a window means "reload".
$SIG{HUP} = sub { kill has_terminal() ? 'HUP' : 'TERM', $scanner };

my $pid;
do { $pid = wait } until $pid == $scanner or $pid == -1;
my $status = $?;
exit($status >> 8) unless $status & 127;
exit 0 if -e "$services/.s6-svscan/stopped";    # one Ctrl-C more in its very last moment

# s6-svscan itself was killed: its supervisors go on, and still take orders.
system "$services/.s6-svscan/stop";
system 's6-svc', '-xd', "$services/$_" for split ' ', '@SUPERVISED@';
exit 1;
