"""Models on this machine: pulling them from the hub with its own client library, listing, removal.

`huggingface_hub` is imported only inside functions that are about to talk to the hub or to its cache.
"""
