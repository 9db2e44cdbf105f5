"""Text vectors of a catalogue, embedded once and kept under the cache directory by fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.artifacts import read_manifest, writing
from llmrec.catalog import Catalog
from llmrec.embed import Embedder
from llmrec.errors import ArtifactError

KIND = "text-vectors"


def text_vectors(catalog: Catalog, embedder: Embedder, cache: Path) -> np.ndarray:
    """float32[n, d] of `catalog.describe(row)`, L2-normalised; a cache that cannot be written is done without."""
    path = cache / f"{catalog.fingerprint[:16]}-{embedder.name}"
    try:
        read_manifest(path, KIND)
        return load_file(path / "vectors.safetensors")["vectors"]
    except ArtifactError:
        pass
    vectors = np.asarray(embedder.encode([catalog.describe(row) for row in range(len(catalog))]), np.float32)
    try:
        with writing(path, KIND, {"catalog": catalog.fingerprint}, own_place=True) as directory:
            save_file({"vectors": vectors}, directory / "vectors.safetensors")
    except (OSError, ArtifactError):
        pass  # a cache that is read-only, or damaged past replacing, costs some seconds at every start, nothing else
    return vectors
