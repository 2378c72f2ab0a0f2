"""What the Makefile calls: DVC on this repository, and the words around it."""
