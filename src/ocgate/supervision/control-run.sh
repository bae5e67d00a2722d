#!/bin/sh
# The control plane, with the environment of the ocgate that was started.
exec 2>&1 </dev/null
. ../.s6-svscan/pause
pause_in_a_loop
. ../.s6-svscan/privileges
# Rules, routes, devices; probes by a device of their own on old kernels (net_raw); files and sockets
# for ocserv's and the tunnel's accounts, and of the operator's; the end of a session's worker.
hold_only -all,+net_admin,+net_raw,+chown,+dac_override,+fowner,+kill \
  @PYTHON@ -I -m @MODULE@ @RUN_DIR@
