"""The control directory, issues and the process supervisor."""
