"""Pictures in a recording as compressed bytes: PNG, JPEG or H.264."""
