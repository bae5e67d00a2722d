#!/bin/sh
# The real ocserv in the foreground. `env -i`: nothing of control's environment (secrets) reaches it,
# its hooks or the operator's scripts.
exec 2>&1 </dev/null 8<&- 9<&- # the lock of this network is the supervisor's and control's
. ../.s6-svscan/pause
pause_in_a_loop
. ../.s6-svscan/orphan
end_orphan

cd @RUN_DIR@ && rm -f @PID_FILE@ @OCCTL_SOCKET@ @OCSERV_SOCKET@.* @OCSERV_SOCKET@
cd @OCSERV_DIRECTORY@ || exit 1 # ocserv takes relative paths in its configuration from here
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin @OCSERV@ -f @ARGUMENTS@ \
  -c @RUN_DIR@/@CONF@ -p @RUN_DIR@/@PID_FILE@
