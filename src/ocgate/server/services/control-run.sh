#!/bin/sh
# The control plane, with the environment of `ocgate run`.
exec 2>&1 </dev/null
. ../.s6-svscan/pause
pause_in_a_loop
exec @PYTHON@ -P -m ocgate.control.daemon @RUN_DIR@
