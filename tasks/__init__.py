"""Thin wrappers between Airflow and dssm_core: one a step, plain JSON in and out."""
