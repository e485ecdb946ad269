"""Order, schedules, retries, artifacts: Prefect flows that call `loupe` and `dvc`. No pixel and no tensor in here."""
