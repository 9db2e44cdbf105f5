"""llmrec: a conversational recommender made of one open language model.

Public names are loaded when they are first used, so that `import llmrec` is fast.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Waiting threads sleep instead of spinning, which would occupy cores that the working threads need. OpenMP (torch,
# scikit-learn, faiss) and OpenBLAS (numpy, scipy) read these variables when they are loaded, so they are set before
# anything else is imported. Values that are set already are kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # 2 ** 4 cycles; the default of 2 ** 28 is a tenth of a second

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog as Catalog
    from llmrec.data.catalog import Item as Item
    from llmrec.data.filters import Filters as Filters
    from llmrec.data.requests import Request as Request
    from llmrec.dialogue.chat import Chat as Chat
    from llmrec.recommender import Recommender as Recommender

_PUBLIC = {
    "Catalog": "llmrec.data.catalog",
    "Chat": "llmrec.dialogue.chat",
    "Filters": "llmrec.data.filters",
    "Item": "llmrec.data.catalog",
    "Recommender": "llmrec.recommender",
    "Request": "llmrec.data.requests",
}
__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llmrec' has no attribute {name!r}; public are: {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
