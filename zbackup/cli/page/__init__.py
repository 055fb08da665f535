"""The report as one static page."""
