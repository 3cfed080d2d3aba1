"""Thin wrappers between Airflow and dssm_core: a function per task, plain JSON in and out."""

import logging

for library in ("great_expectations", "faiss"):  # hundreds of lines that no one needs
    logging.getLogger(library).setLevel(logging.WARNING)
