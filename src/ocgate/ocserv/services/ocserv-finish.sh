#!/bin/sh
# One line about how ocserv ended; 256 stands for a signal, which is then $2.
if [ "$1" = 256 ]; then how="was ended by signal $2"; else how="exited with $1"; fi
[ "$1.$2" != 256.9 ] || how="$how (SIGKILL: by somebody, or by the kernel for want of memory)"
echo "ocserv $how"
