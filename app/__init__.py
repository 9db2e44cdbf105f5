"""The page, its two API endpoints, and the command line."""

import os

# Threads that wait for each other sleep instead of spinning; read when torch is loaded. A browser on the same two cores
# otherwise keeps a thread from the barrier that the other one burns its core at: a list took 0.77 s beside one busy
# process and takes 0.33 s so, alone 0.34 and 0.28.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
