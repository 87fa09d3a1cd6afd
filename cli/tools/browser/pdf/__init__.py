"""The text of PDF files, read in a sandbox: such files are programs' favourite way to break what opens them."""
