"""Installation, with the standard library alone: nothing else is there when it runs."""
