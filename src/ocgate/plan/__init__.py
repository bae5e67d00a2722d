"""What the kernel should hold, as a value; nothing in this room looks anything up.

intent (what is wanted, from settings, ocserv.conf and facts) -> planner -> Plan -> text, diff
"""
