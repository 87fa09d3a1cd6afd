"""Functions of the person's own, which run with the person's rights in processes of their own."""
