"""The archive format: chunks, manifests, the catalog, plans. Only archive.py does I/O, through a Store."""
