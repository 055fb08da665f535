"""Named immutable bytes: a folder or an S3 bucket."""
