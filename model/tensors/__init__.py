"""What the operations work on: weights, packed weights, keys and values."""
