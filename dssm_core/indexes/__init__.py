"""Nearest-neighbour indexes, by name. See docs/extending.md to add one."""

INDEXES = {
    "annoy": "dssm_core.indexes.annoy:Annoy",
    "auto": "dssm_core.indexes.auto:Auto",
    "faiss_flat": "dssm_core.indexes.faiss_flat:FaissFlat",
    "faiss_hnsw": "dssm_core.indexes.faiss_hnsw:FaissHnsw",
    "faiss_ivf": "dssm_core.indexes.faiss_ivf:FaissIvf",
}
