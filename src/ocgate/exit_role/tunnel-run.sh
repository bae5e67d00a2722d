#!/bin/sh
# The tunnel's client, in the foreground, as control wrote it down: exec, its arguments, quoted.
exec 2>&1 </dev/null
. ../.s6-svscan/orphan
end_orphan
. @COMMAND@
