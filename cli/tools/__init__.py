"""The tools that the model can call, and what the person allows them."""
