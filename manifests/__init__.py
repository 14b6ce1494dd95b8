"""What comes in: the manifest schema, one reader per format, building a manifest, freezing it into shards."""
