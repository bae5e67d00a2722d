#!/bin/sh
# The control plane, with the environment of the ocgate that was started.
exec 2>&1 </dev/null
. ../.s6-svscan/pause
pause_in_a_loop
. ../.s6-svscan/privileges
hold_only @HOLDS@ @PYTHON@ -I -m @MODULE@ @RUN_DIR@
