"""The command line: typed commands that call the wiring and print what it returns.

`app` declares the commands, one module each does one. Modules import late, so that a command pays
only for what it uses. Nothing imports this room but `__main__`.
"""
