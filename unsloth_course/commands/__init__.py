"""What the command line adds to the lessons."""
