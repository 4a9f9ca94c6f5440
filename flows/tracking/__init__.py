"""What happened, in MLflow: runs, metrics, models, registry. Alone imports mlflow, and only when used."""
