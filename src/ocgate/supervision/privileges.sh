# Sourced by run scripts: what a service may do is less than what root may, and no program that it
# executes gains a thing (no_new_privs). Without CAP_SETPCAP (a container with --cap-drop ALL) what
# root may can't be narrowed, and the container's own list is the limit.

may_narrow() { setpriv --bounding-set=-all true 2>/dev/null; }

# hold_only SETS COMMAND...: becomes the command. SETS as for setpriv(1): `-all,+net_admin`. What is
# in SETS and not held is not gained.
hold_only() {
  sets=$1
  shift
  if may_narrow; then set -- --bounding-set="$sets" "$@"; fi
  exec setpriv --no-new-privs --inh-caps=-all "$@"
}

# The option of setpriv(1) for who holds nothing and is not root: without it, too, it has no
# capability, and with no_new_privs gets none.
nothing_ever() { if may_narrow; then echo --bounding-set=-all; fi; }
