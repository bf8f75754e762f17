"""Array operations that the models and the privacy core share; they know nothing of either."""
