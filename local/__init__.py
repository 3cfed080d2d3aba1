"""One machine: start the servers, run the demo."""
