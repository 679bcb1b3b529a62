"""Scripts that measure, and print what docs/benchmarks.md shows."""
