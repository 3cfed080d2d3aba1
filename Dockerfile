# Airflow with the pipeline. All Airflow services and all tasks run in this image.
FROM python:3.11-slim-bookworm

# git: MLflow logs the commit. g++ and headers: Annoy has no wheel and is compiled.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/dssm
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dssm_core dssm_core
COPY tasks tasks
RUN pip install --no-cache-dir torch==2.13.0 psycopg2-binary asyncpg '.[annoy,redis,optuna,kubernetes,sql,delta,iceberg]' -c constraints.txt
COPY dags dags
COPY plugins plugins
COPY configs configs

# The Helm chart of Airflow passes whole commands, and its probes call /entrypoint.
RUN printf '#!/bin/sh\nexec "$@"\n' > /entrypoint && chmod 755 /entrypoint
RUN useradd --create-home --uid 50000 airflow && install -d -o airflow /runs /opt/airflow /opt/airflow/logs
USER airflow
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/dssm/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/dssm/plugins \
    DSSM_CONFIGS=/opt/dssm/configs \
    DSSM_RUNS=/runs
ENTRYPOINT ["/entrypoint"]
