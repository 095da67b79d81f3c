"""Exit codes of the programs, other than 0, 1 and 2 (an error that the user can mend)."""

import signal

# Stopped, to be resumed by the same command: EX_TEMPFAIL of sysexits.h, on which launchers restart it.
RESUMABLE = 75
# What shells report for commands that Ctrl-C or SIGTERM ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
