"""The archive format: chunks, manifests, the catalog, plans. Only archive.py does I/O, through a Store."""

FORMAT = 1
"""Version of all records of an archive; a reader refuses a greater one."""
