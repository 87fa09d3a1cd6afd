"""A folder of documents as the browser's web: nothing leaves the machine, and nothing outside of the folder is read."""
