"""What all rooms stand on: errors, progress, the Hub, checkpoints, the list of lessons. It imports no other room."""
