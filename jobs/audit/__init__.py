"""The nightly audit: a Ray Data job from a manifest of images to one published Parquet table."""
