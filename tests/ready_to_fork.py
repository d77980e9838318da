"""What the server of `forked.py` imports: all that runs are forked from that `benchmarks/killed.py` kills."""

import killed

killed.imported()
