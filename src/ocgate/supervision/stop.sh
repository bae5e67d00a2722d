#!/bin/sh
# The ordered stop, run once (under a lock) by s6-svscan at SIGTERM or SIGINT: the services in the
# order that their role says, then the kernel state, then the supervisors.
if (: >&3) 2>/dev/null; then exec 2>&3 3>&-; fi # the real stderr, see directory.py
cd @RUN_DIR@/@SERVICES@ || exit 1
[ ! -e .s6-svscan/stopped ] || exit 0 # a signal that came after the work and before the end
: >.s6-svscan/stopping                # control/finish starts nothing any more

. .s6-svscan/privileges
names="@NAMES@" order="@ORDER@" # words without blanks
supervised() {
  for service in $names; do s6-svok "$service" || return 1; done
}
# A stop during the start waits for the supervisors: one that comes up later would start control anew.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do # 1 s
  supervised && break
  sleep 0.05
done
# The last step is started at once and works when its input ends: what it imports is there then, and
# what stands meanwhile stands shorter. s6 sends SIGKILL after ./timeout-kill; the waits for it are
# longer by a second and never end the stop. The limit is longer than all of it ever takes (two
# services, 0.5 s, 3 s of waiting for late packets): cut off it would leave kernel state, which leaks
# nothing.
for service in $order; do
  s6-svc -wd -T 4000 -d "$service" >&2
done | (hold_only @HOLDS@ timeout 14 @PYTHON@ -I -m @TEARDOWN@ @RUN_DIR@ when-input-ends) ||
  echo "svc-control: the teardown failed: kernel state of ocgate may be left; the next start sweeps it"

# A process that a hook left behind may hold the log's pipe for ever: don't wait for its end.
for service in $names; do s6-svc -d "$service/log"; done
: >.s6-svscan/stopped
s6-svscanctl -t .
