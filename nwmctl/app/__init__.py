"""The composition root: settings, clocks, steps, processes. Joins everything and knows no craft."""
