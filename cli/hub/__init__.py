"""Getting and keeping models: from the hub, by its own client library, to this machine.

`huggingface_hub` is imported only inside functions that are about to talk to the hub or to its cache.
"""
