#!/bin/sh
# The control plane, with the environment of `ocgate run`.
exec 2>&1 </dev/null
. ../.s6-svscan/pause
exec @PYTHON@ -P -m ocgate.control.daemon
