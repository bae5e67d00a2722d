"""The command names that people type into a container of azinchen/ocserv-server, kept for ours.

    docker exec vpn network-diagnostic --json      ->      ocgate doctor --json

`names` is the table and pure; `command` runs what it says. The image links every name of the table
to one program. Nothing else imports this room.
"""
