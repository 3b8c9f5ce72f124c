"""Files of dictionaries: formats in and out."""
