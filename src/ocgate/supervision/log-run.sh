#!/bin/sh
exec 8<&- 9<&- # the lock of this network is the supervisor's and control's
. ../../.s6-svscan/privileges
# s6-svscan holds both ends of the pipe, so neither side's death is noticed by the other.
hold_only -all env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin perl -w ../../.s6-svscan/relay @STAGE@ @LOG_FORMAT@ @KEPT@
