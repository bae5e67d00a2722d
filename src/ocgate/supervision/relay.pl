#!/usr/bin/perl -w
# relay STAGE FORMAT KEPT: passes one service's output on to the container's stdout, a line an event.
# FORMAT is human or json. STAGE `-` is control, which writes events by itself: these pass as they are,
# and what else it says (a traceback, its finish script) becomes events of svc-control. KEPT, if not
# empty, is a file to which every line is added as it was said, where such a file is: control reads in
# it why its tunnel ended, and empties it before it starts one.
#
# The service must never stand still because someone does not read our stdout (`docker logs` of a
# stopped daemon, Ctrl-S on a terminal): its pipe is always read, at most a mebibyte waits here, and
# what does not fit is dropped and counted. Ends at the end of input or, with what has arrived by then,
# at SIGTERM.

my ($stage, $format, $kept) = @ARGV;

my $WAITING_MAX = 1 << 20;    # bytes; about 10,000 lines
my $LINE_MAX    = 8192;       # bytes; longer lines are cut: ocserv's own limit is below 2 KiB
my $WRITE_MAX   = 4096;       # PIPE_BUF: a pipe that select calls writable takes this much whole
my $KEPT_MAX    = 1 << 16;    # bytes of KEPT, which then begins anew: what was said last counts
my $LAST_WORDS  = 1;          # seconds to write what waits when the input has ended

my ($O_WRONLY, $O_NOCTTY, $O_APPEND, $O_NONBLOCK) = (1, 0400, 02000, 04000);    # Linux

my ($partial, $waiting, $dropped, $ended, $deaf) = ('', '', 0, 0, 0);

# A descriptor of our own, because O_NONBLOCK belongs to the open file, which control and the operator's
# shell share. O_NOCTTY: we lead a session and must not win a terminal. Where it can't be had (a
# socket, a file that needs no such care) select and small writes have to do.
sub output {
    return \*STDOUT unless -p STDOUT or -t STDOUT;
    sysopen my $own, '/proc/self/fd/1', $O_WRONLY | $O_NOCTTY | $O_APPEND | $O_NONBLOCK
      or return \*STDOUT;
    return $own;
}

# What a terminal obeys, or what turns a line around: control characters of both ranges (ECMA-48) and
# Unicode's invisible ones. A client chooses its user name and agent, and ocserv logs them.
my $OBEYED = qr/[\x00-\x1f\x7f-\x9f\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{feff}]/;

sub json_string {
    my ($bytes) = @_;
    $bytes =~ s/[\x80-\xff]/?/g unless utf8::decode($bytes);
    $bytes =~ s/(["\\])/\\$1/g;
    $bytes =~ s/($OBEYED)/sprintf '\\u%04x', ord $1/ge;
    utf8::encode($bytes);
    return qq("$bytes");
}

# The same for people: letters of every alphabet stay, bytes that are no UTF-8 are shown by number.
sub plain {
    my ($bytes) = @_;
    $bytes =~ s/([\x80-\xff])/sprintf '\\x%02x', ord $1/ge unless utf8::decode($bytes);
    $bytes =~ s/($OBEYED)/sprintf ord $1 > 255 ? '\\u%04x' : '\\x%02x', ord $1/ge;
    utf8::encode($bytes);
    return $bytes;
}

sub timestamp {
    my ($second, $minute, $hour, $day, $month, $year) = gmtime;
    return sprintf '%04d-%02d-%02dT%02d:%02d:%02dZ',
      $year + 1900, $month + 1, $day, $hour, $minute, $second;
}

sub is_event {
    my ($line) = @_;
    return $format eq 'json' ? $line =~ /\A\{"/ : $line =~ /\A(?:init|svc)-[a-z]+: /;
}

sub as_event {
    my ($line) = @_;
    return ($format eq 'json' ? $line : plain($line)) . "\n" if $stage eq '-' and is_event($line);
    my $said_by = $stage eq '-' ? 'svc-control' : $stage;
    return "$said_by: " . plain($line) . "\n" unless $format eq 'json';
    return sprintf qq({"timestamp":"%s","level":"info","stage":"%s","event":%s}\n),
      timestamp(), $said_by, json_string($line);
}

sub keep_line {
    my ($line) = @_;
    return unless $kept and sysopen my $file, $kept, $O_WRONLY | $O_APPEND;
    truncate $file, 0 if -s $file > $KEPT_MAX;
    syswrite $file, "$line\n";
    return;
}

sub queue_line {
    my ($line) = @_;
    $line =~ s/\r\z//;
    keep_line($line);
    return if $deaf or $line eq '';
    if (length $waiting > $WAITING_MAX) { $dropped++; return }
    $waiting .= as_event("$dropped lines lost: nobody read them") if $dropped;
    $dropped = 0;
    $waiting .= as_event(substr $line, 0, $LINE_MAX);
    return;
}

sub take_input {
    my $got = sysread STDIN, $partial, 65536, length $partial;
    return if !defined $got and $!{EINTR};
    $ended = 1 unless $got;
    queue_line($1) while $partial =~ s/\A([^\n]*)\n//;
    if (length $partial > $LINE_MAX or $ended) { queue_line($partial); $partial = '' }
    return;
}

sub give_output {
    my ($to) = @_;
    my $written = syswrite $to, $waiting, $WRITE_MAX;
    if (defined $written) { substr $waiting, 0, $written, ''; return }
    return if $!{EAGAIN} or $!{EINTR};
    ($deaf, $waiting) = (1, '');    # the reader is gone for good: go on reading, say nothing
    return;
}

# One turn: waits up to $limit seconds (undef: for ever) until something can be read or written.
sub turn {
    my ($to, $limit) = @_;
    my ($readable, $writable) = ('', '');
    vec($readable, fileno STDIN, 1) = 1 unless $ended;
    vec($writable, fileno $to, 1) = 1 if length $waiting;
    my $ready = select $readable, $writable, undef, $limit;
    return $ready if $ready <= 0;
    take_input() if !$ended and vec $readable, fileno STDIN, 1;
    give_output($to) if length $waiting and vec $writable, fileno $to, 1;
    return $ready;
}

my $asked = 0;
$SIG{TERM} = sub { $asked = 1 };
$SIG{INT} = $SIG{HUP} = $SIG{PIPE} = 'IGNORE';
my $to = output();
turn($to, 1) until $ended or $asked;    # 1 s: a signal just before select must not be waited for
my $until = time + $LAST_WORDS;
while (time <= $until) { last if turn($to, 0.05) == 0 and !length $waiting }
