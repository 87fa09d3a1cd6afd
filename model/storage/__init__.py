"""Files and memory: what is mapped, when it is read, and what is kept on the disk for other runs."""
