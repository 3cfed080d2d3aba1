"""Thin wrappers between Airflow and dssm_core: a function per task, plain JSON in and out."""
