#!/bin/sh
# The real ocserv in the foreground. `env -i`: nothing of control's environment (secrets) reaches it,
# its hooks or the operator's scripts.
exec 2>&1 </dev/null
. ../.s6-svscan/pause
pause_in_a_loop

# An ocserv whose supervisor was killed goes on serving, holds the port and is nobody's child. The
# start time (field 22 of proc(5) stat) shows that the pid is still the same process.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
if read -r old_pid old_start 2>/dev/null <running && [ "$old_pid" != $$ ] &&
  [ "$(started "$old_pid")" = "$old_start" ]; then
  echo "ending ocserv $old_pid, which lost its supervisor"
  kill -TERM "$old_pid"
  for _ in 1 2 3 4 5 6 7 8 9 10; do # 2 s; its workers end with it in any case
    [ "$(started "$old_pid")" = "$old_start" ] || break
    sleep 0.2
  done
  kill -KILL "$old_pid" 2>/dev/null
fi
echo "$$ $(started $$)" >running

cd @RUN_DIR@ && rm -f @PID_FILE@ @OCCTL_SOCKET@ @OCSERV_SOCKET@.* @OCSERV_SOCKET@
cd @OCSERV_DIRECTORY@ || exit 1 # ocserv takes relative paths in its configuration from here
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin @OCSERV@ -f @ARGUMENTS@ \
  -c @RUN_DIR@/@CONF@ -p @RUN_DIR@/@PID_FILE@
