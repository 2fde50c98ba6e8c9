"""How fast, how large, how many calls. Run with `make bench`; figures are recorded in benchmarks/README.md."""
