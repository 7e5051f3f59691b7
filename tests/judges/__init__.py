"""The judges of the deployed site, each in a file of its own."""
