"""What the programs share: parser, config files, signals, child processes, and errors told in one line."""
