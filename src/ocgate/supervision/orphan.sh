# Sourced by the run script of a program that is one process and its children, in its service dir. Such
# a program whose supervisor was killed goes on serving, holds its port or device and is nobody's
# child. The start time (field 22 of proc(5) stat) shows that the pid is still the same process.

started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

end_orphan() { # ends it, and notes this process in its place: the caller must exec what it runs
  if read -r old_pid old_start 2>/dev/null <running && [ "$old_pid" != $$ ] &&
    [ "$(started "$old_pid")" = "$old_start" ]; then
    echo "ending ${PWD##*/} $old_pid, which lost its supervisor"
    kill -TERM "$old_pid"
    for _ in 1 2 3 4 5 6 7 8 9 10; do # 2 s; its children end with it in any case
      [ "$(started "$old_pid")" = "$old_start" ] || break
      sleep 0.2
    done
    kill -KILL "$old_pid" 2>/dev/null
  fi
  echo "$$ $(started $$)" >running
}
