"""psycopg lives here: connections, the horizon, export, load."""
