"""How replies become the next global model: pure numbers, and Flower strategies; imports `setting`."""
