"""The model as an HTTP service: how long a trip will take, for whoever asks."""
