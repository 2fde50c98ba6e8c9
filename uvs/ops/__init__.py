"""What an operator sees of the service: health, logs, references, the server's own limits, the well-known file."""
