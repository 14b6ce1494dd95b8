"""The demo's synthetic production line: drawn parts, drawn defects, and an archive of one night's images."""
