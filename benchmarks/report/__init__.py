"""From rows to tables, plots and docs/benchmarks.md."""
