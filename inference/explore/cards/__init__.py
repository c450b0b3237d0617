"""The cards of the page, a module for each."""
