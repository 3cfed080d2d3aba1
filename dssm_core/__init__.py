"""Two-tower (DSSM) retrieval: from a click log to a served index."""
