"""From a command line to a session: options, the model loaded, the conversation opened."""
