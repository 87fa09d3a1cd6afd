"""The tool browser, as the models were trained with it: search, open and find over the web or a folder of documents."""
