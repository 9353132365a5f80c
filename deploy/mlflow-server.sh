#!/usr/bin/env bash
# MLflow with PostgreSQL and a folder of artifacts, for `tracking=server tracking.uri=http://HOST:5000`.
#
#     pip install psycopg2-binary
#     createdb mlflow
#     PGHOST=/var/run/postgresql ARTIFACTS=/shared/mlartifacts deploy/mlflow-server.sh
#
# PGHOST, PGPORT, PGDATABASE, PGUSER, and PGPASSWORD or ~/.pgpass, are PostgreSQL's own: no command shows a password.
# It listens on this machine alone. HOST=0.0.0.0 NAMES=mlflow,mlflow:5000 opens it under those names, to whoever gets
# there: MLflow asks for no password. Close the network, or put it behind a proxy that does.
set -euo pipefail
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec python -m mlflow server \
    --host "${HOST:-127.0.0.1}" --port "${PORT:-5000}" --workers "${WORKERS:-2}" \
    --allowed-hosts "localhost:*,127.0.0.1:*,${NAMES:-localhost}" \
    --backend-store-uri "postgresql+psycopg2:///${PGDATABASE:-mlflow}" \
    --artifacts-destination "${ARTIFACTS:-mlartifacts}"
