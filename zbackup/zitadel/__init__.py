"""What is known about ZITADEL: row shapes, tables, its configuration file. Pure; opens no connection."""
