"""Side-by-side measurements: ``python -m bench`` prints a table and adds it, dated, to ``docs/measurements.md``."""
