"""What is written down of runs: tables (csv, markdown) and plots (png)."""
