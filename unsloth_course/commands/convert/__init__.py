"""The command `data`: converts a file of rows, and reports each row that was set aside."""
