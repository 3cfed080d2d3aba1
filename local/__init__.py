"""MLflow and Airflow on one machine: `servers` starts and stops them, `demo` runs the demo."""
