"""Exit codes of the programs, other than 0, 1 and 2 (an error that the user can mend)."""

import signal

# EX_TEMPFAIL of sysexits.h, "try again": launchers restart the command on this code.
EXIT_CODE = 75
# What shells report for commands that Ctrl-C or SIGTERM ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
