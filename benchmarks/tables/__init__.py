"""The tables of docs/benchmarks.md and README, and the pictures: what each measures, and how it is shown."""
