#!/bin/sh
# Says how the client ended; 256 stands for a signal, which is then $2. Control reads this line, too:
# it is the last that is kept of this client.
if [ "$1" = 256 ]; then how="was ended by signal $2"; else how="exited with $1"; fi
echo "tunnel $how"
. ../.s6-svscan/privileges
hold_only -all perl -w @HOOK@ "$1" "$2" 2>/dev/null
