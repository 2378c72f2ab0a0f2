"""Trip duration: from TLC's monthly taxi records to a model of how long a trip takes."""
