"""Token ids in, sampled tokens out: the engine, its contexts, its generations."""
