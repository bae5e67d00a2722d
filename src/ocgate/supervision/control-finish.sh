#!/bin/sh
# No new session is admitted while control is away, so the first death within 10 s does not wait out
# s6's second: `-u` to a service that is down starts it now. Not during an ordered stop, of course.
if [ "$1" = 256 ]; then how="was ended by signal $2"; else how="exited with $1"; fi
[ "$1.$2" != 256.9 ] || how="$how (SIGKILL: by somebody, or by the kernel for want of memory)"
echo "control $how"
. ../.s6-svscan/pause
[ "$(deaths_within 10)" -le 1 ] || exit 0
wanted() { [ ! -e ../.s6-svscan/stopping ] && [ "$(s6-svstat -o wantedup .)" = true ]; }
wanted || exit 0
(s6-svwait -D -t 900 . && wanted && s6-svc -u .) >/dev/null 2>&1 & # D: when this script has ended
