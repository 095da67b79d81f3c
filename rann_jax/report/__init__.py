"""Reports on runs: html pages, tables (csv, markdown) and plots (png)."""
