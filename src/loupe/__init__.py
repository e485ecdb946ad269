"""loupe: a magnifying glass for product photos, and the pipeline that trains, scores and releases it."""
