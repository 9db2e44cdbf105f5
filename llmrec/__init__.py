"""llmrec: a conversational recommender made of one open language model."""

import os

# Threads that wait for each other sleep instead of spinning: a waiting thread otherwise burns the core that the one it
# waits for is kept from. OpenMP (torch, scikit-learn, faiss) and OpenBLAS (numpy, scipy) read these when they are
# loaded, so they are set before anything else is imported. What a person has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # 2 ** 4 cycles; 2 ** 28 is usual, a tenth of a second

__version__ = "0.1.0"
