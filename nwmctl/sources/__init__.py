"""Where models come from: fetching a model package and proving it before anything uses it."""
