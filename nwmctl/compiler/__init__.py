"""The craft of compiling: what a graph costs, and one artifact out of one recipe. Imports no other craft."""
