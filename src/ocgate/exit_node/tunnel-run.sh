#!/bin/sh
# The tunnel's client, in the foreground, as control wrote it down: exec, its arguments, quoted.
exec 2>&1 </dev/null 8<&- 9<&- # the lock of this network is the supervisor's and control's
. ../.s6-svscan/orphan
. ../.s6-svscan/privileges
end_orphan
. @COMMAND@
