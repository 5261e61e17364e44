"""One harness for each parser; a module here is one, by its name."""
