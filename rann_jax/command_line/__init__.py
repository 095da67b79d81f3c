"""What the programs share: their parser, config files, and errors told in one line."""
